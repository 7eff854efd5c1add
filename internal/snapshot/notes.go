package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// stripNotes takes away what an overlay has noted for itself in the directory that it wrote to: a layer says what is in it and what it hides.
// lower are the layers below.
func stripNotes(ctx context.Context, dir string, lower []string) error {
	var n notes
	defer n.close()
	if err := n.openAll(append([]string{dir}, lower...)); err != nil {
		return err
	}
	if err := n.strip(n.open[0], ".", "."); err != nil {
		return err
	}
	return archive.Walk(ctx, n.open[0], archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		return e.IsDir(), n.strip(e.Dir, e.Name, e.Path)
	})
}

// notes are the layer and those below it.
type notes struct{ open []*os.File }

func (n *notes) openAll(paths []string) error {
	for _, path := range paths {
		f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		n.open = append(n.open, f)
	}
	return nil
}

// has says that a file of the layers, which are those below alone here, looks like this one. What it contains is not looked at.
func (n *notes) has(path string, st *unix.Stat_t) bool {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for _, f := range n.open {
		fd, err := unix.Openat2(int(f.Fd()), path, &how)
		if err != nil {
			continue
		}
		var was unix.Stat_t
		err = unix.Fstat(fd, &was)
		_ = unix.Close(fd)
		return err == nil && was.Mode == st.Mode && was.Uid == st.Uid && was.Gid == st.Gid && was.Size == st.Size && was.Rdev == st.Rdev && was.Mtim == st.Mtim
	}
	return false
}

func (n *notes) close() {
	for _, f := range n.open {
		f.Close()
	}
}

func (n *notes) strip(dir *os.File, name, path string) error {
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	list, err := xattrNames(at)
	if err != nil {
		return err
	}
	for _, x := range list {
		if !strings.HasPrefix(x, "trusted.overlay.") || x == "trusted.overlay.opaque" && n.hides(path) {
			continue
		}
		if err := unix.Lremovexattr(at, x); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %s: %w", x, err)
		}
	}
	return nil
}

// hides says that there is something below a path. Overlay marks each new directory, in case there is.
func (n *notes) hides(path string) bool {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for _, f := range n.open[1:] {
		fd, err := unix.Openat2(int(f.Fd()), path, &how)
		if err == nil {
			_ = unix.Close(fd)
		}
		if err != unix.ENOENT && err != unix.ENOTDIR {
			return true
		}
	}
	return false
}
