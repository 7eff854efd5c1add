package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// format is that of all that lies in the root and state directories, and of what engine and shims say to each other. Fields may come and go
// within one. It is raised when engines before would damage what this one writes, or take it for something else.
const format = 1

// prepare makes one of the engine's directories, and locks it. One that a later engine has written in another format is left alone.
func prepare(dir string) (lock *os.File, err error) {
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = os.Chmod(dir, 0o700)
	}
	if errors.Is(err, unix.EROFS) {
		return nil, fmt.Errorf("the file system of %s is read-only (%w): containers that run go on; make it writable again (mount -o remount,rw), and start wherryd then", dir, err)
	}
	if err != nil {
		return nil, err
	}
	if lock, err = acquire(dir); err != nil {
		return nil, err
	}
	if err := settleFormat(dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// settleFormat notes the format in dir. A note that says nothing is written anew; where there is no room for it, a later start writes it.
func settleFormat(dir string) error {
	path := filepath.Join(dir, "format")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	there, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err == nil && there > format:
		return fmt.Errorf("%s was written by a later wherryd, in format %d; this one knows formats up to %d, and leaves it as it is: install the later version again, or give this one a --root and a --state of its own",
			dir, there, format)
	case err == nil && there == format:
		return nil
	}
	if os.WriteFile(path+".new", fmt.Appendf(nil, "%d\n", format), 0o600) == nil {
		_ = os.Rename(path+".new", path)
	}
	return nil
}
