package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// copyUp fills a fresh volume's directory with what the image has at a place, with ids as inside. The copy is made beside the volume and
// moved in when it is whole: an engine that is killed leaves no half file.
func copyUp(r *Record, destination, dir string) error {
	from, err := openImageDir(r.Image.Lower, destination)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // there is nothing to copy
	}
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	beside, remove, err := makeBeside(dir)
	if err != nil {
		return err
	}
	defer remove()
	t := treeCopy{root: beside, links: map[[2]uint64]string{}}
	if err := t.directory(from, beside, ""); err != nil {
		return err
	}
	if err := moveInto(beside, to); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := likeOriginal(from, to, &st); err != nil {
		return err
	}
	if r.HostConfig.AutoRemove {
		return nil
	}
	return unix.Syncfs(int(to.Fd()))
}

// nobodys is an id that no container has: the kernel shows its files as nobody's there.
const nobodys = 1<<31 - 2

// makeBeside makes a directory for the copy, on the volume's own mount: nothing moves from one mount to another.
func makeBeside(dir string) (beside *os.File, remove func(), err error) {
	apart, err := onMountOfItsOwn(dir)
	if err != nil {
		return nil, nil, err
	}
	scratch := filepath.Dir(dir)
	if apart {
		scratch = dir
	}
	made, err := os.MkdirTemp(scratch, ".copy-")
	if err != nil {
		return nil, nil, err
	}
	// What a volume mounts other containers may have too: the name can be a link by now, and nobody may change what is in the directory.
	beside, err = os.OpenFile(made, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil && apart {
		if err = beside.Chown(nobodys, nobodys); errors.Is(err, unix.EPERM) { // of a server that takes nobody for root
			err = nil
		}
	}
	if err != nil {
		if beside != nil {
			beside.Close()
		}
		return nil, nil, errors.Join(err, rootfs.RemoveTree(made))
	}
	return beside, func() {
		_ = beside.Close()
		_ = rootfs.RemoveTree(made)
	}, nil
}

// onMountOfItsOwn says that something is mounted on dir: its volume's options say so.
func onMountOfItsOwn(dir string) (bool, error) {
	var here, above unix.Statx_t
	for path, st := range map[string]*unix.Statx_t{dir: &here, filepath.Dir(dir): &above} {
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, st); err != nil {
			return false, &os.PathError{Op: "statx", Path: path, Err: err}
		}
	}
	return here.Mnt_id != above.Mnt_id, nil
}

// openImageDir opens a directory of the image, its ids as in the layers.
func openImageDir(layers []string, name string) (*os.File, error) {
	f, err := openInLayers(layers, name) // also decides cheaply that there is nothing
	if errors.Is(err, rootfs.ErrSpecial) {
		return nil, unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	f.Close()
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, unix.ENOTDIR
	}
	view := rootfs.Rootfs{Lower: layers}
	root, err := view.Mount(nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// moveInto moves all entries of one directory to another; what is there already stays.
func moveInto(from, to *os.File) error {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("move %s into the volume: %w", name, err)
		}
	}
	return nil
}

// treeCopy copies a tree by descriptors: no name inside it is ever resolved from the host's root.
type treeCopy struct {
	root  *os.File             // where the copy is made; nobody else writes there
	links map[[2]uint64]string // by device and inode: where the first name of a file with several lies below root
}

// directory copies what is in a directory.
func (t *treeCopy) directory(from, to *os.File, place string) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.entry(from, to, filepath.Join(place, name)); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeCopy) entry(from, to *os.File, place string) error {
	name := filepath.Base(place)
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("copy %s: %w", place, err)
	}
	var err error
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		err = t.subdirectory(from, to, place, &st)
	case unix.S_IFREG:
		err = t.file(from, to, place, &st)
	case unix.S_IFLNK:
		err = copyLink(from, to, name, &st)
	case unix.S_IFSOCK:
		return nil // nobody listens on a copy
	default:
		if err = unix.Mknodat(int(to.Fd()), name, kind|0o600, int(st.Rdev)); err == nil {
			err = ownNode(to, name, &st)
		}
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", place, err)
	}
	return nil
}

func (t *treeCopy) subdirectory(from, to *os.File, place string, st *unix.Stat_t) error {
	name := filepath.Base(place)
	a, err := openAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	b, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := t.directory(a, b, place); err != nil {
		return err
	}
	return likeOriginal(a, b, st)
}

func (t *treeCopy) file(from, to *os.File, place string, st *unix.Stat_t) error {
	name := filepath.Base(place)
	if st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := t.links[key]; ok {
			return unix.Linkat(int(t.root.Fd()), first, int(to.Fd()), name, 0)
		}
		t.links[key] = place
	}
	a, err := openAt(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer a.Close()
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	b := os.NewFile(uintptr(fd), name)
	defer b.Close()
	if _, err := io.Copy(b, a); err != nil {
		return err
	}
	return likeOriginal(a, b, st)
}

func copyLink(from, to *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(from.Fd()), name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), int(to.Fd()), name); err != nil {
		return err
	}
	return unix.Fchownat(int(to.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

func ownNode(to *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(int(to.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchmodat(int(to.Fd()), name, st.Mode&0o7777, 0)
}

// likeOriginal gives a copy the owner, mode, attributes and times of its original. The owner comes first: a change of it takes
// capabilities and set-id bits away.
func likeOriginal(from, to *os.File, st *unix.Stat_t) error {
	fd := int(to.Fd())
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyAttributes(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

// copyAttributes copies extended attributes, but for overlay's own.
func copyAttributes(from, to *os.File) error {
	n, err := unix.Flistxattr(int(from.Fd()), nil)
	if err != nil || n == 0 {
		return ignoreUnsupported(err)
	}
	list := make([]byte, n)
	if n, err = unix.Flistxattr(int(from.Fd()), list); err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err := ignoreUnsupported(err); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}
