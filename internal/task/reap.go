package task

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reap takes a child's status when it ends, by its pidfd. The runtime's poller does the waiting: os.Process.Wait would keep a thread for each.
func reap(pidfd int) error {
	if err := unix.SetNonblock(pidfd, true); err != nil { // before NewFile, which looks
		unix.Close(pidfd)
		return err
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var status error
	err = conn.Read(func(fd uintptr) bool {
		status = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED, nil)
		return !errors.Is(status, unix.EAGAIN) // EAGAIN of a pidfd that does not block: it lives (pidfd_open(2))
	})
	return errors.Join(err, status)
}
