package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// removal is images that go together: first their names, each image's while nobody can change names or begin to use it, and then at once what
// is nobody's any more.
type removal struct {
	s    *Service
	out  []image.DeleteResponse
	gone []digest.Digest
	went bool     // there is something to collect
	ends []func() // of claims that may come again when it has been collected
}

// named takes away what Remove is asked for.
func (r *removal) named(ctx context.Context, name string, o RemoveOptions) error {
	r.s.naming.Lock()
	defer r.s.naming.Unlock()
	img, err := r.s.find(ctx, name)
	if err != nil {
		return err
	}
	if len(o.Platforms) > 0 {
		return r.platforms(ctx, img, o.Platforms)
	}
	e, err := r.s.entryOf(ctx, img.Target.Digest)
	if err != nil {
		return err
	}
	names, byID := e.names, isID(name) && r.s.byIDOnly(ctx, name)
	if !byID {
		names = e.goingWith(img.Name)
	}
	if byID {
		if err := r.refuseRunning(img.Target.Digest, o); err != nil {
			return err
		}
	}
	if byID && e.severalNames() && !o.Force {
		return fmt.Errorf("conflict: unable to delete %.12s (must be forced) - image is referenced in multiple repositories: %w", img.Target.Digest.Encoded(), errdefs.ErrConflict)
	}
	user := ""
	if len(names) == len(e.names) {
		var done func()
		done, user = r.s.beginRemoval(use{id: img.Target.Digest})
		defer done()
	}
	switch {
	case user == "":
	case !byID && !o.Force:
		return fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %.12s is using its referenced image %.12s: %w",
			familiar(img.Name), user, img.Target.Digest.Encoded(), errdefs.ErrConflict)
	case byID:
		if err := r.refuseUsed(img.Target.Digest, o, e.named()); err != nil {
			return err
		}
	}
	return r.take(ctx, e, names, user != "")
}

// refuseRunning says that an image does not go by its id while a container of it runs.
func (r *removal) refuseRunning(id digest.Digest, o RemoveOptions) error {
	for _, user := range r.s.users(func(u use) bool { return u.id == id }) {
		if o.Running != nil && o.Running(user) {
			return fmt.Errorf("conflict: unable to delete %.12s (cannot be forced) - image is being used by running container %.12s: remove the container first: %w", id.Encoded(), user, errdefs.ErrConflict)
		}
	}
	return nil
}

// refuseUsed says why an image that containers use does not go by its id.
func (r *removal) refuseUsed(id digest.Digest, o RemoveOptions, named bool) error {
	users := r.s.users(func(u use) bool { return u.id == id })
	if o.Force && named || len(users) == 0 {
		return nil
	}
	return fmt.Errorf("conflict: unable to delete %.12s (must be forced) - image is being used by stopped container %.12s: remove the container first: %w", id.Encoded(), users[0], errdefs.ErrConflict)
}

// unused takes an image away that is still what it was: no container uses it, nobody has pinned it or changed its names, and may, which can be
// nil, says nothing against it.
func (r *removal) unused(ctx context.Context, was *entry, may func(is *entry) bool) (gone bool, err error) {
	r.s.naming.Lock()
	defer r.s.naming.Unlock()
	is, err := r.s.entryOf(ctx, was.target.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !slices.Equal(is.names, was.names) || r.s.pins.hold(is) || may != nil && !may(is) {
		return false, nil
	}
	done, user := r.s.beginRemoval(use{id: is.target.Digest})
	defer done()
	if user != "" {
		return false, nil
	}
	err = r.take(ctx, is, is.names, false)
	return slices.Contains(r.gone, is.target.Digest), err
}

// otherNames takes away what an image that is still what it was is called beside the names by which its containers were created.
func (r *removal) otherNames(ctx context.Context, was *entry, asked func(container string) string) error {
	r.s.naming.Lock()
	defer r.s.naming.Unlock()
	is, err := r.s.entryOf(ctx, was.target.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil || !slices.Equal(is.names, was.names) || r.s.pins.hold(is) {
		return err
	}
	users, mounted := r.s.claims.usersAndMounts(is.target.Digest)
	if len(users) == 0 || mounted {
		return nil
	}
	var by []string
	for _, user := range users {
		name := asked(user)
		if name == "" {
			return nil
		}
		by = append(by, name)
	}
	if gone := is.namesBeside(by); len(gone) > 0 {
		return r.take(ctx, is, gone, true)
	}
	return nil
}

// take takes names of an image away, and with the last one its pins. An image that containers use stays nameless, until they are gone. The
// caller holds naming.
func (r *removal) take(ctx context.Context, e *entry, names []string, used bool) error {
	id := e.target.Digest
	last := len(names) == len(e.names)
	if last && used {
		if _, err := r.s.images.Create(ctx, images.Image{Name: id.String(), Target: e.target}); err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("keep image %s: %w", id, err)
		}
		last = false
	}
	for _, n := range names {
		if !last && n == id.String() {
			continue
		}
		if err := r.s.images.Delete(ctx, n); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", n, err)
		}
		if !isFullID(n) {
			r.out = append(r.out, image.DeleteResponse{Untagged: familiar(n)})
			r.s.events.Publish(events.ImageEventType, events.ActionUnTag, id.String(), map[string]string{"name": familiar(n)})
		}
	}
	if !last {
		return nil
	}
	r.out, r.gone, r.went = append(r.out, image.DeleteResponse{Deleted: id.String()}), append(r.gone, id), true
	return r.s.pins.change(false, append(slices.Clone(names), id.String())...)
}

// platforms frees what some platforms of an image have; the last one's going is the image's own. The caller holds naming.
func (r *removal) platforms(ctx context.Context, img images.Image, wanted []ocispec.Platform) error {
	list, err := r.s.manifests(ctx, img.Target)
	if err != nil {
		return err
	}
	var gone []ocispec.Descriptor
	for _, d := range list {
		if !matchesAny(wanted, *d.Platform) {
			continue
		}
		done, user := r.s.beginRemoval(use{img.Target.Digest, d.Digest})
		r.ends = append(r.ends, done)
		if user != "" {
			return fmt.Errorf("conflict: unable to delete %s of %s - container %.12s is using it: remove the container first: %w",
				platforms.Format(*d.Platform), familiar(img.Name), user, errdefs.ErrConflict)
		}
		gone = append(gone, d)
	}
	if len(gone) == 0 {
		return r.s.wrongPlatform(ctx, img, wanted[0])
	}
	if len(gone) == len(list) {
		e, err := r.s.entryOf(ctx, img.Target.Digest)
		if err != nil {
			return err
		}
		done, user := r.s.beginRemoval(use{id: img.Target.Digest})
		defer done()
		return r.take(ctx, e, e.names, user != "")
	}
	r.went = true
	if err := r.s.letGo(ctx, img.Target, gone); err != nil {
		return fmt.Errorf("remove platforms of %s: %w", familiar(img.Name), err)
	}
	for _, d := range gone {
		r.out = append(r.out, image.DeleteResponse{Deleted: d.Digest.String()})
	}
	return nil
}

// sweep frees what is nobody's any more. Who asked may be gone by now.
func (r *removal) sweep(ctx context.Context) error {
	if err := r.s.sweep(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for _, id := range r.gone {
		r.s.events.Publish(events.ImageEventType, events.ActionDelete, id.String(), map[string]string{"name": id.String()})
	}
	return nil
}

// end lets platforms be used again.
func (r *removal) end() {
	for _, end := range r.ends {
		end()
	}
}
