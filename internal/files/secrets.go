package files

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/mountinfo"
)

// coverSecrets has the thread see the container's mounts but no secrets: in a copy of its mount namespace empty files and directories lie on
// them. They cannot be taken away there, since the namespace that they come from belongs to the container's users. The caller keeps what is
// returned for as long as it needs the view. self is the thread's directory in the host's /proc: the container's does not show it.
func coverSecrets(self *os.File) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, err
	}
	places, err := secretPlaces(self)
	if err != nil {
		return nil, err
	}
	for _, at := range places {
		if err := cover(at); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	ns, err := unix.Openat(int(self.Fd()), "ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(ns), "mnt"), nil
}

// secretPlaces are where the container has secrets by now; it may have moved the directories above.
func secretPlaces(self *os.File) ([]string, error) {
	fd, err := unix.Openat(int(self.Fd()), "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	list, err := mountinfo.Parse(string(text))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		if m.Source == containers.SecretsSource {
			out = append(out, m.At)
		}
	}
	return out, nil
}

// cover lays something empty of the same kind on a mount.
func cover(at string) error {
	target, err := unix.Open(at, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	empty, err := emptyMount(st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(empty)
	return unix.MoveMount(empty, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func emptyMount(dir bool) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil || dir {
		return m, err
	}
	defer unix.Close(m)
	f, err := unix.Openat(m, "empty", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return -1, err
	}
	unix.Close(f)
	// Kernels before 6.15 clone no part of a mount that is nowhere. This one is on /proc for a moment, where nobody else sees it.
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, err
	}
	empty, err := unix.OpenTree(unix.AT_FDCWD, "/proc/empty", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	return empty, errors.Join(err, unix.Unmount("/proc", unix.MNT_DETACH))
}
