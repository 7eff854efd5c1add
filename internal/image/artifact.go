package image

import (
	"cmp"
	"context"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// artifactType is what kind of artifact a manifest is, by the manifest's own words or, in the older manner, by its config's type.
func artifactType(m ocispec.Manifest) string { return cmp.Or(m.ArtifactType, m.Config.MediaType) }

// isArtifact says that a manifest is no container image.
func (s *blobs) isArtifact(ctx context.Context, d ocispec.Descriptor) bool {
	if !images.IsManifestType(d.MediaType) {
		return false
	}
	m, err := s.manifest(ctx, d)
	return err == nil && !images.IsConfigType(m.Config.MediaType)
}
