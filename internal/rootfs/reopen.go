package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrSpecial says that what was to be read is neither a regular file nor a directory.
var ErrSpecial = errors.New("neither a regular file nor a directory")

// Reopen opens for reading what a descriptor of type O_PATH stands for, where it is a regular file or a directory. An image can have
// anything in a file's place, and to open a pipe or a device is to do something with it already: a pipe waits, a watchdog starts to count. A link
// into a container's procfs leads to what is no file either, whatever its mode says: who reads /proc/kmsg takes it out of the host's log, and waits for more.
func Reopen(at *os.File) (*os.File, error) {
	raw, err := at.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	control := raw.Control(func(fd uintptr) { f, err = reopen(int(fd), at.Name()) })
	return f, errors.Join(control, err)
}

func reopen(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, fmt.Errorf("open %s: %w", name, ErrSpecial)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 && ofTheKernel(fd) { // what they say of almost all of theirs
		return nil, fmt.Errorf("open %s, which is the kernel's: %w", name, ErrSpecial)
	}
	// The link leads to the very file that was looked at, whatever its name stands for by now.
	again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(again), name), nil
}

// ofTheKernel says that a file lies on a file system where reading asks the kernel for something.
func ofTheKernel(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return true
	}
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.TRACEFS_MAGIC, unix.DEBUGFS_MAGIC:
		return true
	}
	return false
}
