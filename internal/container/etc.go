package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// etcSize is how much all containers together may put into the files of /etc that the engine writes for them.
const etcSize = "64m"

// etcDir holds the files of /etc that the engine writes at each start.
func (o *Options) etcDir(id string) string { return filepath.Join(o.State, "etc", id) }

// boundEtc gives those files a file system of their own: containers write to them, and the state directory mostly lies on /run, which the
// whole host needs. An engine that was killed has left the mount, and files of an engine that made none are not to be hidden.
func (o *Options) boundEtc() error {
	dir := o.etcDir("")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of containers' files: %w", err)
	}
	if apart, err := onMountOfItsOwn(dir); err != nil || apart {
		return err
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		return err
	}
	if err := unix.Mount("wherry-etc", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,nr_inodes=65536,size="+etcSize); err != nil {
		return fmt.Errorf("mount a file system for containers' files on %s: %w", dir, err)
	}
	return nil
}

// unmountEtc takes it away, when no container runs: each start writes the files anew.
func (o *Options) unmountEtc() {
	if apart, err := onMountOfItsOwn(o.etcDir("")); err == nil && apart {
		_ = unix.Unmount(o.etcDir(""), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// noRoom says what to do where containers have filled the file system.
func (o *Options) noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: a container has filled its /etc/hosts, /etc/hostname or /etc/resolv.conf: find it with du -a %s | sort -n and remove it", err, o.etcDir(""))
	}
	return err
}
