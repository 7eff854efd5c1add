package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	dockermount "github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
)

// mountsOf asks BuildKit for a mount, which it gives back when the step is over.
func (s *step) mountsOf(ctx context.Context, m executor.Mount) ([]mount.Mount, error) {
	if m.Src == nil {
		return nil, fmt.Errorf("mount %s has no source", m.Dest)
	}
	src, err := m.Src.Mount(ctx, m.Readonly)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
	}
	list, release, err := src.Mount()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
	}
	if release != nil {
		s.onUndo(func(context.Context) error {
			err := release()
			for _, one := range list {
				// BuildKit takes an agent's socket away, and leaves the directory that it has made for it.
				if dir := filepath.Dir(one.Source); strings.HasPrefix(filepath.Base(dir), ".buildkit-ssh-sock") {
					err = errors.Join(err, os.Remove(dir))
				}
			}
			return err
		})
	}
	return list, nil
}

// findRoot finds the directories of the root file system.
func (s *step) findRoot(ctx context.Context, m executor.Mount, ids rootfs.IDMap) error {
	list, err := s.mountsOf(ctx, m)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("a root file system of %d mounts is not understood", len(list))
	}
	v, err := s.view(list[0])
	if err != nil {
		return err
	}
	if v == nil {
		return fmt.Errorf("a root file system of type %s is not understood", list[0].Type)
	}
	v.IDMap = ids
	s.root = *v
	return nil
}

// view are the directories of a snapshot's mount, nil for what is no snapshot's. A snapshot that is written to comes as the mount that
// BuildKit has made of it: its overlay is looked up and made anew, with the step's ids.
func (s *step) view(m mount.Mount) (*rootfs.Rootfs, error) {
	switch {
	case m.Type == "overlay":
		return overlayView(m.Options), nil
	case m.Type != "bind" && m.Type != "rbind":
		return nil, nil
	}
	if filepath.Dir(m.Source) == s.x.b.shared() {
		options, err := overlayAt(m.Source)
		if err != nil {
			return nil, err
		}
		if whole := s.x.b.uppers.of(upperOf(options)); whole != nil {
			options = whole
		}
		v := overlayView(options)
		if slices.Contains(m.Options, "ro") {
			v.ReadOnly = true
		}
		return v, nil
	}
	work := filepath.Join(filepath.Dir(m.Source), "work")
	if fi, err := os.Lstat(work); err == nil && fi.IsDir() && filepath.Base(m.Source) == "fs" && strings.HasPrefix(m.Source, s.x.b.o.Root+"/") && !slices.Contains(m.Options, "ro") {
		empty := filepath.Join(s.dir(), "nothing")
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return nil, err
		}
		return &rootfs.Rootfs{Lower: []string{empty}, Upper: m.Source, Work: work, Layer: true}, nil
	}
	return &rootfs.Rootfs{Lower: []string{m.Source}}, nil
}

func overlayView(options []string) *rootfs.Rootfs {
	v := &rootfs.Rootfs{}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir":
			v.Lower = append(v.Lower, strings.Split(value, ":")...)
		case "lowerdir+":
			v.Lower = append(v.Lower, value)
		case "upperdir":
			v.Upper, v.Layer = value, true
		case "workdir":
			v.Work = value
		}
	}
	return v
}

// shared is where BuildKit mounts what is written to.
func (b *Builder) shared() string { return filepath.Join(b.root(), "mounts") }

// overlayAt reads the options of the overlay that is mounted at a path.
func overlayAt(at string) ([]string, error) {
	list, err := mountinfo.Own()
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	for _, m := range slices.Backward(list) { // the last one is on top
		if m.At == at {
			return m.Options, nil
		}
	}
	return nil, fmt.Errorf("nothing is mounted at %s", at)
}

// findMounts finds what --mount shows in the step.
func (s *step) findMounts(ctx context.Context, mounts []executor.Mount) error {
	for _, m := range mounts {
		list, err := s.mountsOf(ctx, m)
		if err != nil {
			return err
		}
		for _, one := range list {
			if err := s.addMount(m, one); err != nil {
				return fmt.Errorf("mount %s: %w", m.Dest, err)
			}
		}
	}
	return nil
}

func (s *step) addMount(m executor.Mount, from mount.Mount) error {
	out := spec.Mount{Type: dockermount.TypeBind, Destination: path.Join("/", m.Dest), ReadOnly: m.Readonly || slices.Contains(from.Options, "ro")}
	if from.Type == "tmpfs" {
		out.Type = dockermount.TypeTmpfs
		out.Options = append([]string{"exec"}, slices.DeleteFunc(slices.Clone(from.Options), func(o string) bool { return o == "ro" || o == "rw" })...)
		s.input.Mounts = append(s.input.Mounts, out)
		return nil
	}
	v, err := s.view(from)
	if err != nil {
		return err
	}
	if v == nil {
		return fmt.Errorf("its type %s is not understood", from.Type)
	}
	selector := path.Join("/", m.Selector)
	if plain := from.Type != "overlay" && (v.Upper == "" || v.Upper == from.Source) && len(v.Lower) == 1; plain {
		return s.addPlain(out, from.Source, selector)
	}
	v.IDMap = rootfs.IDMap{Base: s.input.Base, Size: s.input.Size}
	made, err := v.Mount(nil)
	if err != nil {
		return err
	}
	defer made.Close()
	at := filepath.Join(s.dir(), "mounts", strconv.Itoa(len(s.input.Mounts)))
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(int(made.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach it: %w", err)
	}
	s.onUndo(func(context.Context) error { return detachAll(filepath.Join(s.dir(), "mounts")) })
	f, err := openIn(made, selector)
	if err != nil {
		return err
	}
	out.Source, out.Unmapped = s.hold(f), true
	s.input.Mounts = append(s.input.Mounts, out)
	return nil
}

// addPlain shows a directory or file of the host: a cache, a secret, a socket.
func (s *step) addPlain(out spec.Mount, source, selector string) error {
	root, err := os.OpenFile(source, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if selector != "/" {
		defer root.Close()
		if root, err = openIn(root, selector); err != nil {
			return err
		}
	}
	out.Source = s.hold(root)
	s.input.Mounts = append(s.input.Mounts, out)
	return nil
}

// openIn finds a path inside a directory, whose root links do not leave.
func openIn(root *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path.Join(".", name), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// detachAll takes away what is mounted on the directories in dir.
func detachAll(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		if e := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); e != nil && !errors.Is(e, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("detach %s: %w", at, e))
		}
		err = errors.Join(err, os.Remove(at))
	}
	return err
}
