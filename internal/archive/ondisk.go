package archive

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// directAlign is what direct reads keep to: no disk has larger sectors.
const directAlign = 4096

// OnDisk reads a file as its disk has it, and not what the page cache remembers of it, which a failing disk may have lost since. Where the
// file system reads nothing directly (tmpfs), the cache is asked to forget the file first. One goroutine uses it at a time.
type OnDisk struct {
	f    *os.File
	room []byte // of whole pages: a mapping of its own
	have []byte // of room, not handed out yet
	at   int64
	end  bool
}

// FromDisk reads an open file from its beginning. Close frees the buffer and leaves the file open; until then it is only good for this.
func FromDisk(f *os.File) (*OnDisk, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := min(fi.Size()/directAlign+1, 256) * directAlign
	room, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("make room to read %s: %w", f.Name(), err)
	}
	d := &OnDisk{f: f, room: room}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	if err != nil {
		d.forget()
	}
	return d, nil
}

// forget has the cache drop what it may: what programs have mapped stays.
func (d *OnDisk) forget() { _ = unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED) }

func (d *OnDisk) Read(p []byte) (int, error) {
	if len(d.have) == 0 {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.have)
	d.have = d.have[n:]
	return n, nil
}

func (d *OnDisk) fill() error {
	if d.end {
		return io.EOF
	}
	n, err := d.read()
	if errors.Is(err, unix.EINVAL) { // it takes the flag, and reads nothing that way
		if flags, err := unix.FcntlInt(d.f.Fd(), unix.F_GETFL, 0); err == nil {
			_, _ = unix.FcntlInt(d.f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT)
		}
		d.forget()
		n, err = d.read()
	}
	if err != nil {
		return &os.PathError{Op: "read", Path: d.f.Name(), Err: err}
	}
	d.end = n%directAlign != 0 // nothing can be read directly from there on, nor is there anything
	d.at += int64(n)
	if d.have = d.room[:n]; n == 0 {
		return io.EOF
	}
	return nil
}

func (d *OnDisk) read() (n int, err error) {
	for {
		if n, err = unix.Pread(int(d.f.Fd()), d.room, d.at); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Close frees the buffer.
func (d *OnDisk) Close() error {
	d.have = nil
	return unix.Munmap(d.room)
}
