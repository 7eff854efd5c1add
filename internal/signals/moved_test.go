package signals

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemoryIsWhereTheKernelLooks: a goroutine's stack may move at any call, and with it the memory that the kernel is told of. Each depth of a fresh stack
// is tried, so that in some the stack grows right before the system call.
func TestMemoryIsWhereTheKernelLooks(t *testing.T) {
	table, err := makeTable(8, len(value{})*slotSize, maxEntries)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(table)
	have := value{{1, 2, 3}, {4, 5, 6}}
	if err := put(table, 77, &have); err != nil {
		t.Fatal(err)
	}
	for depth := range 1000 {
		got := make(chan value)
		go func() {
			var v value
			deep(depth, table, &v)
			got <- v
		}()
		if got := <-got; got != have {
			t.Fatalf("%d frames deep the table has %v", depth, got)
		}
	}
}

// deep gets the value below so many frames.
//
//go:noinline
func deep(n, table int, v *value) {
	if n > 0 {
		deep(n-1, table, v)
		return
	}
	_ = get(table, 77, v)
}
