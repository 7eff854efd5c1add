package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

// overlayAttached makes the overlay for kernels that refuse detached layers: on a thread of its own, in a mount namespace of its own, each
// of its parts is attached over the directory that it came from and named by its descriptor. The overlay keeps its own clones of them, so that
// namespace and thread end before this returns.
func (r *Rootfs) overlayAttached(lower []*os.File, parts []place) (f *os.File, err error) {
	err = threads.Apart(func() (err error) {
		f, err = r.inOwnMounts(lower, parts)
		return err
	})
	return f, err
}

func (r *Rootfs) inOwnMounts(lower []*os.File, parts []place) (f *os.File, err error) {
	home, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("make a mount namespace for the layers: %w", err)
	}
	defer func() { // the thread may last a moment longer, and must not keep the layers
		err = errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNS))
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("keep the layers' mounts from the host: %w", err)
	}
	for _, p := range parts {
		// A clone of a shared mount is its peer: what is mounted on it would appear on the host's, where systemd has made all mounts shared.
		if err := unix.MountSetattr(int(p.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
			return nil, fmt.Errorf("cut layer %s off from the host's mounts: %w", p.of, err)
		}
		if err := unix.MoveMount(int(p.Fd()), "", unix.AT_FDCWD, p.of, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("attach layer %s: %w", p.of, err)
		}
	}
	return r.mountOld(lower)
}

// mountOld mounts the overlay with mount(2), whose options may be a page long (those of fsconfig(2) have 255 bytes there, too few for 127
// layers), over a layer's place, and takes it off again as a detached clone. Directories are named by descriptors, from /proc/self/fd.
func (r *Rootfs) mountOld(lower []*os.File) (*os.File, error) {
	names := make([]string, len(lower))
	for i, l := range lower {
		names[i] = strconv.Itoa(int(l.Fd()))
	}
	options := "lowerdir=" + strings.Join(names, ":")
	flags := uintptr(0)
	if r.ReadOnly || r.Upper == "" {
		flags = unix.MS_RDONLY
	}
	if r.Upper != "" {
		for _, d := range [][2]string{{"upperdir", r.Upper}, {"workdir", r.Work}} {
			fd, err := unix.Open(d[1], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("set %s of the overlay to %s: %w", d[0], d[1], err)
			}
			defer unix.Close(fd)
			options += "," + d[0] + "=" + strconv.Itoa(fd)
		}
		options += ",redirect_dir=off,metacopy=off"
	}
	if r.Upper != "" && r.Volatile {
		options += ",volatile"
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil { // this thread's alone, as its mounts are
		return nil, fmt.Errorf("go to the descriptors: %w", err)
	}
	if err := r.owner().AsRoot(func() error { return unix.Mount("overlay", r.Lower[0], "overlay", flags, options) }); err != nil {
		return nil, fmt.Errorf("mount overlay on %s: %w", r.Upper, err)
	}
	return unix2File(unix.OpenTree(unix.AT_FDCWD, r.Lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
}
