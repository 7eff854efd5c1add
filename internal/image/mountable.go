package image

import (
	"context"

	"github.com/containerd/errdefs"
)

// Mountable finds a local image or artifact whose files are to be mounted into a container: the host's platform, or the only one that is
// here, since files need not run.
func Mountable(ctx context.Context, s *Service, name string) (*Image, error) {
	img, err := s.Resolve(ctx, name, nil)
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
