package room

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExplain: removing images gives no room to a file system in memory.
func TestExplain(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "room-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(memory)
	for _, row := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "write", Path: filepath.Join(memory, "gone", "file"), Err: unix.ENOSPC}, "the file system in memory at /dev/shm is full"},
		{&os.LinkError{Op: "rename", Old: "/a", New: memory + "/b", Err: unix.ENOSPC}, "in memory at /dev/shm is full"},
		{&fs.PathError{Op: "write", Path: "file", Err: unix.ENOSPC}, "the disk is full: " + Advice},
		{unix.EDQUOT, "the disk is full: " + Advice},
	} {
		if got := Explain(fmt.Errorf("start: %w", row.err)); !strings.Contains(got.Error(), row.want) || !Lacks(got) {
			t.Errorf("%v: %v", row.err, got)
		}
	}
}
