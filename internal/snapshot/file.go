package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
)

// File is a layer's image that is written. What it has been given goes to the disk meanwhile, so that the sync at its end is short.
type File struct {
	f       *os.File
	started int64 // up to where the kernel has been told to write
}

// NewFile writes to an open file.
func NewFile(f *os.File) *File { return &File{f: f} }

// pace is how much is handed to the disk at a time.
const pace = 8 << 20

// WriteAt writes to the file.
func (o *File) WriteAt(p []byte, at int64) (int, error) {
	if isZero(p) {
		return len(p), nil // a hole: Finish sees to the length
	}
	n, err := o.f.WriteAt(p, at)
	if err != nil {
		return n, err
	}
	if end := at + int64(n); end >= o.started+pace {
		if err := unix.SyncFileRange(int(o.f.Fd()), o.started, end-o.started, unix.SYNC_FILE_RANGE_WRITE); err != nil && err != unix.ESPIPE {
			return n, fmt.Errorf("write %s to the disk: %w", o.f.Name(), err)
		}
		o.started = end
	}
	return n, nil
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	return len(bytes.Trim(p, "\x00")) == 0
}

// Finish ends the image that is written to the file: when it returns, all of it is on the disk. The data of files is dropped from the
// page cache, since the mounted image has a cache of its own for it; names and inodes stay, which the kernel reads from here.
func (o *File) Finish(w *erofs.Writer) error {
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
