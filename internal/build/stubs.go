package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/container"
)

// sweepStubs notes which places of mounts the root file system lacks, and takes them out of its writable layer when the step is over: a
// layer has what the step has written, not what it was shown.
func (s *step) sweepStubs(layers []string) {
	if s.root.Upper == "" {
		return
	}
	var missing []string
	for _, m := range s.spec.Mounts {
		for at := path.Clean(m.Destination); at != "/" && at != "."; at = path.Dir(at) {
			if container.Exists(layers, at) {
				break
			}
			if !slices.Contains(missing, at) {
				missing = append(missing, at)
			}
			if !s.process.Meta.RemoveMountStubsRecursive && !strings.HasPrefix(at, "/etc/") {
				break
			}
		}
	}
	// The deepest first.
	slices.SortFunc(missing, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	upper, lower, begun := s.root.Upper, s.root.Lower, time.Now().Add(-datedBack)
	s.onUndo(func(context.Context) error {
		var errs []error
		for _, at := range missing {
			errs = append(errs, removeStub(upper, at))
		}
		for _, at := range missing {
			for dir := path.Dir(at); dir != "/"; dir = path.Dir(dir) {
				errs = append(errs, removeCopy(place{upper, lower, dir}, begun))
			}
		}
		return errors.Join(errs...)
	})
}

// datedBack is how long before a step a directory's date is at least that the step itself has set.
const datedBack = time.Minute

// place is a directory in a layer, and what that lies on.
type place struct {
	layer string
	lower []string
	name  string
}

// removeCopy removes a directory that is in a layer only because there was the place of a mount in it: an empty one that is as it is below,
// and that the step, which has begun then, has not dated back.
func removeCopy(p place, begun time.Time) error {
	layer, lower, name := p.layer, p.lower, p.name
	above, err := openBeneath(layer, path.Dir(name))
	if err != nil {
		return nil //nolint:nilerr // it is not in this layer
	}
	defer above.Close()
	base := path.Base(name)
	var here, was, times unix.Stat_t
	if unix.Fstatat(int(above.Fd()), base, &here, unix.AT_SYMLINK_NOFOLLOW) != nil || here.Mode&unix.S_IFMT != unix.S_IFDIR || unix.Fstat(int(above.Fd()), &times) != nil {
		return nil
	}
	below, err := container.OpenBelow(lower, name)
	if err != nil {
		return nil //nolint:nilerr // the step has made it
	}
	defer below.Close()
	if unix.Fstat(int(below.Fd()), &was) != nil || was.Mode != here.Mode || was.Uid != here.Uid || was.Gid != here.Gid || hides(above, base) {
		return nil
	}
	if here.Mtim != was.Mtim && time.Unix(here.Mtim.Unix()).Before(begun) {
		return nil
	}
	if err := unix.Unlinkat(int(above.Fd()), base, unix.AT_REMOVEDIR); err != nil {
		return nil //nolint:nilerr // there is something in it
	}
	return unix.UtimesNanoAt(int(above.Fd()), ".", []unix.Timespec{times.Atim, times.Mtim}, 0)
}

// hides says that a directory hides what is below it.
func hides(in *os.File, name string) bool {
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", in.Fd(), name), "trusted.overlay.opaque", nil)
	return err == nil && n > 0
}

// openBeneath opens a directory of a layer, through no link.
func openBeneath(layer, name string) (*os.File, error) {
	root, err := os.OpenFile(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path.Join(".", name), &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// removeStub removes an empty file or directory of a layer, and gives the directory above its times back.
func removeStub(layer, name string) error {
	dir, err := openBeneath(layer, path.Dir(name))
	if err != nil {
		return nil //nolint:nilerr // it is not in this layer, or the step has put something else there
	}
	defer dir.Close()
	fd := int(dir.Fd())
	var st, above unix.Stat_t
	base := path.Base(name)
	if unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || unix.Fstat(fd, &above) != nil {
		return nil
	}
	flags := 0
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0:
		return nil
	}
	if err := unix.Unlinkat(fd, base, flags); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("remove the place of a mount, %s: %w", name, err)
	}
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{above.Atim, above.Mtim}, 0)
}
