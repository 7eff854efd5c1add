package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxDepth is how many indexes and manifests may lie below each other.
	maxDepth = 5

	// maxManifests is how many parts may lie below one name. An index may name the same ones again and again, at each depth.
	maxManifests = 10_000
)

func isManifest(d ocispec.Descriptor) bool {
	return images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType)
}

// children are what a manifest or index names directly, nil for other content.
func (s *blobs) children(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !isManifest(d) {
		return nil, nil
	}
	doc, err := s.document(ctx, d)
	if err != nil {
		return nil, err
	}
	if doc.Config == nil {
		return doc.Manifests, nil
	}
	return append([]ocispec.Descriptor{*doc.Config}, doc.Layers...), nil
}

// errBelow keeps walk from looking at what is below a descriptor.
var errBelow = errors.New("leave out what is below")

// walk calls fn for a descriptor and all that is below it, each once, parents first. What fn returns ends it, save errBelow.
func (s *blobs) walk(ctx context.Context, d ocispec.Descriptor, fn func(ocispec.Descriptor) error) error {
	return s.walkBelow(ctx, d, map[digest.Digest]bool{}, fn, 0)
}

func (s *blobs) walkBelow(ctx context.Context, d ocispec.Descriptor, seen map[digest.Digest]bool, fn func(ocispec.Descriptor) error, depth int) error {
	if seen[d.Digest] {
		return nil
	}
	seen[d.Digest] = true
	if depth > maxDepth || len(seen) > maxManifests {
		return fmt.Errorf("%s: indexes are nested more than %d deep, or name more than %d parts: %w", d.Digest, maxDepth, maxManifests, errdefs.ErrInvalidArgument)
	}
	if err := fn(d); err != nil {
		if errors.Is(err, errBelow) {
			return nil
		}
		return err
	}
	if !isManifest(d) {
		return nil
	}
	children, err := s.children(ctx, d)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := s.walkBelow(ctx, c, seen, fn, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (s *blobs) here(ctx context.Context, d ocispec.Descriptor) bool {
	_, err := s.content.Info(ctx, d.Digest)
	return err == nil
}

// complete says whether all content below a descriptor is here, or can be fetched again (dropped).
func (s *blobs) complete(ctx context.Context, d ocispec.Descriptor) bool {
	return s.walk(ctx, d, func(d ocispec.Descriptor) error {
		if !s.here(ctx, d) && !images.IsNonDistributable(d.MediaType) && !s.dropped.has(d.Digest) {
			return errdefs.ErrNotFound
		}
		return nil
	}) == nil
}

// labelTree makes each manifest and index below a descriptor that is here keep its parts from being collected.
func (s *blobs) labelTree(ctx context.Context, d ocispec.Descriptor) error {
	return s.walk(ctx, d, func(d ocispec.Descriptor) error {
		if !isManifest(d) {
			return nil
		}
		if !s.here(ctx, d) {
			return errBelow // a platform that is left out
		}
		if _, err := s.document(ctx, d); err != nil {
			return err
		}
		return s.labelChildren(ctx, d)
	})
}

// attests says that an entry of an index tells of another entry, and is no platform's image.
func attests(d ocispec.Descriptor) bool { return d.Annotations["vnd.docker.reference.type"] != "" }

// of is the entry that an attestation is about.
func attested(d ocispec.Descriptor) digest.Digest {
	return digest.Digest(d.Annotations["vnd.docker.reference.digest"])
}
