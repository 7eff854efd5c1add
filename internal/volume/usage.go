package volume

import (
	"context"

	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/archive"
)

// Usage is List with UsageData: how many containers refer to each volume, and how much space its folder takes. It reads all volumes' folders.
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
		v.UsageData = &volume.UsageData{RefCount: int64(refs), Size: -1}
		if e.Driver == "" { // else only the driver can know
			v.UsageData.Size = usage(ctx, s.dir(e.Name))
		}
		out = append(out, v)
	}
	return out, nil
}

// usage adds up the space of a volume's folder, definition included; -1 where it cannot be read. Containers may change the tree meanwhile: it
// is walked by descriptor, no link is followed, and what is mounted below counts nothing.
func usage(ctx context.Context, dir string) int64 {
	size, err := archive.UsedBelow(ctx, dir, nil)
	if err != nil {
		return -1
	}
	return size
}
