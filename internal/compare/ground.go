package compare

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/layer"
)

// The ground is looked into one name at a time, by descriptors: no link in it is followed.

// lookup is what a directory of the ground has under a name, nil for nothing.
func lookup(dir *os.File, name string) (*state, error) {
	if dir == nil {
		return nil, nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s in the layers that both images have: %w", name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return nil, nil // the whiteout of a layer that has nothing below it
	}
	s := &state{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, ground: true}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		s.kind = layer.Directory
	case unix.S_IFLNK:
		s.kind, s.mode = layer.Symlink, 0
		if s.target, err = readLink(dir, name); err != nil {
			return nil, err
		}
	case unix.S_IFCHR:
		s.kind = layer.CharDevice
	case unix.S_IFBLK:
		s.kind = layer.BlockDevice
	case unix.S_IFIFO:
		s.kind = layer.Fifo
	default:
		s.kind, s.size = layer.File, st.Size
	}
	if s.kind == layer.CharDevice || s.kind == layer.BlockDevice {
		s.device = uint64(unix.Major(st.Rdev))<<32 | uint64(unix.Minor(st.Rdev))
	}
	return s, nil
}

func readLink(dir *os.File, name string) (string, error) {
	b := make([]byte, 4096)
	n, err := unix.Readlinkat(int(dir.Fd()), name, b)
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", name, err)
	}
	return string(b[:n]), nil
}

// openDir opens a directory of the ground; nil where the name is none.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readNames lists a directory. It is opened anew, since a descriptor has one position.
func readNames(dir *os.File) ([]string, error) {
	again, err := openDir(dir, ".")
	if err != nil || again == nil {
		return nil, err
	}
	defer again.Close()
	return again.Readdirnames(-1)
}

// same says whether both images have the same under a name of a directory of the ground.
func (s *state) same(t *state, dir *os.File, name string) (bool, error) {
	if s == t {
		return true, nil
	}
	if s.kind != t.kind || s.mode != t.mode || s.uid != t.uid || s.gid != t.gid || s.size != t.size || s.target != t.target || s.device != t.device {
		return s.implicit && t.isDir() || t.implicit && s.isDir(), nil
	}
	if s.kind != layer.File || s.ground && t.ground {
		return true, nil
	}
	for _, of := range []*state{s, t} {
		if of.ground {
			if err := of.read(dir, name); err != nil {
				return false, err
			}
		}
	}
	return s.sum == t.sum, nil
}

// read finds the digest of a file of the ground.
func (s *state) read(dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s in the layers that both images have: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	h.Sum(s.sum[:0])
	s.ground = false
	return nil
}
