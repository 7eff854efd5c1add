package buildclient

import (
	"context"
	"io/fs"
	"os"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// modes is a context whose files have the modes that they would have with a umask of 022, whatever it was when they were written: the same
// sources give the same image. Nobody but the owner may write, as in a git checkout, which knows nothing of this; and where the Dockerfile itself
// cannot be read by others, the umask was a strict one, and all files are as readable for them as for their owner. A file that is private beside a
// Dockerfile that is not was made so by somebody, and stays so.
type modes struct {
	fsutil.FS
	strict fs.FileMode // of 0o044: who may not read the Dockerfile
}

// withModes takes the mode of the Dockerfile; one that came from the input has none, and says nothing.
func withModes(f fsutil.FS, dockerfile fs.FileMode) fsutil.FS {
	m := modes{FS: f}
	if dockerfile != 0 {
		m.strict = 0o044 &^ dockerfile
	}
	return m
}

// Walk gives entries with these modes.
func (m modes) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return m.FS.Walk(ctx, target, func(path string, e fs.DirEntry, err error) error {
		if e != nil {
			e = moded{e, m}
		}
		return fn(path, e, err)
	})
}

type moded struct {
	fs.DirEntry
	m modes
}

func (e moded) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*fstypes.Stat)
	if ok && os.FileMode(st.Mode)&os.ModeSymlink == 0 {
		st.Mode = uint32(e.m.usual(fs.FileMode(st.Mode)))
	}
	return info, nil
}

// usual is a mode as a umask of 022 leaves it. A directory where all may write and each may remove his own only is no umask's work.
func (m modes) usual(mode fs.FileMode) fs.FileMode {
	if mode&fs.ModeSticky != 0 {
		return mode
	}
	mode &^= 0o022
	if m.strict&0o040 != 0 {
		mode |= mode >> 3 & 0o050
	}
	if m.strict&0o004 != 0 {
		mode |= mode >> 6 & 0o005
	}
	return mode
}
