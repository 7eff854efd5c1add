package threads

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func count(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestReservedAreUsed: what waits in the kernel takes the threads that are there, and they stay.
func TestReservedAreUsed(t *testing.T) {
	const n = 40
	Reserve(n)
	had := count(t)
	if had < n {
		t.Fatalf("%d threads", had)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var waits sync.WaitGroup
	for range n - 8 { // the runtime has uses for some itself
		waits.Go(func() { _, _ = unix.Read(pipe[0], make([]byte, 1)) })
	}
	if _, err := unix.Write(pipe[1], make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	waits.Wait()
	if now := count(t); now > had {
		t.Errorf("%d threads, had %d", now, had)
	}
}
