package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// attachment is one mount of the container: made here (source), or by the child because it belongs to one of its namespaces (fstype).
type attachment struct {
	at       string   // canonical place inside
	source   *os.File // detached mount; nil: the child makes it
	fstype   string   // proc, sysfs, mqueue
	flags    int      // MOUNT_ATTR_* of a mount that the child makes
	target   *os.File // where it goes; nil: resolved by the child below parent
	parent   *attachment
	rest     string
	isDir    bool
	optional bool // an fstype that the host may refuse

	propagation uintptr // MS_SHARED, …; 0: as it is
	late        bool    // made read-only after all is attached
}

// mountFlags are the options of runtime-spec's mounts that become attributes: what they set and clear.
var mountFlags = map[string]struct{ set, clear uint64 }{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"noatime": {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME}, "relatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}, "nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime": {clear: unix.MOUNT_ATTR_NODIRATIME}, "nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// mountOptions are a mount's options, sorted by what they mean.
type mountOptions struct {
	set, clear  uint64
	recursive   uint64 // attributes for the whole tree ("rro", …)
	bind, rbind bool
	copyUp      bool
	propagation uintptr
	data        []string // for the file system itself
	idmap       bool
}

func parseMountOptions(list []string) mountOptions {
	var o mountOptions
	for _, opt := range list {
		if f, ok := mountFlags[opt]; ok {
			o.set, o.clear = o.set&^f.clear|f.set, o.clear&^f.set|f.clear
			continue
		}
		if f, ok := mountFlags[strings.TrimPrefix(opt, "r")]; ok && strings.HasPrefix(opt, "r") {
			o.recursive |= f.set
			continue
		}
		if p, ok := propagations[opt]; ok {
			o.propagation = p
			continue
		}
		switch opt {
		case "bind":
			o.bind = true
		case "rbind":
			o.rbind = true
		case "tmpcopyup":
			o.copyUp = true
		case "idmap", "ridmap":
			o.idmap = true
		case "defaults", "async", "":
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// prepareMounts makes every mount of the spec, detached, and opens the places where they go.
func (s *start) prepareMounts(context.Context) error {
	for i := range s.spec.Mounts {
		m := &s.spec.Mounts[i]
		if err := s.prepareMount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if err := s.prepareDevices(); err != nil {
		return err
	}
	if s.slave != nil {
		return s.prepareConsole()
	}
	return nil
}

func (s *start) prepareMount(m *specs.Mount) error {
	o := parseMountOptions(m.Options)
	a := &attachment{isDir: true, propagation: o.propagation, flags: int(o.set)}
	var err error
	switch {
	case o.bind || o.rbind || m.Type == "bind":
		err = s.bindMount(a, m, o)
	case m.Type == "proc", m.Type == "mqueue":
		a.fstype, a.optional = m.Type, m.Type == "mqueue"
	case m.Type == "sysfs":
		err = s.sysMount(a, o)
	case m.Type == "cgroup", m.Type == "cgroup2":
		return s.cgroupMounts(m.Destination, o)
	case m.Type == "devpts":
		a.source, err = s.newFilesystem("devpts", s.ownedBy(append(o.data, "newinstance")), o)
		if s.devpts != nil && m.Destination == "/dev/pts" {
			a.source, err = dup(s.devpts)
		}
	default:
		data := o.data
		if m.Type == "tmpfs" && s.ids.Size > 0 {
			data = s.ownedBy(append([]string{"uid=0", "gid=0"}, data...))
		}
		a.source, err = s.newFilesystem(m.Type, data, o)
	}
	if err != nil {
		return err
	}
	if err := s.place(a, m.Destination); err != nil {
		return err
	}
	if o.copyUp {
		return s.copyUp(a, m.Destination)
	}
	return nil
}

// dup makes a second descriptor of the same mount's root, as a mount to be attached.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// ownedBy shifts uid= and gid= of a file system's options into the container's range: the file system is made outside of it.
func (s *start) ownedBy(data []string) []string {
	out := make([]string, 0, len(data))
	for _, d := range data {
		key, value, _ := strings.Cut(d, "=")
		if id, err := strconv.Atoi(value); err == nil && (key == "uid" || key == "gid") {
			d = key + "=" + strconv.Itoa(s.ids.Host(id))
		}
		out = append(out, d)
	}
	return out
}

// newFilesystem makes a file system, detached.
func (s *start) newFilesystem(fstype string, data []string, o mountOptions) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file system %q: %w", fstype, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", fstype); err != nil {
		return nil, err
	}
	for _, d := range data {
		key, value, has := strings.Cut(d, "=")
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return nil, fmt.Errorf("option %q of a %s: %w", d, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make a %s: %w", fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.set))
	if err != nil {
		return nil, fmt.Errorf("mount a %s: %w", fstype, err)
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// bindMount clones a host's file or directory, id-mapped where the spec asks for it.
func (s *start) bindMount(a *attachment, m *specs.Mount, o mountOptions) error {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(s.o.Bundle, source)
	}
	fi, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind source: %w", err)
	}
	a.isDir = fi.IsDir()
	b := rootfs.BindOptions{Recursive: o.rbind, Set: o.set, Clear: o.clear}
	userns := s.userns
	if len(m.UIDMappings) > 0 || o.idmap {
		b.UserNS = userns
	}
	a.source, err = rootfs.Bind(source, b)
	if errors.Is(err, rootfs.ErrNotMapped) {
		s.warnings = append(s.warnings, fmt.Sprintf("%s is mounted without mapping its ids: %v", source, err))
		b.UserNS = nil
		a.source, err = rootfs.Bind(source, b)
	}
	if err == nil && o.recursive != 0 {
		err = unix.MountSetattr(int(a.source.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: o.recursive})
	}
	return err
}

// sysMount leaves sysfs to the child where it owns its network namespace; else the host's is shown.
func (s *start) sysMount(a *attachment, o mountOptions) (err error) {
	if s.newNS&unix.CLONE_NEWNET != 0 || s.ids.Size == 0 || s.joins(unix.CLONE_NEWUSER) && s.joins(unix.CLONE_NEWNET) {
		a.fstype = "sysfs"
		return nil
	}
	a.source, err = rootfs.Bind("/sys", rootfs.BindOptions{Recursive: true, Set: o.set})
	return err
}

func (s *start) joins(kind int) bool {
	for _, j := range s.joined {
		if j.kind == kind {
			return true
		}
	}
	return false
}

// cgroupMounts shows the container its own control group, by binds of its directories, at the place of the spec's cgroup mount.
func (s *start) cgroupMounts(at string, o mountOptions) error {
	if s.group == nil {
		return nil
	}
	dirs := s.group.Dirs()
	if dir, ok := dirs[""]; ok && len(dirs) == 1 { // pure cgroup v2
		source, err := rootfs.Bind(dir, rootfs.BindOptions{Set: o.set})
		if err != nil {
			return err
		}
		return s.place(&attachment{source: source, isDir: true}, at)
	}
	tmpfs, err := s.newFilesystem("tmpfs", s.ownedBy([]string{"mode=755", "uid=0", "gid=0", "size=64k"}), mountOptions{set: o.set &^ unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return err
	}
	parent := &attachment{source: tmpfs, isDir: true, late: o.set&unix.MOUNT_ATTR_RDONLY != 0}
	if err := s.place(parent, at); err != nil {
		return err
	}
	for name, dir := range dirs {
		if name == "" {
			name = "unified"
		}
		source, err := rootfs.Bind(dir, rootfs.BindOptions{Set: o.set})
		if err != nil {
			return err
		}
		if err := s.place(&attachment{source: source, isDir: true}, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

// place finds the mount that destination lies in, so far, and opens the place there.
func (s *start) place(a *attachment, destination string) error {
	if a.source != nil {
		s.keep(a.source)
	}
	a.at = canonical(s.root, destination)
	for i := len(s.mounts) - 1; i >= 0; i-- {
		below := s.mounts[i]
		rest, ok := within(a.at, below.at)
		if !ok {
			continue
		}
		a.parent, a.rest = below, rest
		if below.source == nil {
			s.mounts = append(s.mounts, a)
			return nil // the child resolves it below its own file system
		}
		a.at = path.Join(below.at, canonical(below.source, rest))
		rest, _ = within(a.at, below.at)
		return s.placeIn(a, below.source, "/"+strings.TrimPrefix(rest, "/"))
	}
	return s.placeIn(a, s.root, a.at)
}

func (s *start) placeIn(a *attachment, dir *os.File, name string) (err error) {
	if a.target, err = s.target(dir, name, a.isDir); err != nil {
		return err
	}
	s.keep(a.target)
	s.mounts = append(s.mounts, a)
	return nil
}
