package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inRoot is how every path inside a root file system is resolved: links stay inside, /proc's magic ones are refused.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

func openIn(dir *os.File, name string, flags uint64) (*os.File, error) {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		name = "."
	}
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// target opens the place inside dir where something is to be mounted, and makes it where it is missing: directories, and an empty file
// at the end where isDir is false. What is made belongs to the container's root.
func (l *layout) target(dir *os.File, name string, isDir bool) (*os.File, error) {
	f, err := openIn(dir, name, unix.O_PATH)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("open %s in the root file system: %w", name, err)
	}
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, err
	}
	parent, err := l.target(dir, path.Dir(clean), true)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	base := path.Base(clean)
	if isDir {
		err = unix.Mkdirat(int(parent.Fd()), base, 0o755)
	} else {
		err = unix.Mknodat(int(parent.Fd()), base, unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s in the root file system: %w", name, err)
	}
	if err == nil && l.ns.ids.Size > 0 {
		if err := unix.Fchownat(int(parent.Fd()), base, l.ns.ids.Host(0), l.ns.ids.Host(0), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("own %s in the root file system: %w", name, err)
		}
	}
	fd, err := unix.Openat2(int(parent.Fd()), base, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil, fmt.Errorf("open %s in the root file system: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		unix.Close(fd)
		return nil, fmt.Errorf("%s in the root file system is a link to nowhere: nothing can be mounted there", name)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// canonical is name inside dir with all links followed, as far as it exists.
func canonical(dir *os.File, name string) string {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return clean
	}
	f, err := openIn(dir, clean, unix.O_PATH)
	if err != nil {
		return path.Join(canonical(dir, path.Dir(clean)), path.Base(clean))
	}
	defer f.Close()
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil || !strings.HasPrefix(real, "/") {
		return clean
	}
	return real
}

// within says what of name lies below the mount point at.
func within(name, at string) (rest string, ok bool) {
	if at == "/" {
		return name, true
	}
	if name == at {
		return "/", true
	}
	return strings.CutPrefix(name, at+"/")
}

// descriptor is a file's number; unlike os.File.Fd it leaves a non-blocking file as it is.
func descriptor(f *os.File) (fd int) {
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(d uintptr) { fd = int(d) })
	}
	if err != nil {
		return -1 // closed: every use of it says so
	}
	return fd
}
