package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Mountable finds a local image or artifact whose files are to be mounted into a container: the host's platform, or the only one that is
// here, since files need not run.
func Mountable(ctx context.Context, s *Service, name string) (*Image, error) {
	if found, err := s.find(in(ctx), name); err == nil && s.isArtifact(in(ctx), found.Target) {
		dir, err := artifactDir(in(ctx), s.store, found.Target)
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", familiar(found.Name), err)
		}
		return &Image{ID: found.Target.Digest, Ref: refOf(found, name), Manifest: found.Target, Lower: []string{dir}}, nil
	}
	img, err := s.Resolve(ctx, name, nil)
	if err == nil && len(img.Lower) == 0 {
		return nil, fmt.Errorf("image %s has no layers: there is nothing to mount: %w", name, errdefs.ErrInvalidArgument)
	}
	if !errdefs.IsNotFound(err) {
		return img, err
	}
	found, findErr := s.lookup(in(ctx), name)
	if findErr != nil {
		return nil, err
	}
	list, listErr := s.manifests(in(ctx), found.Target)
	if listErr != nil || len(list) != 1 {
		return nil, err
	}
	return s.Resolve(ctx, name, list[0].Platform)
}
