package layer

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sparse"
)

const permissions = 0o777

func (d *Dir) addDirectory(at *directory, name string, e *Entry) error {
	path := join(at.path, name)
	delete(d.implicit, path)
	if in := d.dirs.get(path); in != nil {
		return d.setDirectory(in, e)
	}
	_, err := d.makeDirectory(at, name, e)
	if err != unix.EEXIST {
		return err
	}
	// What has come before under this name: a directory stays.
	was, err := d.clear(at, name, keepDirectory)
	if err != nil {
		return err
	}
	var in *directory
	if was == unix.S_IFDIR {
		if in, err = d.enter(at, name, onlyFind); err == nil {
			err = d.setDirectory(in, e)
		}
		return err
	}
	if in, err = d.makeDirectory(at, name, e); err == nil && was == whiteout {
		err = d.hideAll(in)
	}
	return err
}

// makeDirectory makes a new one and holds it open. Errors of mkdir come as they are.
func (d *Dir) makeDirectory(at *directory, name string, e *Entry) (*directory, error) {
	if err := unix.Mkdirat(at.fd, name, e.Mode&(permissions|unix.S_ISVTX)); err != nil {
		return nil, err
	}
	at.stale = true
	fd, err := openDirectory(at.fd, name)
	if err != nil {
		return nil, err
	}
	in := &directory{path: join(at.path, name), fd: fd, gid: e.GID, setgid: e.Mode&unix.S_ISGID != 0, timed: true, stale: true, mtime: timespec(e.ModTime)}
	if err := d.dirs.put(in); err != nil {
		return nil, err
	}
	if err := d.own(fd, at, e); err != nil {
		return nil, err
	}
	if e.Mode&(d.umask|unix.S_ISUID|unix.S_ISGID) != 0 || at.setgid {
		if err := unix.Fchmod(fd, e.Mode); err != nil {
			return nil, err
		}
	}
	return in, d.setXattrs(in, e)
}

// setDirectory gives a directory that was there before what an entry says.
func (d *Dir) setDirectory(in *directory, e *Entry) error {
	delete(d.implicit, in.path)
	if err := unix.Fchown(in.fd, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if err := unix.Fchmod(in.fd, e.Mode); err != nil {
		return err
	}
	in.gid, in.setgid, in.timed, in.stale, in.mtime = e.GID, e.Mode&unix.S_ISGID != 0, true, true, timespec(e.ModTime)
	return d.setXattrs(in, e)
}

func (d *Dir) setXattrs(in *directory, e *Entry) error {
	for _, x := range e.Xattrs {
		if x.Name == defaultACL {
			if err := d.keep(len(in.path) + len(x.Value) + 64); err != nil {
				return err
			}
			d.acls = append(d.acls, lateXattr{in.path, x})
			continue
		}
		if err := setXattr(in.fd, x, false); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) addFile(at *directory, name string, e *Entry, body io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	var fd int
	err := d.replacing(at, name, func() (err error) {
		fd, err = unix.Openat(at.fd, name, flags, e.Mode&permissions)
		return err
	})
	if err != nil {
		return err
	}
	if err = d.copy(fd, e, body); err == nil {
		err = d.finishFile(fd, at, e)
	}
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

// finishFile sets what opening has not set. Capabilities come last: a change of the owner or the content takes them away.
func (d *Dir) finishFile(fd int, at *directory, e *Entry) error {
	if err := d.own(fd, at, e); err != nil {
		return err
	}
	if e.Mode&(d.umask|0o7000) != 0 {
		if err := unix.Fchmod(fd, e.Mode); err != nil {
			return err
		}
	}
	for _, x := range e.Xattrs {
		if err := setXattr(fd, x, false); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(fd, "", times(e.ModTime), unix.AT_EMPTY_PATH)
}

// own sets the owner, where it is not the one that a new file has.
func (d *Dir) own(fd int, at *directory, e *Entry) error {
	if !d.foreign(at, e) {
		return nil
	}
	return unix.Fchown(fd, int(e.UID), int(e.GID))
}

func (d *Dir) foreign(at *directory, e *Entry) bool {
	return d.user || e.UID != 0 || e.GID != 0 || at.setgid
}

func (d *Dir) copy(fd int, e *Entry, body io.Reader) error {
	if e.Size > 0 && d.buf == nil {
		d.buf = make([]byte, copySize)
	}
	if e.Sparse {
		return d.copySparse(fd, e, body)
	}
	for left := e.Size; left > 0; {
		n, err := io.ReadFull(body, d.buf[:min(left, copySize)])
		if err != nil {
			return err
		}
		if err := write(fd, d.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// copySparse leaves out blocks of zeros.
func (d *Dir) copySparse(fd int, e *Entry, body io.Reader) error {
	for at := int64(0); at < e.Size; {
		n, err := io.ReadFull(body, d.buf[:min(e.Size-at, copySize)])
		if err != nil {
			return err
		}
		if _, err := sparse.Runs(d.buf[:n], func(from, to int) error { return writeAt(fd, d.buf[from:to], at+int64(from)) }); err != nil {
			return err
		}
		at += int64(n)
	}
	return unix.Ftruncate(fd, e.Size)
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func (d *Dir) addSpecial(at *directory, name string, e *Entry) error {
	err := d.replacing(at, name, func() error {
		switch e.Kind {
		case Symlink:
			return unix.Symlinkat(e.Target, at.fd, name)
		case CharDevice:
			return unix.Mknodat(at.fd, name, unix.S_IFCHR|e.Mode&permissions, int(unix.Mkdev(e.Major, e.Minor)))
		case BlockDevice:
			return unix.Mknodat(at.fd, name, unix.S_IFBLK|e.Mode&permissions, int(unix.Mkdev(e.Major, e.Minor)))
		}
		return unix.Mknodat(at.fd, name, unix.S_IFIFO|e.Mode&permissions, 0)
	})
	if err != nil {
		return err
	}
	if d.foreign(at, e) {
		if err := unix.Fchownat(at.fd, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if e.Kind != Symlink && e.Mode&(d.umask|0o7000) != 0 {
		// It was made a moment ago by this process, in a directory that nobody else has: it is no link.
		if err := unix.Fchmodat(at.fd, name, e.Mode, 0); err != nil {
			return err
		}
	}
	if len(e.Xattrs) > 0 {
		if err := setXattrsAt(at.fd, name, e.Xattrs); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at.fd, name, times(e.ModTime), unix.AT_SYMLINK_NOFOLLOW)
}

// setXattrsAt is for files that are not opened: links and devices.
func setXattrsAt(at int, name string, list []Xattr) error {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, x := range list {
		if err := setXattr(fd, x, true); err != nil {
			return err
		}
	}
	return nil
}

// setXattr passes over what this file system does not keep, and what such a file cannot have.
func setXattr(fd int, x Xattr, special bool) error {
	var err error
	if special {
		err = unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", fd), x.Name, x.Value, 0)
	} else {
		err = unix.Fsetxattr(fd, x.Name, x.Value, 0)
	}
	if err == nil || err == unix.ENOTSUP || special && err == unix.EPERM {
		return nil
	}
	if err == unix.ENOSPC && hasRoom(fd) {
		return invalid("set the attribute %.300q: the file system of the store has no place for so many and large ones in a file; with layers that are images (--layers erofs) they are kept", x.Name)
	}
	return fmt.Errorf("set the attribute %.300q: %w", x.Name, err)
}

// hasRoom: ext4 keeps a file's attributes in its inode and one block, and says that the disk is full when they do not fit.
func hasRoom(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Bavail > 1024
}

func times(t time.Time) []unix.Timespec { ts := timespec(t); return []unix.Timespec{ts, ts} }

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
