package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
)

// mountUser is the name under which a container claims an image that it mounts.
func mountUser(r *Record, m *spec.Mount) string { return r.ID + "@" + m.Destination }

// resolveImage finds the image or artifact that is to be mounted, and keeps it from being removed.
func (n *creating) resolveImage(ctx context.Context, m *spec.Mount) error {
	name, as := m.Name, ""
	if m.Image != nil { // another container's
		name, as = m.Image.ID.String(), m.Image.Ref
	}
	user := mountUser(n.r, m)
	for range 2 {
		img, err := image.Mountable(ctx, n.s.o.Images, name)
		if err != nil {
			return err
		}
		if img.Ref == "" {
			img.Ref = as
		}
		if err := image.Permit(ctx, n.s.o.Images, img); err != nil {
			return err
		}
		if err := n.s.o.Images.Acquire(ctx, img.ID, img.Manifest.Digest, user); err != nil {
			return err
		}
		pinned := m.Image
		m.Image = &spec.MountedImage{ID: img.ID, Manifest: img.Manifest.Digest, Type: img.Manifest.MediaType, Ref: img.Ref, Lower: img.Lower}
		if pinned != nil && pinned.ID == img.ID {
			return nil
		}
		name, as = img.ID.String(), img.Ref // once more: only now nobody can take its layers away
	}
	return nil
}

// imagesDir is where images are attached while a start clones what it mounts of them: a path, since kernels before 6.15 clone no part of a
// mount that is nowhere.
func (o *Options) imagesDir(id string) string { return filepath.Join(o.State, "images", id) }

// showImage attaches an image with the container's ids, and opens what is to be seen of it.
func (n *starting) showImage(m *spec.Mount) error {
	lower, err := n.s.o.Images.Mounted(m.Image.Lower)
	if err != nil {
		return fail(errdefs.ErrFailedPrecondition, "a layer of image %s, which is to be mounted, is not there any more (%v): create the container anew", m.Name, err)
	}
	view := rootfs.Rootfs{Lower: lower, IDMap: n.r.IDMap}
	made, err := view.Mount(nil)
	if err != nil {
		return fmt.Errorf("image %s: %w", m.Name, err)
	}
	defer made.Close()
	at := filepath.Join(n.s.o.imagesDir(n.r.ID), strconv.Itoa(len(n.held)))
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("make the place of image %s: %w", m.Name, err)
	}
	if err := unix.MoveMount(int(made.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach image %s: %w", m.Name, err)
	}
	f, err := openBeneath(made, m.Subpath)
	if err != nil {
		return invalid("cannot access path %s of image %s: %v", m.Subpath, m.Name, err)
	}
	m.Source, m.Unmapped = n.hold(f), true
	return nil
}

// hideImages takes them away again: the container has clones of its own.
func (n *starting) hideImages() error {
	for _, m := range n.r.Mounts {
		if m.Image != nil {
			return detachImages(n.s.o.imagesDir(n.r.ID))
		}
	}
	return nil
}

// detachImages takes away what starts have attached below a directory.
func detachImages(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		if e := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); e != nil && !errors.Is(e, unix.EINVAL) { // EINVAL: nothing is mounted there
			err = errors.Join(err, fmt.Errorf("detach %s: %w", at, e))
		}
		err = errors.Join(err, os.Remove(at))
	}
	return errors.Join(err, os.Remove(dir))
}

// detachOldImages does so for what starts have attached that an engine was killed in, secrets too.
func (o *Options) detachOldImages() error {
	left, err := filepath.Glob(o.imagesDir("*"))
	secrets, wrong := filepath.Glob(o.secretsDir("*"))
	err = errors.Join(err, wrong)
	for _, dir := range append(left, secrets...) {
		err = errors.Join(err, detachImages(dir))
	}
	return err
}
