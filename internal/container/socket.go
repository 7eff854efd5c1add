package container

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/threads"
)

// renewSocket gives a container that was found again the engine's socket, where it has the one of an earlier life mounted: nobody listens on that
// any more.
func renewSocket(s *Service, t *task.Task, r *Record) error {
	now, err := os.Stat(s.o.Socket)
	if s.o.Socket == "" || err != nil {
		return nil // it listens elsewhere
	}
	for _, m := range r.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		if source, err := os.Stat(m.Source); err != nil || !os.SameFile(source, now) {
			continue
		}
		if err := replaceSocket(t, r, m, now); err != nil {
			return fmt.Errorf("give container %s the engine's socket again, at %s: %w; restart it to have it there", r.Name, m.Destination, err)
		}
	}
	return nil
}

func replaceSocket(t *task.Task, r *Record, m spec.Mount, now os.FileInfo) error {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", t.Pid()), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	ns, err := t.Namespace("mnt") // and its process is alive: the root directory is its own
	if err != nil {
		return err
	}
	defer ns.Close()
	dir, err := openIn(root, path.Dir(m.Destination), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	at := &socketPlace{dir: dir, name: path.Base(m.Destination)}
	f, err := at.open()
	if err != nil {
		return err
	}
	there, err := f.Stat()
	f.Close()
	switch {
	case err != nil:
		return err
	case os.SameFile(there, now): // a service manager has kept it
		return nil
	case there.Mode()&os.ModeSocket == 0:
		return errors.New("something else is there")
	}
	ids, err := r.IDMap.UserNamespace()
	if err != nil {
		return err
	}
	if ids != nil {
		defer ids.Close()
	}
	o := rootfs.BindOptions{UserNS: ids, Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if m.ReadOnly {
		o.Set |= unix.MOUNT_ATTR_RDONLY
	}
	socket, err := rootfs.Bind(m.Source, o)
	if err != nil {
		return err
	}
	defer socket.Close()
	return at.replace(ns, socket)
}

// socketPlace is where a container has a socket.
type socketPlace struct {
	dir  *os.File
	name string
}

func (p *socketPlace) open() (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p.name), nil
}

// replace takes away what is mounted there and mounts something else, which only a thread that is in the namespace may: nothing can be mounted on a
// socket whose file is gone.
func (p *socketPlace) replace(ns, detached *os.File) error {
	return threads.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter its mount namespace: %w", err)
		}
		if err := unix.Fchdir(int(p.dir.Fd())); err != nil {
			return err
		}
		if err := unix.Unmount(p.name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount the old one: %w", err)
		}
		at, err := p.open()
		if err != nil {
			return err
		}
		defer at.Close()
		return unix.MoveMount(int(detached.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
}
