package snapshot

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/sparse"
)

// File is a layer's image that is written: an erofs.Taker. The data of files goes to the disk past the page cache, as the mounted image has a
// cache of its own for it, and while more of it is made; names and inodes go through the cache, where the kernel reads them.
type File struct {
	f       *os.File
	buffers int
	free    chan []byte
	todo    chan piece    // nil: data is over
	written chan struct{} // closed when all data is written

	// Of who writes.
	direct  bool
	started int64 // up to where the kernel has been told to write

	mu  sync.Mutex
	err error // of a piece; the next ones are not written
}

type piece struct {
	p  []byte
	at int64
}

const (
	pieceSize = 512 << 10
	pieces    = 3 // that wait or are written, while one is filled
)

// NewFile writes to an open file, until Finish or Close.
func NewFile(f *os.File) *File {
	o := &File{f: f, free: make(chan []byte, pieces+1), todo: make(chan piece, pieces-1), written: make(chan struct{})}
	o.direct = o.setDirect(true) == nil
	go o.write(o.todo) // ends with todo
	return o
}

// setDirect has writes go past the page cache, or through it.
func (o *File) setDirect(on bool) error {
	flags, err := unix.FcntlInt(o.f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(o.f.Fd(), unix.F_SETFL, flags)
	return err
}

// Buffer is a new one. Go begins what is as large at a page; put does not depend on it.
func (o *File) Buffer() []byte {
	o.buffers++
	return make([]byte, 0, pieceSize)
}

// Take has data written beside its caller; what follows data, names and inodes, it writes itself.
func (o *File) Take(p []byte, at int64) ([]byte, error) {
	if o.todo == nil {
		_, err := o.WriteAt(p, at)
		return p, err
	}
	o.todo <- piece{p, at}
	if o.buffers <= pieces {
		return o.Buffer(), o.failure()
	}
	return <-o.free, o.failure()
}

func (o *File) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *File) write(todo <-chan piece) {
	defer close(o.written)
	for t := range todo {
		if o.failure() == nil {
			err := o.put(t.p, t.at)
			o.mu.Lock()
			o.err = err
			o.mu.Unlock()
		}
		o.free <- t.p
	}
}

// put writes a piece of data. File systems that do not write past the cache say so at the first one, if they have not before.
func (o *File) put(p []byte, at int64) error {
	if sparse.Zero(p) {
		return nil // a hole: Finish sees to the length
	}
	_, err := o.f.WriteAt(p, at)
	if o.direct && errors.Is(err, unix.EINVAL) {
		if o.direct, err = false, o.setDirect(false); err == nil {
			_, err = o.f.WriteAt(p, at)
		}
	}
	if end := at + int64(len(p)); err == nil && !o.direct && end >= o.started+pace {
		if err = unix.SyncFileRange(int(o.f.Fd()), o.started, end-o.started, unix.SYNC_FILE_RANGE_WRITE); err == unix.ESPIPE {
			err = nil
		}
		o.started = end
	}
	if err != nil {
		return fmt.Errorf("write %s to the disk: %w", o.f.Name(), err)
	}
	return nil
}

// pace is how much is handed to the disk at a time, where writes go through the cache.
const pace = 8 << 20

// WriteAt writes names and inodes.
func (o *File) WriteAt(p []byte, at int64) (int, error) { return o.f.WriteAt(p, at) }

// Close waits for what was taken. It leaves the file open, whose image is of no use without Finish.
func (o *File) Close() {
	if o.todo != nil {
		close(o.todo)
		o.todo = nil
	}
	<-o.written
}

// Finish ends the image that is written to the file: when it returns, all of it is on the disk. The data of files is dropped from the
// page cache, where it went through that; names and inodes stay.
func (o *File) Finish(w *erofs.Writer) error {
	o.Close()
	err := o.failure()
	if err == nil && o.direct {
		err = o.setDirect(false)
	}
	if err != nil {
		return err
	}
	data := int64(w.DataEnd())
	size, err := w.Finish()
	if err == nil {
		err = o.f.Truncate(size)
	}
	if err != nil {
		return err
	}
	if err := o.f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", o.f.Name(), err)
	}
	_ = unix.Fadvise(int(o.f.Fd()), 0, data&^(pageSize-1), unix.FADV_DONTNEED) // advice
	return nil
}

const pageSize = 4096
