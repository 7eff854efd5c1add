package image

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
)

// replaceFile writes data → sync → rename → sync. Where the disk has no room for a second file the first one is written over, if it has room
// for that: whoever removes something to make room must not fail at the note of it. One at a time does: a file that was left by a kill is the
// next one's.
func replaceFile(path string, b []byte) error {
	err := writeBeside(path, b)
	if room.Lacks(err) && overwrite(path, b) == nil {
		return nil
	}
	return err
}

func writeBeside(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// overwrite takes its room first, where the file system can say: a file that it does not fit into stays as it is.
func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(b))); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(len(b))), f.Sync())
}

// syncDir makes the names in a directory last.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
