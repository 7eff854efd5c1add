package localhost

import (
	"path/filepath"
	"testing"
)

// TestNumberOfALinkAtEachDepth: the kernel writes to where the stack is, also where it has grown right before the system call.
func TestNumberOfALinkAtEachDepth(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "note"))
	fd := int(r.link.Fd())
	want, err := linkID(fd)
	if err != nil || want == 0 {
		t.Fatal(want, err)
	}
	for depth := range 1000 {
		got := make(chan uint32)
		go func() { got <- below(depth, fd) }()
		if got := <-got; got != want {
			t.Fatalf("%d frames deep the link is number %d, want %d", depth, got, want)
		}
	}
}

// below asks below so many frames.
//
//go:noinline
func below(n, link int) uint32 {
	if n > 0 {
		return below(n-1, link)
	}
	id, _ := linkID(link)
	return id
}
