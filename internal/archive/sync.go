package archive

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fewEntries are synced one by one. With more it is cheaper to sync the file system, and with it what others have written.
const fewEntries = 16

// release closes what was made, or keeps it to be synced.
func (x *reader) release(f *os.File) error {
	if !x.o.Sync || x.made > fewEntries {
		return f.Close()
	}
	x.unsynced = append(x.unsynced, f)
	return nil
}

// finish is called when all entries are made.
func (x *reader) finish() error {
	if err := x.setTimes(); err != nil || !x.o.Sync {
		return err
	}
	if err := x.sync(); err != nil {
		return fmt.Errorf("sync what was unpacked: %w", err)
	}
	return nil
}

func (x *reader) sync() error {
	dir, err := open(x.root, x.at, unix.O_RDONLY|unix.O_DIRECTORY, inRoot)
	if err != nil {
		return err
	}
	defer dir.Close()
	if x.made > fewEntries {
		return unix.Syncfs(int(dir.Fd()))
	}
	var errs []error
	for _, f := range x.unsynced {
		errs = append(errs, f.Sync())
	}
	if x.parent != nil {
		if parent, err := open(x.parent, ".", unix.O_RDONLY|unix.O_DIRECTORY, inRoot); err == nil {
			errs = append(errs, parent.Sync(), parent.Close())
		}
	}
	return errors.Join(append(errs, dir.Sync())...)
}
