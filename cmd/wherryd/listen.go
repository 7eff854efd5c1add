package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mutual"
)

// listen gives the sockets that a service manager passed, or makes those at hosts.
func (o *options) listen(log *slog.Logger) (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	secure, err := o.secure(log)
	if err != nil {
		return nil, err
	}
	passed, err := passedListeners(secure)
	if err != nil || len(passed) > 0 {
		return passed, err
	}
	for _, h := range o.hosts {
		var l net.Listener
		if h.path != "" {
			l, err = o.listenUnix(h.path)
		} else {
			l, err = listenTCP(h.address, secure)
		}
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

func listenTCP(address string, secure *mutual.Listeners) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--host tcp://%s: %w", address, err)
	}
	return secure.On(l), nil
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}

// addresses of listeners, as --host takes them.
func addresses(list []net.Listener) (out []string) {
	for _, l := range list {
		scheme := "unix://"
		if l.Addr().Network() == "tcp" {
			scheme = "tcp://"
		}
		out = append(out, scheme+l.Addr().String())
	}
	return out
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

// listenUnix lets members of the group reach the socket: they may write to it, and pass through the engine's directory.
func (o *options) listenUnix(path string) (net.Listener, error) {
	l, err := listenUnix(path)
	if err != nil || o.group < 0 {
		return l, err
	}
	err = errors.Join(os.Chown(path, 0, int(o.group)), os.Chmod(path, 0o660))
	if filepath.Dir(path) == o.state {
		err = errors.Join(err, os.Chown(o.state, 0, int(o.group)), os.Chmod(o.state, 0o710))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open %s to group %s: %w", path, o.set.Engine.Group, err)
	}
	return l, nil
}

// passedListeners takes over the descriptors from 3 on, as sd_listen_fds(3) says. secure is nil where TLS is not set up.
func passedListeners(secure *mutual.Listeners) (all []net.Listener, err error) {
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
			if secure == nil {
				l.Close()
				return all, fmt.Errorf("descriptor %d of LISTEN_FDS is no unix socket: %w", fd, errNoTLS)
			}
			l = secure.On(l)
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
