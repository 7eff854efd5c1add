package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// Tag gives an image one more name.
func (s *Service) Tag(ctx context.Context, source, target string) error {
	r, err := ref.Parse(target)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fmt.Errorf("refusing to create a tag with a digest reference: %q: leave the @… out: %w", target, errdefs.ErrInvalidArgument)
	}
	ctx = in(ctx)
	img, err := s.lookup(ctx, source)
	if err != nil {
		return err
	}
	var known []string
	if from, err := ref.Parse(img.Name); err == nil && from.Name() == r.Name() && img.Labels[labelPulled] != "" {
		known = []string{labelPulled} // what was pulled by its digest and gets its tag now
	}
	if err := s.name(ctx, r.String(), img.Target, known...); err != nil {
		return err
	}
	s.events.Publish(events.ImageEventType, events.ActionTag, img.Target.Digest.String(), map[string]string{"name": r.Familiar()})
	return nil
}

// RemoveOptions of Remove.
type RemoveOptions struct {
	Force, NoPrune bool
	Platforms      []ocispec.Platform // only these of an image of several; its name stays
}

// Remove takes a name away, and with the last name the image; by id it takes all names away. Its disk space is free when Remove returns.
// An image that containers use is not removed: with Force its names go, and it stays nameless until it is removed or pruned after them.
func (s *Service) Remove(ctx context.Context, name string, o RemoveOptions) ([]image.DeleteResponse, error) {
	ctx = in(ctx)
	img, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(o.Platforms) > 0 {
		return removePlatforms(ctx, s, img, o.Platforms)
	}
	e, err := s.entryOf(ctx, img.Target.Digest)
	if err != nil {
		return nil, err
	}
	user := s.userOf(img.Target.Digest)
	if !isID(name) || !s.byIDOnly(ctx, name) {
		names := e.goingWith(img.Name)
		if user != "" && len(names) == len(e.names) && !o.Force {
			return nil, fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %.12s is using its referenced image %.12s: %w",
				familiar(img.Name), user, img.Target.Digest.Encoded(), errdefs.ErrConflict)
		}
		return s.removeNames(ctx, e, names)
	}
	if e.severalNames() && !o.Force {
		return nil, fmt.Errorf("conflict: unable to delete %.12s (must be forced) - image is referenced in multiple repositories: %w", img.Target.Digest.Encoded(), errdefs.ErrConflict)
	}
	if user != "" && !(o.Force && e.named()) {
		return nil, fmt.Errorf("conflict: unable to delete %.12s - image is being used by container %.12s: remove the container first: %w",
			img.Target.Digest.Encoded(), user, errdefs.ErrConflict)
	}
	return s.removeNames(ctx, e, e.names)
}

// named says that an image has a name of people's making, be it one with a digest.
func (e *entry) named() bool {
	_, digests := e.tagsAndDigests()
	return len(digests) > 0
}

// goingWith are the names that go when one is taken away: references by digest of the same repository do not stay behind the last tag.
func (e *entry) goingWith(name string) []string {
	taken, err := ref.Parse(name)
	if err != nil || isFullID(name) {
		return []string{name}
	}
	out := []string{name}
	for _, n := range e.names {
		r, err := ref.Parse(n)
		switch {
		case n == name || isFullID(n) || err != nil:
		case r.Name() == taken.Name() && r.Digest != "":
			out = append(out, n)
		case r.Name() == taken.Name():
			return []string{name} // another tag stays
		}
	}
	return out
}

// severalNames says that an image has more than one tag, or names in more than one repository.
func (e *entry) severalNames() bool {
	tags := 0
	repositories := map[string]bool{}
	for _, n := range e.names {
		if r, err := ref.Parse(n); err == nil && !isFullID(n) {
			repositories[r.Name()] = true
			if r.Digest == "" {
				tags++
			}
		}
	}
	return tags > 1 || len(repositories) > 1
}

// byIDOnly says that a name which looks like an id is not also a tag.
func (s *store) byIDOnly(ctx context.Context, name string) bool {
	r, err := ref.Parse(name)
	if err != nil || isFullID(name) {
		return true
	}
	_, err = s.images.Get(ctx, r.String())
	return err != nil
}

func (s *Service) removeNames(ctx context.Context, e *entry, names []string) ([]image.DeleteResponse, error) {
	id := e.target.Digest
	last := len(names) == len(e.names)
	if last {
		done, free := s.beginRemoval(id)
		if free {
			defer done()
		} else {
			// Containers still use it: it stays, nameless, until they are gone.
			last = false
			if _, err := s.images.Create(ctx, images.Image{Name: id.String(), Target: e.target}); err != nil && !errdefs.IsAlreadyExists(err) {
				return nil, fmt.Errorf("keep image %s: %w", id, err)
			}
		}
	}
	var out []image.DeleteResponse
	for _, n := range names {
		if !last && n == id.String() {
			continue
		}
		if err := s.images.Delete(ctx, n); err != nil && !errdefs.IsNotFound(err) {
			return out, fmt.Errorf("remove image %s: %w", n, err)
		}
		if !isFullID(n) {
			out = append(out, image.DeleteResponse{Untagged: familiar(n)})
			s.events.Publish(events.ImageEventType, events.ActionUnTag, id.String(), map[string]string{"name": familiar(n)})
		}
	}
	if !last {
		return out, nil
	}
	if err := s.pins.change(false, append(names, id.String())...); err != nil {
		return out, err
	}
	if err := s.sweep(ctx); err != nil {
		return out, err
	}
	s.events.Publish(events.ImageEventType, events.ActionDelete, id.String(), map[string]string{"name": id.String()})
	return append(out, image.DeleteResponse{Deleted: id.String()}), nil
}

// Prune removes images that no name points at, or with dangling=false those that no container uses.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (image.PruneReport, error) {
	ctx = in(ctx)
	var report image.PruneReport
	dangling := true
	rest := map[string]map[string]bool{}
	for k, v := range filters {
		switch k {
		case "dangling":
			var err error
			if dangling, err = truth(k, v); err != nil {
				return report, err
			}
		case "label", "label!", "until":
			rest[k] = v
		default:
			return report, fmt.Errorf("invalid filter '%s': image prune has dangling, label, label!, until: %w", k, errdefs.ErrInvalidArgument)
		}
	}
	keep, err := s.filter(ctx, rest)
	if err != nil {
		return report, err
	}
	list, err := s.entries(ctx)
	if err != nil {
		return report, err
	}
	before := s.taken(ctx)
	for _, e := range list {
		if (dangling || e.artifact) && e.named() || s.pins.hold(e) || s.userOf(e.target.Digest) != "" || !keep(e) {
			continue
		}
		deleted, err := s.removeNames(ctx, e, e.names)
		report.ImagesDeleted = append(report.ImagesDeleted, deleted...)
		if err != nil {
			return report, err
		}
	}
	if err := errors.Join(s.dropLeases(ctx, 0), s.sweep(ctx)); err != nil {
		return report, err
	}
	report.SpaceReclaimed = uint64(max(0, before-s.taken(ctx)))
	return report, nil
}
