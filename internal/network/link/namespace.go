package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Home opens the calling thread's network namespace.
func Home() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the engine's network namespace: %w", err)
	}
	return f, nil
}

// Inside calls fn on a thread that is in a network namespace, and waits for it. Sockets that fn opens and files below /proc/sys/net that it
// opens are that namespace's. home is where the thread belongs; one that does not get back there is not used again.
func Inside(namespace, home *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter the container's network namespace: %w", err)
			return
		}
		err := fn()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// What is wrong where a setting cannot be opened for ENOENT, and where writing it ends with EINVAL.
const (
	NoSysctl = "the kernel has no such setting: check its name, or load the module that brings it"
	NoValue  = "the kernel does not take that value"
)

// SetSysctl writes a setting below /proc/sys/net of the calling thread's namespace; the key has slashes.
func SetSysctl(key, value string) error { return setBelow(unix.AT_FDCWD, "/proc/sys/", key, value) }

func setBelow(dir int, prefix, key, value string) error {
	fd, err := unix.Openat(dir, prefix+key, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("open sysctl %s: %w: %s", key, err, NoSysctl)
	case err != nil:
		return fmt.Errorf("open sysctl %s: %w", key, err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	switch {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("set sysctl %s to %q: %w: %s", key, value, err, NoValue)
	case err != nil:
		return fmt.Errorf("set sysctl %s to %q: %w", key, value, err)
	}
	return nil
}
