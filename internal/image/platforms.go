package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// childLabel begins the labels by which an index keeps its manifests from being collected.
const childLabel = "containerd.io/gc.ref.content."

// letGo makes an index keep some of its manifests, with what is attested of them, no longer: the next collection frees what nothing else
// needs. A later pull or load brings them back.
func (s *blobs) letGo(ctx context.Context, index ocispec.Descriptor, gone []ocispec.Descriptor) error {
	if len(gone) == 0 || !images.IsIndexType(index.MediaType) {
		return nil
	}
	drop := map[string]bool{}
	for _, d := range gone {
		drop[d.Digest.String()] = true
	}
	return s.walk(ctx, index, func(d ocispec.Descriptor) error {
		if !images.IsIndexType(d.MediaType) || !s.here(ctx, d) {
			return errBelow
		}
		children, err := s.index(ctx, d)
		if err != nil {
			return err
		}
		for _, c := range children {
			if attests(c) && drop[attested(c).String()] {
				drop[c.Digest.String()] = true
			}
		}
		return dropLabels(ctx, s, d.Digest, drop)
	})
}

func dropLabels(ctx context.Context, s *blobs, of digest.Digest, drop map[string]bool) error {
	info, err := s.content.Info(ctx, of)
	if err != nil {
		return err
	}
	var fields []string
	for key, value := range info.Labels {
		if strings.HasPrefix(key, childLabel) && drop[value] {
			fields = append(fields, "labels."+key)
			info.Labels[key] = ""
		}
	}
	if len(fields) == 0 {
		return nil
	}
	_, err = s.content.Update(ctx, content.Info{Digest: of, Labels: info.Labels}, fields...)
	return err
}

func matchesAny(wanted []ocispec.Platform, p ocispec.Platform) bool {
	for _, w := range wanted {
		if matcher(&w).Match(p) {
			return true
		}
	}
	return false
}

// present says whether a platform's layers are here, unpacked or not: of what was only listed, or looked at, there is just the manifest.
func present(ctx context.Context, s *Service, img *Image, name string) error {
	m, err := s.manifest(ctx, img.Manifest)
	if err != nil {
		return err
	}
	diffs := img.Config.RootFS.DiffIDs
	for i, l := range m.Layers {
		if s.here(ctx, l) {
			continue
		}
		if i < len(diffs) {
			if _, err := s.snaps.Stat(ctx, chainID(diffs[:i+1])); err == nil {
				continue
			}
		}
		return fmt.Errorf("image with reference %s was found but does not provide the specified platform: of %s only the manifest is here: pull it: %w",
			familiar(name), platforms.Format(img.Config.Platform), errdefs.ErrNotFound)
	}
	return nil
}
