package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

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
	img, err := s.find(ctx, source)
	if errdefs.IsNotFound(err) && isHello(source) {
		img, err = s.makeHello(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.name(ctx, r.String(), img.Target); err != nil {
		return err
	}
	s.o.Events.Publish(events.ImageEventType, events.ActionTag, img.Target.Digest.String(), map[string]string{"name": r.Familiar()})
	return nil
}

// RemoveOptions of Remove.
type RemoveOptions struct{ Force, NoPrune bool }

// Remove takes a name away, and with the last name the image; by id it takes all names away. Its disk space is free when Remove returns.
func (s *Service) Remove(ctx context.Context, name string, o RemoveOptions) ([]image.DeleteResponse, error) {
	ctx = in(ctx)
	img, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	e, err := s.entryOf(ctx, img.Target.Digest)
	if err != nil {
		return nil, err
	}
	names := []string{img.Name}
	if isID(name) && s.byIDOnly(ctx, name) {
		names = e.names
		if len(names) > 1 && !o.Force {
			return nil, fmt.Errorf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories: %w", name, errdefs.ErrConflict)
		}
	}
	if user := s.userOf(img.Target.Digest); user != "" && len(names) == len(e.names) && !o.Force {
		return nil, fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %.12s is using its referenced image %.12s: %w",
			name, user, img.Target.Digest.Encoded(), errdefs.ErrConflict)
	}
	return s.removeNames(ctx, e, names)
}

// byIDOnly says that a name which looks like an id is not also a tag.
func (s *Service) byIDOnly(ctx context.Context, name string) bool {
	r, err := ref.Parse(name)
	if err != nil || isFullID(name) {
		return true
	}
	_, err = s.images.Get(ctx, r.String())
	return err != nil
}

func (s *Service) removeNames(ctx context.Context, e *entry, names []string) ([]image.DeleteResponse, error) {
	var out []image.DeleteResponse
	for _, n := range names {
		if len(names) == len(e.names) && s.userOf(e.target.Digest) != "" {
			// Containers still use it: it stays, nameless, until they are gone.
			if err := s.name(ctx, e.target.Digest.String(), e.target); err != nil {
				return out, err
			}
		}
		if err := s.images.Delete(ctx, n); err != nil && !errdefs.IsNotFound(err) {
			return out, fmt.Errorf("remove image %s: %w", n, err)
		}
		out = append(out, image.DeleteResponse{Untagged: familiar(n)})
		s.o.Events.Publish(events.ImageEventType, events.ActionUnTag, e.target.Digest.String(), map[string]string{"name": familiar(n)})
	}
	if len(names) < len(e.names) || s.userOf(e.target.Digest) != "" {
		return out, nil
	}
	s.forget(e.target.Digest)
	if err := s.collect(ctx); err != nil {
		return out, err
	}
	s.o.Events.Publish(events.ImageEventType, events.ActionDelete, e.target.Digest.String(), map[string]string{"name": e.target.Digest.String()})
	return append(out, image.DeleteResponse{Deleted: e.target.Digest.String()}), nil
}

// forget drops what is remembered of images whose layers may now be collected.
func (s *Service) forget(target digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.resolved {
		if k.target == target {
			delete(s.resolved, k)
		}
	}
	clear(s.lowers)
}

// Prune removes images that no name points at, or with dangling=false those that no container uses.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (image.PruneReport, error) {
	ctx = in(ctx)
	var report image.PruneReport
	all := filters["dangling"]["false"] || filters["dangling"]["0"]
	rest := map[string]map[string]bool{}
	for k, v := range filters {
		if k != "dangling" {
			rest[k] = v
		}
	}
	list, err := s.entries(ctx)
	if err != nil {
		return report, err
	}
	keep, err := s.filter(ctx, list, rest)
	if err != nil {
		return report, err
	}
	before, _ := s.DiskUsage(ctx)
	for _, e := range list {
		tags, _ := e.tagsAndDigests()
		if len(tags) > 0 && !all || s.userOf(e.target.Digest) != "" || !keep(e) {
			continue
		}
		deleted, err := s.removeNames(ctx, e, e.names)
		report.ImagesDeleted = append(report.ImagesDeleted, deleted...)
		if err != nil {
			return report, err
		}
	}
	if err := s.collect(ctx); err != nil {
		return report, err
	}
	after, _ := s.DiskUsage(ctx)
	report.SpaceReclaimed = uint64(max(0, before.TotalSize-after.TotalSize))
	return report, nil
}

// isHello says whether a name means the built-in image.
func isHello(name string) bool {
	return strings.TrimSuffix(name, ":latest") == "hello" || name == helloName
}

const helloName = "docker.io/library/hello:latest"

// helloIsOld says that the built-in image was made from another oar.
func (s *Service) helloIsOld(ctx context.Context, img images.Image) bool {
	loaded, err := s.load(ctx, img, nil)
	if err != nil {
		return false
	}
	made := loaded.Config.Config.Labels[labelOar]
	if made == "" {
		return false // somebody's own
	}
	now, err := s.oarStamp()
	return err == nil && now != made
}
