package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// source is what the options of the local driver mount on a volume's data; nil: nothing, the data is a plain folder.
type source struct {
	fsType, device string
	bind           bool
	recursive      bool
	attributes     uint64 // MOUNT_ATTR_*
	propagation    uint64
	options        [][2]string // for the file system, in order; without a value: flags
}

// attributes are the options that are a mount's, not a file system's: what is set, and what its opposite is called.
func attributesOf(option string) (set, clear uint64, ok bool) {
	switch option {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, 0, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, 0, true
	case "atime", "relatime", "diratime", "defaults", "":
		return 0, 0, true
	}
	return 0, 0, false
}

func propagationOf(option string) uint64 {
	switch option {
	case "private", "rprivate":
		return unix.MS_PRIVATE
	case "shared", "rshared":
		return unix.MS_SHARED
	case "slave", "rslave":
		return unix.MS_SLAVE
	case "unbindable", "runbindable":
		return unix.MS_UNBINDABLE
	}
	return 0
}

// parseOptions reads the local driver's options: type, device and o, as mount(8) has them.
func parseOptions(options map[string]string) (*source, error) {
	if len(options) == 0 {
		return nil, nil
	}
	for key := range options {
		switch key {
		case "type", "device", "o":
		case "size":
			return nil, fmt.Errorf("quota size requested but no quota support: take type=tmpfs with o=size=…: %w", errdefs.ErrInvalidArgument)
		default:
			return nil, fmt.Errorf("invalid option: %q: the local driver has type, o and device: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	for _, key := range []string{"device", "type"} {
		if _, ok := options[key]; !ok {
			return nil, fmt.Errorf("missing required option: %q: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	s := &source{fsType: options["type"], device: options["device"]}
	for o := range strings.SplitSeq(options["o"], ",") {
		if err := s.option(o); err != nil {
			return nil, err
		}
	}
	switch {
	case s.bind && !strings.HasPrefix(s.device, "/"):
		return nil, fmt.Errorf("device %q of a bind must be an absolute path: %w", s.device, errdefs.ErrInvalidArgument)
	case !s.bind && (s.fsType == "" || s.fsType == "none"):
		return nil, fmt.Errorf("type %q without o=bind says nothing to mount: %w", s.fsType, errdefs.ErrInvalidArgument)
	}
	return s, nil
}

func (s *source) option(o string) error {
	if set, clear, ok := attributesOf(o); ok {
		s.attributes = s.attributes&^clear | set
		return nil
	}
	if p := propagationOf(o); p != 0 {
		s.propagation = p
		return nil
	}
	switch o {
	case "bind", "rbind":
		s.bind, s.recursive = true, s.recursive || o == "rbind"
		return nil
	case "remount", "move":
		return fmt.Errorf("option %q does not make a volume: %w", o, errdefs.ErrInvalidArgument)
	}
	key, value, _ := strings.Cut(o, "=")
	if strings.ContainsRune(o, 0) || key == "" {
		return fmt.Errorf("invalid mount option %q: %w", o, errdefs.ErrInvalidArgument)
	}
	s.options = append(s.options, [2]string{key, value})
	return nil
}

// mountOn mounts the source on a directory, with the calls that name no path twice (fsopen(2), open_tree(2), move_mount(2)).
func (s *source) mountOn(ctx context.Context, dir string) error {
	target, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(target)
	mount, err := s.detached(ctx)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	attr := unix.MountAttr{Attr_set: s.attributes, Propagation: s.propagation}
	flags := uint(unix.AT_EMPTY_PATH)
	if s.recursive {
		flags |= unix.AT_RECURSIVE
	}
	if s.attributes&(unix.MOUNT_ATTR_NOATIME|unix.MOUNT_ATTR_STRICTATIME) != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	if attr != (unix.MountAttr{}) {
		if err := unix.MountSetattr(mount, "", flags, &attr); err != nil {
			return fmt.Errorf("set the attributes of the mount of %s: %w", s.device, err)
		}
	}
	if err := unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s on %s: %w", s.device, dir, err)
	}
	return nil
}

func (s *source) detached(ctx context.Context) (int, error) {
	if s.bind {
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if s.recursive {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, s.device, flags)
		if errors.Is(err, unix.ENOENT) { // docker's command line takes the kernel's words for a missing program
			return -1, fmt.Errorf("its device %s does not exist: make it, or the volume anew: %w", s.device, errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return -1, fmt.Errorf("bind %s: %w", s.device, err)
		}
		return fd, nil
	}
	fs, err := unix.Fsopen(s.fsType, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return -1, fmt.Errorf("the kernel has no file system %s: check the spelling of type, or load its module (modprobe %[1]s): %w", s.fsType, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return -1, fmt.Errorf("file system type %s: %w", s.fsType, err)
	}
	defer unix.Close(fs)
	if err := s.configure(ctx, fs); err != nil {
		return -1, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", s.device, err)
	}
	return fd, nil
}

func (s *source) configure(ctx context.Context, fs int) error {
	fail := func(what string, err error) error {
		buf := make([]byte, 512)
		if n, e := unix.Read(fs, buf); e == nil && n > 2 { // "e " and a text of the kernel's
			return fmt.Errorf("mount %s (%s): %s: %w (%s)", s.device, s.fsType, what, err, strings.TrimSpace(string(buf[2:n])))
		}
		return fmt.Errorf("mount %s (%s): %s: %w", s.device, s.fsType, what, err)
	}
	if err := unix.FsconfigSetString(fs, "source", s.device); err != nil {
		return fail("set the source", err)
	}
	if s.attributes&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return fail("set ro", err)
		}
	}
	for _, o := range s.options {
		var err error
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			value := o[1]
			if o[0] == "addr" {
				if value, err = address(ctx, value); err != nil {
					return err
				}
			}
			err = unix.FsconfigSetString(fs, o[0], value)
		}
		if err != nil {
			return fail("option "+o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fail("create", err)
	}
	return nil
}

// address turns the server's name of an addr= option into its address: the kernel asks no name server.
func address(ctx context.Context, host string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	list, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", fmt.Errorf("resolve addr=%s: %w", host, err)
	}
	return list[0], nil
}

// mounted says whether dir is where something is mounted.
func mounted(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err == unix.ENOTCONN || err == unix.ESTALE || err == unix.EIO { // who serves what is mounted there has gone
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errors.New("the kernel does not say what is mounted: it is older than 5.8")
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmount takes everything off dir that is mounted there.
func unmount(dir string) error {
	for range 100 {
		is, err := mounted(dir)
		if err != nil || !is {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return fmt.Errorf("unmount %s: something is mounted there again and again", dir)
}
