// Package room knows the errors of a file system that has none left.
package room

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Advice is what to do about it.
const Advice = "free space, or remove what is not needed (wherry system prune)"

// Lacks says that a file system was full, or somebody's part of it was.
func Lacks(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Explain adds to such an error what is full, and what to do: of a file system in memory, as the state directory's, no image takes any room.
func Explain(err error) error {
	if dir := folder(err); dir != "" {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			return fmt.Errorf("%w: the file system in memory at %s is full: look for what fills it (du -xa %[2]s | sort -n), or give it more (mount -o remount,size=…)", err, top(dir))
		}
	}
	return fmt.Errorf("%w: the disk is full: "+Advice, err)
}

// folder is the nearest one that is there to the file that an error is about, "" where it tells none.
func folder(err error) string {
	name := ""
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		name = path.Path
	case errors.As(err, &link):
		name = link.New
	}
	if !filepath.IsAbs(name) {
		return ""
	}
	for name = filepath.Dir(name); name != "/"; name = filepath.Dir(name) {
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			break
		}
	}
	return name
}

// top is the highest folder of a folder's file system.
func top(dir string) string {
	var here, above unix.Stat_t
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if unix.Stat(dir, &here) != nil || unix.Stat(up, &above) != nil || here.Dev != above.Dev {
			break
		}
	}
	return dir
}
