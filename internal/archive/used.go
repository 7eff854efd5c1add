package archive

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of stat's count of blocks, whatever the file system's own is (stat(2)).
const blockSize = 512

// SpaceOf is what a file takes of its file system: holes take nothing.
func SpaceOf(st *unix.Stat_t) int64 { return st.Blocks * blockSize }

// Used adds up the space that root and all below it take, as `du -x` does: a file with several names once, and what is mounted below not at
// all. Entries for which skip says so are left out with all below them; nil skips nothing.
func Used(ctx context.Context, root *os.File, skip func(*Entry) bool) (int64, error) {
	sizes, err := measure(ctx, root, skip, nil)
	return sizes.Used, err
}

// UsedBelow is Used of a directory by name; one that is not there takes nothing.
func UsedBelow(ctx context.Context, dir string, skip func(*Entry) bool) (int64, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return Used(ctx, f, skip)
}

// Space of a file system.
type Space struct {
	Bytes int64 // without what is reserved for root
	Free  int64
}

// Capacity is the space of the file system that a path is on, as df shows it.
func Capacity(path string) (Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	unit := int64(fs.Frsize)
	return Space{Bytes: int64(fs.Blocks-fs.Bfree+fs.Bavail) * unit, Free: int64(fs.Bavail) * unit}, nil
}
