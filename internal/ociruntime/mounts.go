package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
)

// attachment is one mount of the container: made here (source), or by the child because it belongs to one of its namespaces (fstype).
type attachment struct {
	at       string   // canonical place inside
	source   *os.File // detached mount; nil: the child makes it
	part     string   // what of source is shown: the child clones it, since kernels before 6.15 clone only from what is attached
	fstype   string   // proc, sysfs, mqueue
	instead  *os.File // detached mount for where fstype is refused
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
	source      string // what the mount table calls it; empty: as its type
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

// layout is a container's tree of file systems, made detached, with the places where they go.
type layout struct {
	bundle string
	spec   *specs.Spec
	ns     *namespaces
	group  *cgroup.Group
	held   *held

	root     *os.File // the detached root file system
	mounts   []*attachment
	devices  *os.File   // the /dev tmpfs
	null     *os.File   // a folder with a null device of ours
	aside    []*os.File // attached outside of the root, for parts of them
	devpts   *os.File
	console  *os.File // the terminal's master side
	slave    *os.File
	warnings []string
}

// prepare makes every mount of the spec, detached, and opens the places where they go.
func (l *layout) prepare() error {
	for i := range l.spec.Mounts {
		m := &l.spec.Mounts[i]
		if err := l.prepareMount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if err := l.prepareDevices(); err != nil {
		return err
	}
	if l.slave != nil {
		if err := l.prepareConsole(); err != nil {
			return err
		}
	}
	l.makeWorkingDirectory()
	return nil
}

// makeWorkingDirectory makes the program's working directory where it is missing; where it cannot be made, entering it says why.
func (l *layout) makeWorkingDirectory() {
	a := &attachment{isDir: true}
	dir, name := l.find(a, l.spec.Process.Cwd)
	if dir == nil {
		return
	}
	if f, err := l.target(dir, name, true); err == nil {
		f.Close()
	}
}

func (l *layout) prepareMount(m *specs.Mount) error {
	o := parseMountOptions(m.Options)
	o.source = m.Source
	a := &attachment{isDir: true, propagation: o.propagation, flags: int(o.set)}
	var err error
	switch {
	case o.bind || o.rbind || m.Type == "bind":
		err = l.bindMount(a, m, o)
	case m.Type == "proc" && !l.ns.ownsProcesses():
		a.source, err = bindHost("/proc", o.set)
	case m.Type == "proc", m.Type == "mqueue":
		a.fstype, a.optional = m.Type, m.Type == "mqueue"
	case m.Type == "sysfs":
		err = l.sysMount(a, o)
	case m.Type == "cgroup", m.Type == "cgroup2":
		return l.cgroupMounts(m.Destination, o)
	case m.Type == "devpts":
		if l.devpts != nil && path.Clean(m.Destination) == "/dev/pts" {
			a.source, err = dup(l.devpts)
		} else {
			a.source, err = l.newFilesystem("devpts", l.ownedBy(slices.DeleteFunc(o.data, func(d string) bool { return d == "newinstance" })), o)
		}
	default:
		data := o.data
		if m.Type == "tmpfs" && l.ns.ids.Size > 0 {
			data = l.ownedBy(append([]string{"uid=0", "gid=0"}, data...))
		}
		a.source, err = l.newFilesystem(m.Type, data, o)
	}
	if err != nil {
		return err
	}
	if err := l.place(a, m.Destination); err != nil {
		return err
	}
	if o.copyUp {
		return l.copyUp(a, m.Destination)
	}
	return nil
}

// dup makes a second descriptor of the same mount's root, as a mount to be attached.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(descriptor(f)), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// ownedBy shifts uid= and gid= of a file system's options into the container's range: the file system is made outside of it.
func (l *layout) ownedBy(data []string) []string {
	out := make([]string, 0, len(data))
	for _, d := range data {
		key, value, _ := strings.Cut(d, "=")
		if id, err := strconv.Atoi(value); err == nil && (key == "uid" || key == "gid") {
			d = key + "=" + strconv.Itoa(l.ns.ids.Host(id))
		}
		out = append(out, d)
	}
	return out
}

// newFilesystem makes a file system, detached.
func (l *layout) newFilesystem(fstype string, data []string, o mountOptions) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file system %q: %w", fstype, err)
	}
	defer unix.Close(fs)
	source := o.source
	if source == "" {
		source = fstype
	}
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
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
func (l *layout) bindMount(a *attachment, m *specs.Mount, o mountOptions) error {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(l.bundle, source)
	}
	fi, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind source: %w", err)
	}
	a.isDir = fi.IsDir()
	if a.propagation == 0 {
		a.propagation = slaveTree // as the rest of the container's mounts: the host's reach it, its own do not reach the host
	}
	b := rootfs.BindOptions{Recursive: o.rbind, Set: o.set, Clear: o.clear}
	userns := l.ns.user
	if len(m.UIDMappings) > 0 || o.idmap {
		b.UserNS = userns
	}
	a.source, err = rootfs.Bind(source, b)
	if errors.Is(err, rootfs.ErrNotMapped) {
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || l.ns.ids.Inside(int(st.Uid)) == unmapped { // else it was made for the container
			l.warnings = append(l.warnings, fmt.Sprintf("%s is mounted without mapping its ids: %v", source, err))
		}
		b.UserNS = nil
		a.source, err = rootfs.Bind(source, b)
	}
	if err == nil && o.recursive != 0 {
		err = unix.MountSetattr(descriptor(a.source), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: o.recursive})
	}
	return err
}

// unmapped is the id that a container sees of what is not in its range.
const unmapped = 65534

// slaveTree is the propagation of what the configuration says nothing about.
const slaveTree = unix.MS_SLAVE | unix.MS_REC

// setPropagation sets that of a detached mount.
func setPropagation(mount *os.File, propagation uintptr) error {
	at := uint(unix.AT_EMPTY_PATH)
	if propagation&unix.MS_REC != 0 {
		at |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(descriptor(mount), "", at, &unix.MountAttr{Propagation: uint64(propagation &^ unix.MS_REC)})
}

// sysMount leaves sysfs to the child where it owns its network namespace; else the host's is shown.
func (l *layout) sysMount(a *attachment, o mountOptions) (err error) {
	if l.ns.ownsNetwork() {
		a.fstype = "sysfs"
		if !l.ns.rights.nested {
			return nil
		}
	}
	host, err := bindHost("/sys", o.set)
	if a.fstype == "" {
		a.source = host
	} else {
		a.instead = l.held.keep(host)
	}
	return err
}

// cgroupMounts shows the container its own control group, by binds of its directories, at the place of the spec's cgroup mount.
func (l *layout) cgroupMounts(at string, o mountOptions) error {
	if l.group == nil || !cgroup.Exists(l.group) {
		return nil
	}
	dirs := l.group.Dirs()
	if dir, ok := dirs[""]; ok && len(dirs) == 1 { // pure cgroup v2
		source, err := rootfs.Bind(dir, rootfs.BindOptions{Set: o.set})
		if err != nil {
			return err
		}
		return l.place(&attachment{source: source, isDir: true}, at)
	}
	tmpfs, err := l.newFilesystem("tmpfs", l.ownedBy([]string{"mode=755", "uid=0", "gid=0", "size=64k"}), mountOptions{set: o.set &^ unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return err
	}
	parent := &attachment{source: tmpfs, isDir: true, late: o.set&unix.MOUNT_ATTR_RDONLY != 0}
	if err := l.place(parent, at); err != nil {
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
		if err := l.place(&attachment{source: source, isDir: true}, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

// place opens the place where a mount goes, in the topmost mount so far that it lies in.
func (l *layout) place(a *attachment, destination string) error {
	l.held.keep(a.source)
	dir, name := l.find(a, destination)
	if err := l.sparesProc(a); err != nil {
		return err
	}
	if dir == nil {
		l.mounts = append(l.mounts, a)
		return nil // the child resolves it below its own file system
	}
	return l.placeIn(a, dir, name)
}

// find says in which detached mount a destination lies, and where there; nil where only the child can look.
func (l *layout) find(a *attachment, destination string) (dir *os.File, name string) {
	a.at = canonical(l.root, destination)
	for i := len(l.mounts) - 1; i >= 0; i-- {
		below := l.mounts[i]
		rest, ok := within(a.at, below.at)
		if !ok {
			continue
		}
		a.parent, a.rest = below, rest
		if below.source == nil {
			return nil, ""
		}
		a.at = path.Join(below.at, canonical(below.source, rest))
		rest, _ = within(a.at, below.at)
		return below.source, "/" + strings.TrimPrefix(rest, "/")
	}
	return l.root, a.at
}

func (l *layout) placeIn(a *attachment, dir *os.File, name string) (err error) {
	if a.target, err = l.target(dir, name, a.isDir); err != nil {
		return err
	}
	l.held.keep(a.target)
	var st unix.Stat_t
	if err := unix.Fstat(descriptor(a.target), &st); err != nil {
		return err
	}
	if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != a.isDir {
		kinds := map[bool]string{true: "a folder", false: "a file"}
		return fmt.Errorf("%s in the container is %s and what is mounted there is %s: mount one over its like: %w", a.at, kinds[isDir], kinds[a.isDir], unix.ENOTDIR)
	}
	l.mounts = append(l.mounts, a)
	return nil
}

// copyUp fills a fresh tmpfs with what the image has at its place ("tmpcopyup").
func (l *layout) copyUp(a *attachment, destination string) error {
	if a.target == nil || a.source == nil {
		return fmt.Errorf("%s: tmpcopyup works only on a tmpfs over the root file system", destination)
	}
	from, err := openIn(l.root, strings.TrimPrefix(a.at, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	return copyTree(from, a.source)
}
