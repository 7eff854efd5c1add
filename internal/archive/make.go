package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sparse"
)

// makeNew makes anything but a directory; the name must be free.
func (x *reader) makeNew(ctx context.Context, t *target) error {
	switch t.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // old archives have TypeRegA
		return x.makeFile(ctx, t)
	case tar.TypeLink:
		return x.makeLink(t)
	case tar.TypeSymlink:
		if t.Linkname == "" {
			return fmt.Errorf("it is a link to nothing: %w", errdefs.ErrInvalidArgument)
		}
		if err := unix.Symlinkat(t.Linkname, int(t.dir.Fd()), t.base); err != nil {
			return err
		}
		return x.dressNode(t)
	case tar.TypeFifo:
		return x.makeNode(t, unix.S_IFIFO, 0)
	case tar.TypeChar, tar.TypeBlock:
		const majors, minors = 1 << 12, 1 << 20 // what the kernel's dev_t holds
		if t.Devmajor < 0 || t.Devmajor >= majors || t.Devminor < 0 || t.Devminor >= minors {
			return fmt.Errorf("device %d:%d is out of range: %w", t.Devmajor, t.Devminor, errdefs.ErrInvalidArgument)
		}
		kind := uint32(unix.S_IFCHR)
		if t.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		return x.makeNode(t, kind, int(unix.Mkdev(uint32(t.Devmajor), uint32(t.Devminor))))
	}
	return fmt.Errorf("its type %q is not one that can be unpacked: %w", t.Typeflag, errdefs.ErrInvalidArgument)
}

func (x *reader) makeFile(ctx context.Context, t *target) error {
	fd, err := unix.Openat(int(t.dir.Fd()), t.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), t.base)
	err = x.content(ctx, f, t.Size)
	if err == nil {
		err = x.dress(f, t)
	}
	if err == nil {
		err = setTime(fd, "", t.ModTime, unix.AT_EMPTY_PATH)
	}
	return errors.Join(err, x.release(f))
}

// content copies an entry's bytes; whole blocks of zeros become holes. A few bytes of an archive can stand for any number of zeros.
func (x *reader) content(ctx context.Context, f *os.File, size int64) error {
	var at int64
	hole := false
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(x.tar, x.buf)
		if n > 0 {
			var failed error
			hole, failed = sparse.Runs(x.buf[:n], func(from, to int) error {
				_, err := f.WriteAt(x.buf[from:to], at+int64(from))
				return err
			})
			if failed != nil {
				return failed
			}
			at += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && at == size:
			if hole {
				return f.Truncate(at)
			}
			return nil
		case err != nil:
			return badArchive(err)
		}
	}
}

// makeLink gives a second name to what the archive has put there before, or what was there.
func (x *reader) makeLink(t *target) error {
	from := path.Join(x.at, path.Clean("/"+t.Linkname))
	dir, err := Open(x.root, path.Dir(from), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", printable(t.Linkname), err)
	}
	defer dir.Close()
	if err := unix.Linkat(int(dir.Fd()), path.Base(from), int(t.dir.Fd()), t.base, 0); err != nil {
		return fmt.Errorf("hard link to %s: %w", printable(t.Linkname), err)
	}
	return nil
}

func (x *reader) makeNode(t *target, kind uint32, dev int) error {
	if err := unix.Mknodat(int(t.dir.Fd()), t.base, kind|0o600, dev); err != nil {
		return err
	}
	return x.dressNode(t)
}

// dress gives what was made its owner, attributes and mode; in this order, since a new owner takes set-id bits and capabilities away.
func (x *reader) dress(f *os.File, t *target) error {
	owner := x.owner(t.Uid, t.Gid)
	if err := unix.Fchown(int(f.Fd()), owner.UID, owner.GID); err != nil {
		return fmt.Errorf("own it: %w", err)
	}
	if err := writeAttributes(f, t.PAXRecords, x.o.IDs); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), uint32(t.Mode)&0o7777)
}

// dressNode does so for what cannot be opened: links, FIFOs and devices. It is what it was when it was made, or is left alone.
func (x *reader) dressNode(t *target) error {
	fd, err := unix.Openat(int(t.dir.Fd()), t.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), t.base)
	defer f.Close()
	owner := x.owner(t.Uid, t.Gid)
	if err := unix.Fchownat(fd, "", owner.UID, owner.GID, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("own it: %w", err)
	}
	if t.Typeflag != tar.TypeSymlink {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		if err := unix.Chmod(byDescriptor(f), uint32(t.Mode)&0o7777); err != nil {
			return err
		}
	}
	return setTime(fd, "", t.ModTime, unix.AT_EMPTY_PATH)
}

func setTime(fd int, name string, at time.Time, flags int) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	if at.Year() < 1900 || at.Year() > 2200 { // no Timespec of nanoseconds
		ts = unix.Timespec{}
	}
	if err := unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, flags); err != nil {
		return fmt.Errorf("set its time: %w", err)
	}
	return nil
}

// setTimes sets the times of directories, the last first: a parent comes before what is in it.
func (x *reader) setTimes() error {
	for i := len(x.times) - 1; i >= 0; i-- {
		d := x.times[i]
		f, err := open(x.root, d.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, inRoot)
		if err != nil {
			continue // replaced meanwhile
		}
		err = setTime(int(f.Fd()), "", d.time, unix.AT_EMPTY_PATH)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("unpack %s: %w", printable(d.name), err)
		}
	}
	return nil
}
