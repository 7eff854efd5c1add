package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

// RestoreOptions say what Restore makes of images.
type RestoreOptions struct {
	Options
	// Group is the control group that the processes are in: a directory of the cgroup2 tree, and files of version 1 to be written to
	// (cgroup.Group's Dir and Entries).
	Group   *os.File
	Entries []*os.File
	Roots   []string // what criu takes for the root of its control groups, [CONTROLLER:]PATH
	Inherit []Inherited
	// Attach, where it is set, attaches the container's mounts below a folder and returns where its root file system is, and what else is
	// external; Root is then not looked at. It is called on criu's thread, in a mount namespace of its own.
	Attach func(dir string) (root string, external []string, err error)
	// Label is the security module's for all processes, whatever the images say (MODULE:LABEL); empty: theirs.
	Label string
}

// Inherited is a file that takes the place of one that the images know by a name.
type Inherited struct {
	Name string
	File *os.File
}

// Restore makes the processes again, stopped (SIGSTOP), the first one as a child of this process, and returns its pid. They are made from
// within the control group: nothing of theirs has ever been outside of it.
func Restore(ctx context.Context, o RestoreOptions) (pid int, err error) {
	pidFile := filepath.Join(o.work(), restoredPid)
	if err := os.Remove(pidFile); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	if err := apart(o, func(o RestoreOptions) error { return o.run(ctx) }); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, fmt.Errorf("read criu's %s: %w", pidFile, err)
	}
	return pid, nil
}

// restoredPid is where criu writes the first process's number, in its work's folder.
const restoredPid = "restored.pid"

func (o RestoreOptions) run(ctx context.Context) error {
	args := append([]string{"--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", filepath.Join(o.work(), restoredPid)}, flagsOf(o.Options)...)
	for _, root := range o.Roots {
		args = append(args, "--cgroup-root", root)
	}
	if o.Label != "" {
		args = append(args, "--lsm-profile", o.Label)
	}
	var files []*os.File
	for _, i := range o.Inherit {
		args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", 3+len(files), i.Name))
		files = append(files, i.File)
	}
	cmd, err := command(ctx, o.Options, "restore", args)
	if err != nil {
		return err
	}
	cmd.ExtraFiles = files
	if o.Group != nil {
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(o.Group.Fd())}
	}
	return run(ctx, cmd, o.Options, "restore")
}

// yard is the folder below which the mounts of a restore are attached, in a mount namespace that has a file system of its own there. Processes
// of the container search it while criu makes them, and criu makes folders of its own in it.
const yard = "/tmp"

// apart runs f on a thread with a mount namespace of its own, where the root file system is a mount, as criu wants it, and in the control
// groups of version 1. The thread ends with it.
func apart(o RestoreOptions, f func(RestoreOptions) error) error {
	return threads.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("make a mount namespace for criu: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("cut criu's mounts off from the host's: %w", err)
		}
		if o.Attach != nil { // criu mounts in its work's folder, which is to be seen from here, perhaps below the yard
			folders, err := o.openFolders()
			if err != nil {
				return err
			}
			for _, f := range folders {
				defer f.Close()
			}
		}
		if err := o.place(); err != nil {
			return err
		}
		for _, e := range o.Entries {
			if _, err := e.WriteString("0"); err != nil {
				return fmt.Errorf("enter %s: %w", e.Name(), err)
			}
		}
		return f(o)
	})
}

// openFolders names the folders by descriptors of the calling thread's mounts.
func (o *RestoreOptions) openFolders() (open []*os.File, err error) {
	for _, dir := range []*string{&o.Images, &o.Work} {
		if *dir == "" {
			continue
		}
		f, err := os.OpenFile(*dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return open, err
		}
		open = append(open, f)
		o.shown = *dir // the work's, where there are both
		*dir = "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
	}
	return open, nil
}

// place puts the root file system, and what else is mounted, where criu finds it.
func (o *RestoreOptions) place() error {
	if o.Attach == nil {
		if err := unix.Mount(o.Root, o.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount the root file system %s: %w", o.Root, err)
		}
		return nil
	}
	if err := unix.Mount("criu", yard, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s for criu: %w", yard, err)
	}
	dir := filepath.Join(yard, "mounts")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return err
	}
	root, external, err := o.Attach(dir)
	o.Root, o.External = root, append(o.External, external...)
	return err
}
