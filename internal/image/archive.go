package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// Save writes an archive that is both OCI layout and docker-archive.
func (s *Service) Save(ctx context.Context, names []string, wanted []ocispec.Platform, w io.Writer) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	match := platforms.DefaultStrict()
	opts := []archive.ExportOpt{archive.WithSkipNonDistributableBlobs()}
	if len(wanted) > 0 {
		match = platforms.Ordered(wanted...)
	}
	opts = append(opts, archive.WithPlatform(match))
	for _, name := range names {
		img, err := s.find(ctx, name)
		if errdefs.IsNotFound(err) && isHello(name) {
			img, err = s.makeHello(ctx)
		}
		if err != nil {
			return err
		}
		target, err := s.manifestFor(ctx, img.Target, match)
		if err != nil {
			return fmt.Errorf("save %s: it is not here for this platform: %w", name, err)
		}
		if isID(name) && s.byIDOnly(ctx, name) {
			opts = append(opts, archive.WithManifest(target))
		} else {
			opts = append(opts, archive.WithManifest(target, img.Name))
		}
		s.o.Events.Publish(events.ImageEventType, events.ActionSave, img.Target.Digest.String(), map[string]string{"name": familiar(img.Name)})
	}
	if err := archive.Export(ctx, s.content, w, opts...); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// Load reads a docker-archive or an OCI layout, plain or compressed, and names and unpacks what is in it.
func (s *Service) Load(ctx context.Context, r io.Reader, o TransferOptions) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return fmt.Errorf("load: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer plain.Close()
	index, err := archive.ImportIndex(ctx, s.content, plain)
	if err != nil {
		return fmt.Errorf("load: the archive is neither of `docker save` nor an OCI layout: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var list ocispec.Index
	if err := s.readJSON(ctx, index, &list); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, d := range list.Manifests {
		if err := s.loadOne(ctx, d, o); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	if len(list.Manifests) == 0 {
		return fmt.Errorf("load: the archive holds no image: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func (s *Service) loadOne(ctx context.Context, d ocispec.Descriptor, o TransferOptions) error {
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return nil
	}
	if err := s.labelTree(ctx, d); err != nil {
		return err
	}
	list, err := s.manifests(ctx, d)
	if err != nil {
		return err
	}
	for _, m := range list {
		if !s.complete(ctx, m) {
			continue
		}
		if err := s.labelChildren(ctx, m); err != nil {
			return err
		}
		if platforms.DefaultStrict().Match(*m.Platform) {
			if _, err := s.unpack(ctx, m, nil); err != nil {
				return err
			}
		}
	}
	name := archivedName(d)
	if name == "" {
		if err := s.name(ctx, d.Digest.String(), d); err != nil {
			return err
		}
		o.say("", "Loaded image ID: %s\n", d.Digest)
		return nil
	}
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if err := s.name(ctx, r.String(), d); err != nil {
		return err
	}
	o.say("", "Loaded image: %s\n", r.Familiar())
	s.o.Events.Publish(events.ImageEventType, events.ActionLoad, d.Digest.String(), map[string]string{"name": r.Familiar()})
	return nil
}

// labelTree keeps an index's parts from being collected.
func (s *Service) labelTree(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := s.content.Info(ctx, d.Digest); err != nil {
		return nil // a platform that the archive leaves out
	}
	if !images.IsIndexType(d.MediaType) && !images.IsManifestType(d.MediaType) {
		return nil
	}
	if err := s.labelChildren(ctx, d); err != nil {
		return err
	}
	children, err := images.Children(ctx, s.content, d)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := s.labelTree(ctx, c); err != nil {
			return err
		}
	}
	return nil
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
