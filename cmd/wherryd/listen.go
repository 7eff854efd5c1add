package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// listen gives the sockets that a service manager passed, or makes those at paths.
func listen(paths []string) (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	passed, err := passedListeners()
	if err != nil || len(passed) > 0 {
		return passed, err
	}
	for _, path := range paths {
		l, err := listenUnix(path)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}

// listenUnix makes a socket of mode 0600. A socket file that nobody listens on any more (its engine was killed) is replaced; one that
// answers is not. The lock on --root does not settle this: two engines with different roots may be given the same socket.
func listenUnix(path string) (net.Listener, error) {
	if len(path) >= 108 {
		return nil, fmt.Errorf("--host unix://%s: a socket's path has at most 107 bytes, this one %d", path, len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("--host unix://%s: there is a file that is no socket; remove it or choose another path", path)
	default:
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("--host unix://%s: another process listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := unix.Umask(0o177) // from its first moment the socket is its owner's only
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	return l, err
}

// passedListeners takes over the descriptors from 3 on, as sd_listen_fds(3) says.
func passedListeners() (all []net.Listener, err error) {
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	for fd := 3; fd < 3+n; fd++ {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "listen"+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return all, fmt.Errorf("descriptor %d of LISTEN_FDS: %w", fd, err)
		}
		if _, ok := l.(*net.UnixListener); !ok {
			l.Close()
			return all, fmt.Errorf("descriptor %d of LISTEN_FDS is no unix socket: wherryd listens on nothing else", fd)
		}
		all = append(all, l)
	}
	return all, nil
}

// notifyReady tells a service manager, as sd_notify(3) says. That nobody listens is no error.
func notifyReady() {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	os.Unsetenv("NOTIFY_SOCKET")
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte("READY=1"))
}
