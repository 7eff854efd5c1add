// Package archive turns directory trees into tar streams and tar streams into directory trees, by descriptor.
//
// Both sides may be hostile: the tree is a container's, whose processes rename and link while it is read or written, and the stream is a
// stranger's. So no name is ever resolved from the host's root, but below a descriptor of the tree's root (openat2(2)); what is opened for
// reading is a regular file or a directory, known as such before it is opened; what is written is made new, never opened; nothing is
// executed, decompression included; ids are translated by the caller's map and user names are ignored. The package keeps no state; its
// types are for one goroutine each.
package archive

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IDs translate between ids inside a container and the host's.
type IDs interface {
	Host(id int) int
	Inside(id int) int
}

// inRoot is how paths are resolved: links stay inside of the root, those of /proc that jump are refused.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// tries bounds how often a resolution is begun anew that renames elsewhere in the system have made uncertain (EAGAIN, openat2(2)).
const tries = 64

// Open opens name below root as a process would whose root it is: links are followed, inside of root.
func Open(root *os.File, name string, flags int) (*os.File, error) {
	return open(root, name, flags, inRoot)
}

// OpenBelow opens name below root and follows no link at all.
func OpenBelow(root *os.File, name string, flags int) (*os.File, error) {
	return open(root, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

func open(root *os.File, name string, flags int, resolve uint64) (*os.File, error) {
	rel := path.Clean("/" + name)[1:]
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NONBLOCK | unix.O_NOCTTY // for what is not what it should be
	}
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(root.Fd()), rel, &how)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if again := errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN); !again || try == tries {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// reopen opens what a descriptor of type O_PATH stands for, whatever its name stands for by now.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(byDescriptor(f), flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// byDescriptor is a path of the host's that leads to what is open.
func byDescriptor(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// Entry is one of a tree's, as Walk finds it.
type Entry struct {
	Dir  *os.File // the directory that holds it
	Name string   // in Dir
	Path string   // below the root of the walk, without a leading slash
	Stat unix.Stat_t
}

// IsDir says that the entry was a directory when it was looked at.
func (e *Entry) IsDir() bool { return e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// WalkOptions of Walk; the zero value goes everywhere.
type WalkOptions struct {
	OneMount bool // what is mounted below is not entered
	NoPseudo bool // file systems below that hold no files of their own (proc, sysfs, tmpfs, …) are not entered
}

// Walk calls fn for each entry below root, parents first and by name, and enters the directories for which fn says so. It follows no link
// and has few files open, however deep the tree is; what vanishes meanwhile, and what no path can name any more, is left out.
func Walk(ctx context.Context, root *os.File, o WalkOptions, fn func(e *Entry) (enter bool, err error)) error {
	resolve := uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS)
	if o.OneMount {
		resolve |= unix.RESOLVE_NO_XDEV
	}
	top := unix.Stat_t{}
	if err := unix.Fstat(int(root.Fd()), &top); err != nil {
		return &os.PathError{Op: "stat", Path: root.Name(), Err: err}
	}
	w := walk{root: root, resolve: resolve, o: o, fn: fn}
	defer w.leave(0)
	todo := []place{{".", top.Dev}}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		more, err := w.directory(ctx, at)
		if err != nil {
			return err
		}
		slices.Reverse(more)
		todo = append(todo, more...)
	}
	return nil
}

type place struct {
	path string
	dev  uint64 // of the directory that holds it
}

type walk struct {
	root    *os.File
	resolve uint64
	o       WalkOptions
	fn      func(*Entry) (bool, error)
	way     []step // the last directories that were opened, each below the one before
}

type step struct {
	*os.File
	path string
}

const (
	maxWay  = 32           // directories that are open at a time
	maxPath = unix.PathMax // what is deeper cannot be named, by the container's own processes either
)

// enter opens a directory, from the nearest one on the way: a deep tree is not walked from its root each time.
func (w *walk) enter(at string) (*os.File, error) {
	n := len(w.way)
	for n > 0 && !strings.HasPrefix(at, w.way[n-1].path+"/") {
		n--
	}
	w.leave(n)
	from, rel := w.root, at
	if n > 0 {
		from = w.way[n-1].File
		rel = strings.TrimPrefix(at, w.way[n-1].path+"/")
	}
	f, err := open(from, rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, w.resolve)
	if err != nil {
		return nil, err
	}
	if len(w.way) == maxWay {
		_ = w.way[0].Close()
		w.way = w.way[1:]
	}
	w.way = append(w.way, step{f, at})
	return f, nil
}

// leave closes the directories from the n-th on.
func (w *walk) leave(n int) {
	for _, f := range w.way[n:] {
		_ = f.Close()
	}
	w.way = w.way[:n]
}

// directory tells about a directory's entries and returns the directories among them that are to be entered.
func (w *walk) directory(ctx context.Context, at place) ([]place, error) {
	dir, err := w.enter(at.path)
	if err != nil {
		return nil, unlessGone(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	if w.o.NoPseudo && st.Dev != at.dev && pseudo(dir) {
		return nil, nil
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, unlessGone(err)
	}
	slices.Sort(names)
	var todo []place
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := Entry{Dir: dir, Name: name, Path: path.Join(at.path, name)}
		if err := unix.Fstatat(int(dir.Fd()), name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err := unlessGone(err); err != nil {
				return nil, &os.PathError{Op: "stat", Path: e.Path, Err: err}
			}
			continue
		}
		enter, err := w.fn(&e)
		if err != nil {
			return nil, err
		}
		if enter && e.IsDir() && len(e.Path) < maxPath {
			todo = append(todo, place{e.Path, st.Dev})
		}
	}
	return todo, nil
}

// unlessGone forgives what happens to trees that others change: an entry is away, is a link now, lies on another mount or too deep.
func unlessGone(err error) error {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ENAMETOOLONG, unix.ESTALE} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// pseudo says that a directory's file system holds nothing that lasts.
func pseudo(dir *os.File) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &fs) != nil {
		return true
	}
	const mqueue, configfs, fusectl = 0x19800202, 0x62656570, 0x65735543
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
		unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC, unix.HUGETLBFS_MAGIC, mqueue, configfs, fusectl:
		return true
	}
	return false
}

// Size adds up the sizes in bytes of what is below root, a file with several names once.
func Size(ctx context.Context, root *os.File) (int64, error) {
	sizes, err := measure(ctx, root, nil, nil)
	return sizes.Length, err
}

type inode struct{ dev, ino uint64 }
