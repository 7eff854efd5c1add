package shim

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/logs"
)

// smallDisk is a file system that fill fills; what fill returns makes room again.
func smallDisk(t *testing.T) (dir string, fill func() (empty func())) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func() func() {
		f, err := os.Create(filepath.Join(dir, "fill"))
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		f.Close()
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		return func() {
			if err := os.Remove(f.Name()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// logged is what stands in a log, by stream.
func logged(t *testing.T, dir string) (streams [3]string) {
	t.Helper()
	r, err := logs.Open(dir, logs.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context())
		if err == io.EOF {
			return streams
		}
		if err != nil {
			t.Fatal(err)
		}
		streams[e.Stream] += string(e.Data)
	}
}

// TestMissingOutputIsTold: a full disk costs output, and the log says how much in its place, once; or the end of the container does.
func TestMissingOutputIsTold(t *testing.T) {
	dir, fill := smallDisk(t)
	w, err := logs.Create(filepath.Join(dir, "log"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := &output{log: w}
	say := func(text string) {
		o.append(&pipe{stream: logs.Stdout}, time.Now(), append(make([]byte, logs.HeaderSize), text...))
	}
	block := strings.Repeat("x", 8191) + "\n"
	say("first\n")
	empty := fill()
	say(block)
	say(block)
	empty()
	say("then\n")
	say("after\n")
	if n := o.untold(); n != 0 {
		t.Errorf("%d bytes are missing in the end", n)
	}
	empty = fill()
	for range 4096 { // what is left of the last block
		say(".")
	}
	if n := o.untold(); n == 0 {
		t.Error("nothing is missing at the end of a log on a full disk")
	}
	empty()
	o.close()
	streams := logged(t, filepath.Join(dir, "log"))
	if out := strings.TrimRight(streams[logs.Stdout], "."); out != "first\nthen\nafter\n" {
		t.Errorf("stdout: %q", streams[logs.Stdout])
	}
	if told := streams[logs.Stderr]; !strings.HasPrefix(told, "wherry: 16384 bytes of output are missing here, from ") || !strings.HasSuffix(told, ": no space left on device\n") || strings.Count(told, "\n") != 1 {
		t.Errorf("stderr: %q", told)
	}
}
