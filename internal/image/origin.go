package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// labelOrigin notes of a manifest whose layers are not here in which repository it was found. containerd's own label leaves the port out.
const labelOrigin = "dev.wherry.origin"

// noteOrigin notes that a repository has a manifest and its parts.
func noteOrigin(ctx context.Context, s *store, r ref.Reference, d digest.Digest) error {
	if _, err := s.content.Update(ctx, content.Info{Digest: d, Labels: map[string]string{labelOrigin: r.Name()}}, "labels."+labelOrigin); err != nil {
		return fmt.Errorf("note where %s comes from: %w", d, err)
	}
	return nil
}

// origin is the repository that a manifest was found in.
func origin(ctx context.Context, s *store, d digest.Digest) (ref.Reference, bool) {
	info, err := s.content.Info(ctx, d)
	if err != nil || info.Labels[labelOrigin] == "" {
		return ref.Reference{}, false
	}
	r, err := ref.Parse(info.Labels[labelOrigin] + "@" + d.String())
	return r, err == nil
}

// listedOnly says that a manifest was fetched to be listed or looked at: its configuration may be here, and its layers are not meant to be.
func listedOnly(ctx context.Context, s *Service, d ocispec.Descriptor, children []ocispec.Descriptor) bool {
	if !images.IsManifestType(d.MediaType) {
		return false
	}
	if _, known := origin(ctx, s.store, d.Digest); known {
		return true
	}
	return len(children) > 1 && !slices.ContainsFunc(children[1:], func(l ocispec.Descriptor) bool { return s.here(ctx, l) })
}
