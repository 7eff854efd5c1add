package volume

import (
	"context"
	"os"
	"path"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
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

type inode struct{ dev, ino uint64 }

// usage adds up the sizes of the files below dir, each once; -1 where dir cannot be read. Containers may change the tree meanwhile: it is
// walked by descriptor, no link is followed, and what is mounted below counts nothing.
func usage(ctx context.Context, dir string) int64 {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(root)
	var size int64
	seen := map[inode]bool{}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	for todo := []string{"."}; len(todo) > 0 && ctx.Err() == nil; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		fd, err := unix.Openat2(root, at, &how)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), at)
		names, _ := f.Readdirnames(-1)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				todo = append(todo, path.Join(at, name))
				continue
			}
			key := inode{st.Dev, st.Ino}
			if st.Nlink > 1 && seen[key] {
				continue
			}
			seen[key] = st.Nlink > 1
			size += st.Size
		}
		f.Close()
	}
	return size
}
