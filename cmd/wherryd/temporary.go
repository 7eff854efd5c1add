package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// keepTemporary has the process's temporary files in a directory of the engine's own, and empties it: what an earlier life of it was in the
// middle of is there, also secrets that a build's step was shown.
func keepTemporary(root string) error {
	dir := filepath.Join(root, "tmp")
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range list {
		if err := forget(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	// The longest name below it is that of an agent's socket, .buildkit-ssh-sock<number>/ssh_auth_sock, and a socket's has 107 bytes at most.
	if len(dir) > 107-44 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Setenv("TMPDIR", dir)
}

// forget removes a file or directory, on which there may be mounts.
func forget(at string) error {
	for {
		err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) {
			return os.RemoveAll(at)
		}
		if err != nil {
			return fmt.Errorf("detach %s: %w", at, err)
		}
	}
}
