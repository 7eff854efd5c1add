package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// Save writes an archive that is both OCI layout and docker-archive. A repository without a tag means all of its tags.
func (s *Service) Save(ctx context.Context, names []string, wanted []ocispec.Platform, w io.Writer) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	match := platforms.DefaultStrict()
	if len(wanted) > 0 {
		match = platforms.Ordered(wanted...)
	}
	opts := []archive.ExportOpt{archive.WithSkipNonDistributableBlobs(), archive.WithPlatform(match)}
	if names, err = s.allTags(ctx, names); err != nil {
		return err
	}
	for _, name := range names {
		img, err := s.lookup(ctx, name)
		if err != nil {
			return err
		}
		target, err := s.manifestFor(ctx, img.Target, match)
		if err != nil && len(wanted) == 0 {
			target, err = s.onlyManifest(ctx, img.Target) // of another platform, but what there is
		}
		if err != nil {
			return fmt.Errorf("save %s: it is not here for this platform: %w", name, err)
		}
		if !s.complete(ctx, target) {
			return fmt.Errorf("save %s: not all of its content is here: pull it again: %w", name, errdefs.ErrNotFound)
		}
		target.Annotations = nil
		if isFullID(img.Name) || isID(name) && s.byIDOnly(ctx, name) {
			opts = append(opts, archive.WithManifest(target))
		} else {
			opts = append(opts, archive.WithManifest(target, img.Name))
		}
		s.events.Publish(events.ImageEventType, events.ActionSave, img.Target.Digest.String(), map[string]string{"name": familiar(img.Name)})
	}
	if err := archive.Export(ctx, s.content, w, opts...); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// allTags puts in the place of a repository all of its tags that are here.
func (s *store) allTags(ctx context.Context, names []string) ([]string, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []string
	for _, name := range names {
		r, err := ref.Parse(name)
		if err != nil || isID(name) || strings.ContainsAny(name[strings.LastIndexByte(name, '/')+1:], ":@") {
			out = append(out, name)
			continue
		}
		found := false
		for _, img := range list {
			if strings.HasPrefix(img.Name, r.Name()+":") {
				out, found = append(out, img.Name), true
			}
		}
		if !found {
			out = append(out, name)
		}
	}
	return out, nil
}

// onlyManifest is the one platform of an image that is here.
func (s *store) onlyManifest(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	list, err := s.manifests(ctx, target)
	if err == nil && len(list) != 1 {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return target, err
	}
	return list[0], nil
}

// Load reads a docker-archive or an OCI layout, plain or compressed, and names and unpacks what is in it.
func (s *Service) Load(ctx context.Context, r io.Reader, o TransferOptions) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	err = s.loadAll(ctx, r, o)
	done()
	if err != nil {
		// Nothing stays of an archive that was not taken whole.
		if cleaned := s.sweep(context.WithoutCancel(ctx)); cleaned != nil {
			err = errors.Join(err, cleaned)
		}
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

func (s *Service) loadAll(ctx context.Context, r io.Reader, o TransferOptions) error {
	plain, err := inflate(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	index, err := archive.ImportIndex(ctx, s.content, plain)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOSPC):
		return s.explainFull(err)
	case ctx.Err() != nil:
		return err
	default:
		return fmt.Errorf("the archive is neither of `docker save` nor an OCI layout, or not whole: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // the sender may still be writing the padding
		return err
	}
	if err := s.labelChildren(ctx, index); err != nil {
		return err
	}
	list, err := s.index(ctx, index)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("the archive holds no image: %w", errdefs.ErrInvalidArgument)
	}
	for _, d := range list {
		if err := s.loadOne(ctx, d, o); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) loadOne(ctx context.Context, d ocispec.Descriptor, o TransferOptions) error {
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) || d.Annotations["vnd.docker.reference.type"] != "" {
		return nil
	}
	name := archivedName(d)
	var r ref.Reference
	if name != "" {
		var err error
		if r, err = ref.Parse(name); err != nil {
			return err
		}
	}
	if err := s.labelTree(ctx, d); err != nil {
		return err
	}
	if err := s.unpackLoaded(ctx, d, o.Platform); err != nil {
		return err
	}
	if name == "" {
		if err := s.nameless(ctx, d); err != nil {
			return err
		}
		o.say("", "Loaded image ID: %s\n", d.Digest)
		return nil
	}
	if err := s.name(ctx, r.String(), d); err != nil {
		return err
	}
	o.say("", "Loaded image: %s\n", r.Familiar())
	s.events.Publish(events.ImageEventType, events.ActionLoad, d.Digest.String(), map[string]string{"name": r.Familiar()})
	return nil
}

// unpackLoaded unpacks this machine's platform, or the one asked for. At least one must be in the archive as a whole.
func (l *layers) unpackLoaded(ctx context.Context, d ocispec.Descriptor, platform *ocispec.Platform) error {
	list, err := l.st.manifests(ctx, d)
	if err != nil {
		return err
	}
	want := matcher(platform)
	whole, wanted := 0, 0
	for _, m := range list {
		if !l.st.complete(ctx, m) {
			continue
		}
		whole++
		if !want.Match(*m.Platform) {
			continue
		}
		wanted++
		if _, err := l.unpack(ctx, m, nil); err != nil {
			return err
		}
	}
	if whole == 0 {
		return fmt.Errorf("image %s is not whole: the archive lacks some of its layers: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	if platform != nil && wanted == 0 {
		return fmt.Errorf("image %s is not in the archive for %s: %w", d.Digest, platforms.Format(*platform), errNoPlatform)
	}
	return nil
}

// nameless keeps an image that the archive gives no name, unless it has one already.
func (s *store) nameless(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := s.entryOf(ctx, d.Digest); err == nil {
		return nil
	}
	return s.name(ctx, d.Digest.String(), d)
}

func archivedName(d ocispec.Descriptor) string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		if name := d.Annotations[key]; name != "" && (key == images.AnnotationImageName || !isTagOnly(name)) {
			return name
		}
	}
	return ""
}

// isTagOnly: an OCI layout's ref.name is often just a tag, which names no repository.
func isTagOnly(name string) bool {
	for _, c := range name {
		if c == '/' || c == ':' {
			return false
		}
	}
	return true
}
