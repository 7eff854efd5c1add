package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sandbox"
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

// writeEtc writes a container's files of /etc. Where others have filled the file system, the largest of their files are emptied: nobody's start waits
// for who did that.
func writeEtc(s *Service, files sandbox.Files, content sandbox.Content) error {
	err := files.Write(content)
	for try := 0; errors.Is(err, unix.ENOSPC) && try < 20; try++ { // they may go on writing
		emptied, failed := emptyLargest(s.o.etcDir(""))
		if failed != nil || emptied == "" {
			break
		}
		s.log(fmt.Errorf("%s is emptied: its container had filled the file system of such files, which others need for their start", emptied))
		err = files.Write(content)
	}
	return s.o.noRoom(err)
}

// tooLarge is more than anybody's /etc/hosts has.
const tooLarge = 1 << 20

// emptyLargest empties the largest of the containers' files; "" where none is too large. Containers have the files alone: no link leads elsewhere.
func emptyLargest(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	largest, size := "", int64(tooLarge)
	for _, name := range names {
		if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() && fi.Size() > size {
			largest, size = name, fi.Size()
		}
	}
	if err != nil || largest == "" {
		return "", err
	}
	return largest, os.Truncate(largest, 0)
}

// noRoom says what to do where containers have filled the file system.
func (o *Options) noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: a container has filled its /etc/hosts, /etc/hostname or /etc/resolv.conf: find it with du -a %s | sort -n and remove it", err, o.etcDir(""))
	}
	return err
}
