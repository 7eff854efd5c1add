package archive

import (
	"context"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of a directory with all below it; a file with several names counts once, and what is mounted below not at all.
type Sizes struct {
	Length int64 // of all that is no directory, in bytes
	Used   int64 // of its file system, as `du -x` counts: holes take nothing
}

// Tree is a directory that is measured again and again. It remembers the names that it met the last time, and reads none anew where no
// directory has changed since: each name is looked at only. Sizes are those of this moment all the same. Large trees are walked each time. The zero
// value has met nothing. Safe for many goroutines.
type Tree struct {
	// Own is down to which depth directories are nobody else's: names in them are looked at by their path, as nobody puts a link there. 0: root alone.
	Own  int
	last atomic.Pointer[[]met] // parents first, the first is the directory itself; never changed
}

// met is one name.
type met struct {
	path    string
	counted bool // no other name of the same file was before, and nothing is mounted there
	file
}

// file tells a file from others, and a directory from what it was before a name in it came or went.
type file struct {
	dev, ino, links uint64
	kind            uint32
	times           [2]unix.Timespec // of a directory
}

func fileOf(st *unix.Stat_t) file {
	f := file{dev: uint64(st.Dev), ino: st.Ino, links: uint64(st.Nlink), kind: st.Mode & unix.S_IFMT}
	if f.kind == unix.S_IFDIR {
		f.times = [2]unix.Timespec{st.Ctim, st.Mtim}
	}
	return f
}

const (
	maxMet = 64 // names that are remembered
	// settled is how old the last change of a directory has to be when its names are read: one more within the same tick of the kernel's clock
	// would leave the times as they are.
	settled = 100 * time.Millisecond
)

// Measure adds up; a directory that is not there has nothing.
func (t *Tree) Measure(ctx context.Context, dir string) (Sizes, error) {
	if last := t.last.Load(); last != nil {
		if sizes, same := t.again(dir, *last); same {
			return sizes, nil
		}
	}
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if os.IsNotExist(err) {
		return Sizes{}, nil
	}
	if err != nil {
		return Sizes{}, err
	}
	defer f.Close()
	began := time.Now().Add(-settled)
	names, keep := []met{}, true
	sizes, err := measure(ctx, f, nil, func(at string, st *unix.Stat_t, counted bool) {
		keep = keep && len(names) < maxMet && (st.Mode&unix.S_IFMT != unix.S_IFDIR || time.Unix(st.Ctim.Unix()).Before(began) && time.Unix(st.Mtim.Unix()).Before(began))
		if keep {
			names = append(names, met{at, counted, fileOf(st)})
		}
	})
	if err != nil {
		return sizes, err
	}
	if t.last.Store(nil); keep {
		t.last.Store(&names)
	}
	return sizes, nil
}

// again adds up what the names of the last time take now; same says that they are all that there is.
func (t *Tree) again(dir string, last []met) (sizes Sizes, same bool) {
	root := unix.AT_FDCWD
	if len(last) > 1 {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return sizes, false
		}
		defer unix.Close(fd)
		root = fd
	}
	in := inside{root: root, fd: -1}
	defer in.leave()
	for i := range last {
		m := &last[i]
		var st unix.Stat_t
		var err error
		switch {
		case i > 0:
			err = in.stat(m.path, t.Own, &st)
		case root == unix.AT_FDCWD:
			err = unix.Lstat(dir, &st)
		default:
			err = unix.Fstat(root, &st)
		}
		if err != nil || m.file != fileOf(&st) {
			return sizes, false
		}
		if m.counted {
			sizes.add(&st)
		}
	}
	return sizes, true
}

func (s *Sizes) add(st *unix.Stat_t) {
	s.Used += SpaceOf(st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s.Length += st.Size
	}
}

// inside looks at names below a directory, and keeps the last one open that is not to be trusted on the way.
type inside struct {
	root, fd int
	at       string
}

func (in *inside) leave() {
	if in.fd >= 0 {
		_ = unix.Close(in.fd)
	}
	in.fd = -1
}

func (in *inside) stat(name string, own int, st *unix.Stat_t) error {
	if strings.Count(name, "/") <= own {
		return unix.Fstatat(in.root, name, st, unix.AT_SYMLINK_NOFOLLOW)
	}
	dir, base := path.Split(name)
	if in.fd < 0 || in.at != dir {
		in.leave()
		fd, err := unix.Openat2(in.root, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
		if err != nil {
			return err
		}
		in.fd, in.at = fd, dir
	}
	return unix.Fstatat(in.fd, base, st, unix.AT_SYMLINK_NOFOLLOW)
}

// measure walks. note, which may be nil, is told of each name that was met; what skip, which may be nil, says is left out with all below it.
func measure(ctx context.Context, root *os.File, skip func(*Entry) bool, note func(at string, st *unix.Stat_t, counted bool)) (sizes Sizes, err error) {
	var top unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &top); err != nil {
		return sizes, &os.PathError{Op: "stat", Path: root.Name(), Err: err}
	}
	if note == nil {
		note = func(string, *unix.Stat_t, bool) {}
	}
	sizes.add(&top)
	note("", &top, true)
	seen := map[inode]bool{}
	err = Walk(ctx, root, WalkOptions{OneMount: true}, func(e *Entry) (bool, error) {
		if e.Stat.Dev == top.Dev && skip != nil && skip(e) {
			return false, nil
		}
		counted := e.Stat.Dev == top.Dev
		if key := (inode{e.Stat.Dev, e.Stat.Ino}); counted && !e.IsDir() && e.Stat.Nlink > 1 {
			counted = !seen[key]
			seen[key] = true
		}
		if counted {
			sizes.add(&e.Stat)
		}
		note(e.Path, &e.Stat, counted)
		return counted, nil
	})
	return sizes, err
}
