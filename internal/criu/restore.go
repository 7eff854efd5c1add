package criu

import (
	"context"
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
	pidFile := filepath.Join(o.work(), "restored.pid")
	if err := os.Remove(pidFile); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	args := append([]string{"--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", pidFile}, flagsOf(o.Options)...)
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
		return 0, err
	}
	cmd.ExtraFiles = files
	if o.Group != nil {
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(o.Group.Fd())}
	}
	if err := apart(o, func() error { return run(cmd, o.Options, "restore") }); err != nil {
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

// apart runs f on a thread with a mount namespace of its own, where the root file system is a mount, as criu wants it, and in the control
// groups of version 1. The thread ends with it.
func apart(o RestoreOptions, f func() error) error {
	return threads.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("make a mount namespace for criu: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("cut criu's mounts off from the host's: %w", err)
		}
		if err := unix.Mount(o.Root, o.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount the root file system %s: %w", o.Root, err)
		}
		for _, e := range o.Entries {
			if _, err := e.WriteString("0"); err != nil {
				return fmt.Errorf("enter %s: %w", e.Name(), err)
			}
		}
		return f()
	})
}
