package docker

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// TestFrames: what is framed is parted again by Docker's own reader, also when both streams are written at once.
func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	stdout, stderr := stdFrames(&wire)
	big := strings.Repeat("0123456789abcdef", 200_000) // more than one frame
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 50 {
				if n, err := stdout.Write([]byte("out\n")); n != 4 || err != nil {
					t.Errorf("write: %d %v", n, err)
				}
			}
		})
	}
	wg.Go(func() {
		if n, err := stderr.Write([]byte(big)); n != len(big) || err != nil {
			t.Errorf("write: %d %v", n, err)
		}
	})
	wg.Wait()
	if n, err := stdout.Write(nil); n != 0 || err != nil {
		t.Errorf("empty write: %d %v", n, err)
	}
	var a, b bytes.Buffer
	if _, err := stdcopy.StdCopy(&a, &b, &wire); err != nil {
		t.Fatal(err)
	}
	if a.String() != strings.Repeat("out\n", 100) {
		t.Errorf("stdout is %d bytes", a.Len())
	}
	if b.String() != big {
		t.Errorf("stderr is %d bytes of %d", b.Len(), len(big))
	}
}

// TestFramesOfLines: each line has a frame, which are written together.
func TestFramesOfLines(t *testing.T) {
	var wire bytes.Buffer
	out := frames{&framed{w: &wire, lines: true}, 1}
	if n, err := out.Write([]byte("one\n\nhalf")); n != 9 || err != nil {
		t.Fatal(n, err)
	}
	if want := "\x01\x00\x00\x00\x00\x00\x00\x04one\n\x01\x00\x00\x00\x00\x00\x00\x01\n\x01\x00\x00\x00\x00\x00\x00\x04half"; wire.String() != want {
		t.Errorf("%q", wire.String())
	}
}
