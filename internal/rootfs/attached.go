package rootfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayAttached makes the overlay for kernels that refuse detached layers: on a thread of its own, in a mount namespace of its own, each
// layer is attached over the directory that it came from and named by its descriptor. The overlay keeps its own clones of them, so that
// namespace and thread end before this returns.
func (r *Rootfs) overlayAttached(lower []*os.File) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, whose mounts are not those of the others, ends with the goroutine
		f, err := r.inOwnMounts(lower)
		done <- result{f, err}
	}()
	d := <-done
	return d.f, d.err
}

func (r *Rootfs) inOwnMounts(lower []*os.File) (f *os.File, err error) {
	home, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("make a mount namespace for the layers: %w", err)
	}
	defer func() { // the main thread never ends and must not keep the layers
		err = errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNS))
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("keep the layers' mounts from the host: %w", err)
	}
	names := make([]string, len(lower))
	for i, l := range lower {
		if err := unix.MoveMount(int(l.Fd()), "", unix.AT_FDCWD, r.Lower[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("attach layer %s: %w", r.Lower[i], err)
		}
		names[i] = fmt.Sprintf("/proc/self/fd/%d", l.Fd())
	}
	return r.configure(func(fs int) error { return unix.FsconfigSetString(fs, "lowerdir", strings.Join(names, ":")) })
}
