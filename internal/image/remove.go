package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// ambiguous refuses a name that reads like a digest.
func ambiguous(r ref.Reference) error {
	if r.FamiliarName() != "sha256" {
		return nil
	}
	return fmt.Errorf("refusing to create an ambiguous tag using digest algorithm as name: %q: choose another name: %w", r.Familiar(), errdefs.ErrInvalidArgument)
}

// Tag gives an image one more name.
func (s *Service) Tag(ctx context.Context, source, target string) error {
	r, err := ref.Parse(target)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fmt.Errorf("refusing to create a tag with a digest reference: %q: leave the @… out: %w", target, errdefs.ErrInvalidArgument)
	}
	if err := ambiguous(r); err != nil {
		return err
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
	if err := nameAgain(ctx, s.store, r.String(), img.Target, known...); err != nil {
		return err
	}
	tell(ctx, s, img.Target, happening{events.ActionTag, img.Target.Digest.String(), r.Familiar()})
	return nil
}

// nameAgain names an image that is known by another name still: else what it consists of may be collected.
func nameAgain(ctx context.Context, s *store, name string, target ocispec.Descriptor, known ...string) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	if _, err := s.entryOf(ctx, target.Digest); err != nil {
		return err
	}
	return s.nameLocked(ctx, name, target, known...)
}

// RemoveOptions of Remove.
type RemoveOptions struct {
	Force, NoPrune bool
	Running        func(container string) bool // nil: none that uses it is
	Platforms      []ocispec.Platform          // only these of an image of several; its name stays
}

// Remove takes a name away, and with the last name the image; by id it takes all names away. Its disk space is free when Remove returns.
// An image that containers use is not removed: with Force its names go, and it stays nameless until it is removed or pruned after them. By its id that
// is refused while one of them runs.
func (s *Service) Remove(ctx context.Context, name string, o RemoveOptions) ([]image.DeleteResponse, error) {
	ctx = in(ctx)
	r := &removal{s: s}
	defer r.end()
	err := r.named(ctx, name, o)
	if r.went {
		err = errors.Join(err, r.sweep(ctx))
	}
	return r.out, err
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
	if !slices.ContainsFunc(e.names, func(n string) bool { return !isFullID(n) && !slices.Contains(out, n) }) {
		return e.names // a kill in the middle of a tag leaves the record that the image had when it was nameless
	}
	return out
}

// namesBeside are those that go when an image stays under the names that it was asked for by. One tag stays in any case, the last in the order of the
// alphabet, and with a tag the references by digest of its repository.
func (e *entry) namesBeside(asked []string) (gone []string) {
	wanted, tags, stay := map[string]bool{}, []string{}, map[string]bool{}
	for _, name := range asked {
		if r, err := ref.Parse(name); err == nil && r.Tag != "" {
			r.Digest = ""
			wanted[r.String()] = true
		}
	}
	for _, n := range e.names {
		if r, err := ref.Parse(n); err == nil && !isFullID(n) && r.Digest == "" {
			tags = append(tags, n)
		}
	}
	if len(tags) == 0 {
		return nil
	}
	if !slices.ContainsFunc(tags, func(n string) bool { return wanted[n] }) {
		wanted[slices.Max(tags)] = true
	}
	for _, n := range tags {
		if r, err := ref.Parse(n); err == nil && wanted[n] {
			stay[r.Name()] = true
		}
	}
	for _, n := range e.names {
		r, err := ref.Parse(n)
		if err != nil || isFullID(n) || wanted[n] || r.Digest != "" && stay[r.Name()] {
			continue
		}
		gone = append(gone, n)
	}
	return gone
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

// Prune removes images that no name points at, or with dangling=false those that no container uses. The names of others stay.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (image.PruneReport, error) {
	return PruneNames(ctx, s, filters, nil)
}

// PruneNames is Prune which, with dangling=false, also takes from images that containers use the names that none of them was created by. asked says by
// which one a container was; "" where that is not known, and then nothing is taken.
func PruneNames(ctx context.Context, s *Service, filters map[string]map[string]bool, asked func(container string) string) (image.PruneReport, error) {
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
	before, err := s.taken(ctx)
	if err != nil {
		return report, err
	}
	r := &removal{s: s}
	defer r.end()
	for _, e := range list {
		if (dangling || e.artifact) && e.named() || !keep(e) {
			continue
		}
		gone := false
		if gone, err = r.unused(ctx, e, nil); err == nil && !gone && !dangling && asked != nil {
			err = r.otherNames(ctx, e, asked)
		}
		if err != nil {
			break
		}
	}
	_, left := s.dropLeases(ctx, 0)
	err = errors.Join(err, left, r.sweep(ctx))
	report.ImagesDeleted = r.out
	after, measured := s.taken(ctx)
	if measured == nil {
		report.SpaceReclaimed = uint64(max(0, before-after))
	}
	s.events.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, errors.Join(err, measured)
}
