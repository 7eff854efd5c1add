package volume

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// hasMount says that the volume's data is a file system of its own, by the local driver's options type, device and o.
func (d *definition) hasMount() bool { return d.Options["device"] != "" || d.Options["type"] != "" }

// checkOptions refuses what mount(8)'s options are not.
func (d *definition) checkOptions() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("create %s: %s: %w", d.Name, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	for key := range d.Options {
		if !slices.Contains([]string{"type", "o", "device"}, key) {
			return bad("invalid option: %q: the local driver takes type, o and device", key)
		}
	}
	if !d.hasMount() {
		if d.Options["o"] != "" {
			return bad("missing required option: %q", "device")
		}
		return nil
	}
	_, _, bind := mountOptions(d.Options["o"])
	switch {
	case d.Options["device"] == "":
		return bad("missing required option: %q", "device")
	case d.Options["type"] == "" && !bind:
		return bad("missing required option: %q (or o=bind)", "type")
	}
	return nil
}

// mountFlag is the flag of one of mount(8)'s options that file systems do not see themselves.
func mountFlag(option string) (uintptr, bool) {
	switch option {
	case "ro":
		return unix.MS_RDONLY, true
	case "nosuid":
		return unix.MS_NOSUID, true
	case "nodev":
		return unix.MS_NODEV, true
	case "noexec":
		return unix.MS_NOEXEC, true
	case "sync":
		return unix.MS_SYNCHRONOUS, true
	case "noatime":
		return unix.MS_NOATIME, true
	case "nodiratime":
		return unix.MS_NODIRATIME, true
	case "relatime":
		return unix.MS_RELATIME, true
	case "bind":
		return unix.MS_BIND, true
	case "rbind":
		return unix.MS_BIND | unix.MS_REC, true
	case "rw", "defaults":
		return 0, true
	}
	return 0, false
}

// mountOptions takes mount(8)'s option text apart.
func mountOptions(text string) (flags uintptr, data string, bind bool) {
	var rest []string
	for _, o := range strings.Split(text, ",") {
		if f, ok := mountFlag(o); ok {
			flags |= f
		} else if o != "" {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ","), flags&unix.MS_BIND != 0
}

// mount mounts what the options say on _data, at first use. e.op is held.
func (e *entry) mount(root string) error {
	if !e.hasMount() || e.mounted {
		return nil
	}
	dir := dataDir(root, e.Name)
	flags, data, bind := mountOptions(e.Options["o"])
	device := e.Options["device"]
	if _, err := os.Stat(device); bind && err != nil {
		return fmt.Errorf("mount volume %s: its device is not there: %w: %w", e.Name, err, errdefs.ErrInvalidArgument)
	}
	if err := unix.Mount(device, dir, e.Options["type"], flags, data); err != nil {
		return fmt.Errorf("mount volume %s (%s on %s, type %q, options %q): %w", e.Name, device, dir, e.Options["type"], e.Options["o"], err)
	}
	if bind && flags&unix.MS_RDONLY != 0 { // a bind takes its flags in a second step (mount(2))
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			return fmt.Errorf("make volume %s read-only: %w", e.Name, err)
		}
	}
	e.mounted = true
	return nil
}

// unmount undoes mount at the last use. Containers that still run have mounts of their own. e.op is held.
func (e *entry) unmount(root string) error {
	if !e.mounted {
		return nil
	}
	if err := unix.Unmount(dataDir(root, e.Name), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount volume %s: %w", e.Name, err)
	}
	e.mounted = false
	return nil
}

// isMountpoint says that something is mounted on dir: its device is not its parent's, or the kernel says so (statx(2)).
func isMountpoint(dir string) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
