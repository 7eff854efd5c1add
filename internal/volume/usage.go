package volume

import (
	"context"
	"os"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// Usage is List with UsageData: how many containers refer to each volume, and how many bytes its files have. It reads all volumes' folders.
func (s *Service) Usage(ctx context.Context) ([]volume.Volume, error) {
	list, err := s.matching(nil, "")
	if err != nil {
		return nil, err
	}
	out := make([]volume.Volume, 0, len(list))
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		refs := len(e.refs)
		s.mu.Unlock()
		v := s.shown(e)
		v.UsageData = &volume.UsageData{RefCount: int64(refs), Size: usage(ctx, s.data(e.Name))}
		out = append(out, v)
	}
	return out, nil
}

// usage adds up the sizes of the files below dir, each once; -1 where dir cannot be read. Containers may change the tree meanwhile: it is
// walked by descriptor, no link is followed, and what is mounted below counts nothing.
func usage(ctx context.Context, dir string) int64 {
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1
	}
	defer root.Close()
	size, err := archive.Size(ctx, root)
	if err != nil {
		return -1
	}
	return size
}
