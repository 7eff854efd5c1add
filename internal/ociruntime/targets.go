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
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	for tries := 0; errors.Is(err, unix.EAGAIN) && tries < 100; tries++ { // somebody on the machine renamed or mounted while ".." was followed
		fd, err = unix.Openat2(int(dir.Fd()), name, &how)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// target opens the place inside dir where something is to be mounted, and makes it where it is missing: directories, and an empty file
// at the end where isDir is false. Links to what is missing are followed as the kernel would inside dir (many images have an
// /etc/resolv.conf that leads to /run). What is made belongs to the container's root.
func (l *layout) target(dir *os.File, name string, isDir bool) (*os.File, error) {
	if path.Clean("/"+name) == "/" { // of a mount, which may be a file
		return dup(dir)
	}
	for range maxLinks {
		f, next, err := l.targetStep(dir, path.Clean("/"+name), isDir)
		if err != nil || f != nil {
			return f, err
		}
		name = next
	}
	return nil, fmt.Errorf("open %s in the root file system: %w", name, unix.ELOOP)
}

// maxLinks is how many links to what is missing are followed.
const maxLinks = 40

// targetStep opens or makes a target, or says where a link in its place leads.
func (l *layout) targetStep(dir *os.File, name string, isDir bool) (f *os.File, next string, err error) {
	if f, err = openIn(dir, name, unix.O_PATH); err == nil || name == "/" {
		return f, "", err
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil, "", fmt.Errorf("open %s in the root file system: %w", name, err)
	}
	parent, err := l.target(dir, path.Dir(name), true)
	if err != nil {
		return nil, "", err
	}
	defer parent.Close()
	base := path.Base(name)
	err = l.makeTarget(parent, base, isDir)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, "", fmt.Errorf("make %s in the root file system: %w", name, err)
	}
	fd, err := unix.Openat2(descriptor(parent), base, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil, "", fmt.Errorf("open %s in the root file system: %w", name, err)
	}
	f = os.NewFile(uintptr(fd), name)
	link := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", link)
	if err != nil { // no link
		return f, "", nil
	}
	f.Close()
	next = string(link[:n])
	if !path.IsAbs(next) {
		next = path.Join(canonical(dir, path.Dir(name)), next)
	}
	return nil, next, nil
}

func (l *layout) makeTarget(parent *os.File, base string, isDir bool) error {
	make := func() error {
		if isDir {
			return unix.Mkdirat(descriptor(parent), base, 0o755)
		}
		return unix.Mknodat(descriptor(parent), base, unix.S_IFREG|0o644, 0)
	}
	err := make()
	if errors.Is(err, unix.EOVERFLOW) { // the host's root is nobody where ids are mapped
		return l.ns.ids.AsRoot(make)
	}
	if err != nil || l.ns.ids.Size == 0 {
		return err
	}
	return unix.Fchownat(descriptor(parent), base, l.ns.ids.Host(0), l.ns.ids.Host(0), unix.AT_SYMLINK_NOFOLLOW)
}

// canonical is name inside dir with all links followed, as far as it exists.
func canonical(dir *os.File, name string) string {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return clean
	}
	straight := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot | unix.RESOLVE_NO_SYMLINKS}
	if fd, err := unix.Openat2(descriptor(dir), clean[1:], &straight); err == nil { // no link is on the way, as nearly always
		unix.Close(fd)
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
