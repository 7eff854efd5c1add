// Package files reads and writes a container's file system from outside: copy in and out, export, changes, commit.
//
// It owns nothing but a note of how large layers are. All methods are safe for many goroutines. A container's root is had as a descriptor:
// a running one's as its processes see it, volumes included; a stopped one's mounted in a mount namespace that ends with the call, however
// the call ends. Below it package archive resolves every name; writable layers are read where they lie.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/rootfs"
)

// Containers is what this package asks of the containers.
type Containers interface {
	View(ctx context.Context, id string) (containers.View, error)
	Pause(ctx context.Context, id string, o containers.PauseOptions) error
	Unpause(ctx context.Context, id string) error
}

// Volumes has the files of a volume be there for as long as somebody needs them, though no container runs that has it.
type Volumes interface {
	Borrow(ctx context.Context, name string) (giveBack func(), err error)
}

// Images makes an image of a container's changes, and says where layers are that a container stands on: they are mounted when they are needed.
type Images interface {
	Mounted(lower []string) ([]string, error)
	Commit(ctx context.Context, layer io.Reader, o image.CommitOptions) (digest.Digest, error)
}

// Service works on running and stopped containers. Nothing inside a container's root is ever resolved by string on the host.
type Service struct {
	containers Containers
	images     Images
	volumes    Volumes
	events     *event.Bus

	mu     sync.Mutex // guards what follows
	layers map[string]int64
}

// New returns a service.
func New(c Containers, i Images, v Volumes, ev *event.Bus) *Service {
	return &Service{containers: c, images: i, volumes: v, events: ev, layers: map[string]int64{}}
}

// view is a container's, with its layers in their places, and its pidfd closed at the end.
func (s *Service) view(ctx context.Context, id string) (containers.View, func(), error) {
	v, err := s.containers.View(ctx, id)
	if err != nil {
		return v, nil, err
	}
	done := func() {
		if v.Init != nil {
			_ = v.Init.Close()
		}
	}
	if err := s.mount(&v); err != nil && !v.Running { // what runs has them mounted by itself
		return v, nil, fmt.Errorf("find the layers of container %s: %w", v.Name, err)
	}
	return v, done, nil
}

// still is view for who mounts what a container that does not run has: nobody else does so, and it is not started, until done is called.
func (s *Service) still(ctx context.Context, id string) (containers.View, func(), error) {
	v, done, err := s.view(ctx, id)
	if err != nil || v.Running {
		return v, done, err
	}
	free, err := v.Layer.Hold(ctx)
	if err != nil {
		return v, nil, fmt.Errorf("wait for who copies files of container %s: %w", v.Name, err)
	}
	if v, done, err = s.view(ctx, id); err != nil || v.Running { // it may have been started meanwhile
		free()
		return v, done, err
	}
	return v, free, nil
}

// mount notes where the layers of a container's images are.
func (s *Service) mount(v *containers.View) error {
	lower, err := s.images.Mounted(v.Rootfs.Lower)
	if err != nil {
		return err
	}
	v.Rootfs.Lower = lower
	v.Binds = slices.Clone(v.Binds)
	for i := range v.Binds {
		m := &v.Binds[i]
		if m.Image == nil {
			continue
		}
		img := *m.Image
		if img.Lower, err = s.images.Mounted(img.Lower); err != nil {
			return fmt.Errorf("image %s: %w", m.Name, err)
		}
		m.Image = &img
	}
	return nil
}

// open gives a container's root to who writes there; it is to be closed.
func (s *Service) open(ctx context.Context, id string) (containers.View, *root, error) {
	v, r, done, err := s.enter(ctx, id, s.whole)
	if err != nil {
		return v, nil, err
	}
	r.done = done
	return v, r, nil
}

// A container whose process has just ended is looked at again after endedPause, until endedLimit has passed: it is one that does not run then.
const (
	endedPause = 10 * time.Millisecond
	endedLimit = 3 * time.Second
)

// enter is still, and the container's root as open gives it.
func (s *Service) enter(ctx context.Context, id string, open func(context.Context, *containers.View) (*root, error)) (v containers.View, r *root, done func(), err error) {
	for limit := time.Now().Add(endedLimit); ; {
		if v, done, err = s.still(ctx, id); err != nil {
			return v, nil, nil, err
		}
		if r, err = open(ctx, &v); err == nil {
			return v, r, done, nil
		}
		done()
		if !errors.Is(err, errEnded) || time.Now().After(limit) {
			return v, nil, nil, err
		}
		select {
		case <-time.After(endedPause):
		case <-ctx.Done():
			return v, nil, nil, context.Cause(ctx)
		}
	}
}

// whole opens a container's root with what is mounted in it. One that is being removed meanwhile has lost some of that.
func (s *Service) whole(ctx context.Context, v *containers.View) (*root, error) {
	v.Kept.Forget()
	giveBack := func() {}
	if !v.Running {
		var err error
		if giveBack, err = s.borrow(ctx, v); err != nil {
			return nil, err
		}
	}
	r, err := openRoot(v)
	if errors.Is(err, unix.ENOENT) && !v.Running {
		if _, done, gone := s.view(ctx, v.ID); gone != nil {
			giveBack()
			return nil, gone
		} else {
			done()
		}
	}
	if err != nil {
		giveBack()
		return nil, fmt.Errorf("open the file system of container %s: %w", v.Name, err)
	}
	r.giveBack = giveBack
	return r, nil
}

// borrow has the volumes of a container that does not run be there.
func (s *Service) borrow(ctx context.Context, v *containers.View) (giveBack func(), err error) {
	var all []func()
	giveBack = func() {
		for _, f := range all {
			f()
		}
	}
	for _, m := range v.Binds {
		if m.Name == "" || m.Type != mount.TypeVolume {
			continue
		}
		one, err := s.volumes.Borrow(ctx, m.Name)
		if err != nil {
			giveBack()
			return nil, fmt.Errorf("open the volumes of container %s: %w", v.Name, err)
		}
		all = append(all, one)
	}
	return giveBack, nil
}

// find opens a container's root and looks for a path in it; both are to be closed. What a tmpfs covers is found, too, where the tmpfs does not have
// the path: clients put files into containers that do not run yet.
func (s *Service) find(ctx context.Context, id, name string) (v containers.View, r *root, p *place, err error) {
	v, r, done, err := s.enter(ctx, id, s.whole)
	if err != nil {
		return v, nil, nil, err
	}
	defer done()
	if p, err = r.lookup(name); err == nil {
		return v, r, p, nil
	}
	r.Close()
	if errors.Is(err, unix.ENOENT) && v.Running && covered(&v, name) {
		if bare, e := openBare(&v); e == nil {
			if p, e = bare.lookup(name); e == nil {
				return v, bare, p, nil
			}
			bare.Close()
		}
	}
	return v, nil, nil, notFound(&v, name, err)
}

// covered says that a tmpfs of the container's configuration is above a path.
func covered(v *containers.View, name string) bool {
	name = path.Join("/", name)
	return slices.ContainsFunc(v.Mounts, func(m container.MountPoint) bool {
		return m.Type == mount.TypeTmpfs && strings.HasPrefix(name, m.Destination+"/")
	})
}

// Stat describes a path inside (GET/HEAD /containers/{id}/archive). Links to the path are followed, the path itself is not.
func (s *Service) Stat(ctx context.Context, id, name string) (container.PathStat, error) {
	_, r, p, err := s.find(ctx, id, name)
	if err != nil {
		return container.PathStat{}, err
	}
	defer r.Close()
	defer p.Close()
	return p.stat(r)
}

// notFound is what is said about a path that cannot be reached.
func notFound(v *containers.View, name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOTDIR) && strings.HasSuffix(name, "/"): // there, but no directory
		return fmt.Errorf("%s in container %s: %w: %w", name, v.Name, err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("Could not find the file %s in container %s: %w", name, v.ID, errdefs.ErrNotFound) //nolint:staticcheck // Docker's words, which clients look for
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s in container %s is behind a link that leads nowhere: %w: %w", name, v.Name, err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.ENAMETOOLONG):
		return fmt.Errorf("%s in container %s: %w: %w", name, v.Name, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("find %s in container %s: %w", name, v.Name, err)
}

// Get returns path as a tar whose ids are those seen inside. The caller closes it.
func (s *Service) Get(ctx context.Context, id, name string) (io.ReadCloser, container.PathStat, error) {
	v, r, p, err := s.find(ctx, id, name)
	if err != nil {
		return nil, container.PathStat{}, err
	}
	st, err := p.stat(r)
	if err != nil {
		p.Close()
		r.Close()
		return nil, container.PathStat{}, err
	}
	out := archive.Stream(ctx, func(ctx context.Context, w io.Writer) error {
		return p.archive(ctx, archive.NewWriter(w, v.Rootfs.IDMap))
	}, func() {
		p.Close()
		r.Close()
	})
	v.Publish(s.events, events.ActionArchivePath, map[string]string{"path": name})
	return out, st, nil
}

// PutOptions as Docker's noOverwriteDirNonDir and copyUIDGID.
type PutOptions struct{ NoOverwriteDirNonDir, CopyUIDGID bool }

// Put unpacks a tar (also compressed) in the directory path.
func (s *Service) Put(ctx context.Context, id, name string, r io.Reader, o PutOptions) error {
	v, root, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer v.Kept.Forget()
	defer root.Close()
	at := path.Clean("/" + name)
	dir, err := archive.Open(root.dir, at, unix.O_PATH)
	if err != nil {
		return notFound(&v, name, err)
	}
	defer dir.Close()
	if err := root.writable(&v, dir, name); err != nil {
		return err
	}
	options := archive.ReadOptions{IDs: v.Rootfs.IDMap, KeepKind: o.NoOverwriteDirNonDir, Sync: true}
	if o.CopyUIDGID && v.Config.User != "" {
		uid, gid, err := containers.FindUser(v.Config.User, func(name string) (*os.File, error) {
			at, err := archive.Open(root.dir, name, unix.O_PATH)
			if err != nil {
				return nil, err
			}
			defer at.Close()
			return rootfs.Reopen(at)
		})
		if err != nil {
			return err
		}
		options.Owner = &archive.Owner{UID: int(uid), GID: int(gid)}
	}
	plain, err := archive.Decompress(r)
	if err != nil {
		return fmt.Errorf("copy to %s in container %s: %w", name, v.Name, err)
	}
	defer plain.Close()
	err = asRoot(v.Rootfs.IDMap, func() error { return archive.Read(ctx, plain, root.dir, at, options) })
	if err != nil {
		if _, looked, gone := s.view(ctx, v.ID); gone == nil {
			looked()
		} else if errors.Is(err, unix.ENOENT) { // it has been removed meanwhile
			return gone
		}
		if errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
		}
		return fmt.Errorf("copy to %s in container %s: %w", name, v.Name, err)
	}
	v.Publish(s.events, events.ActionExtractToDir, map[string]string{"path": name})
	return nil
}

// Export writes the container's root file system as a tar, without what is mounted in it.
func (s *Service) Export(ctx context.Context, id string, w io.Writer) error {
	v, r, done, err := s.enter(ctx, id, func(_ context.Context, v *containers.View) (*root, error) { return openBare(v) })
	if err != nil {
		return fmt.Errorf("open the file system of container %s: %w", id, err)
	}
	done() // a start may mount it once more: who only reads does not notice
	defer r.Close()
	out := archive.NewWriter(w, v.Rootfs.IDMap)
	if err := out.Tree(ctx, r.dir, "", archive.WalkOptions{OneMount: true}); err != nil {
		return fmt.Errorf("export container %s: %w", v.Name, err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("export container %s: %w", v.Name, err)
	}
	v.Publish(s.events, events.ActionExport, nil)
	return nil
}

// absolute is a path as it is meant inside, with what its end says about its being a directory.
func absolute(name string) (clean string, directory bool) {
	clean = path.Clean("/" + name)
	return clean, clean == "/" || strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") || name == "."
}
