package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

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

	propagation uintptr  // MS_SHARED, …; 0: as it is
	late        bool     // made read-only when all is in it
	data        []string // options of a file system that the child makes
	made        bool     // the file system is this container's own
}

// layout is a container's tree of file systems, made detached, with the places where they go.
type layout struct {
	bundle string
	spec   *specs.Spec
	ns     *namespaces
	group  func() (*cgroup.Group, error)
	held   *held

	root         *os.File // the detached root file system
	parts        held     // of which it was made: to be closed when nobody waits any more
	rootReadOnly bool     // a mount of the configuration says so
	mounts       []*attachment
	devices      *os.File   // the /dev tmpfs
	null         *os.File   // a folder with a null device of ours
	aside        []*os.File // attached outside of the root, for parts of them
	ptys
	warnings []string
}

// ptys are the container's terminals.
type ptys struct {
	devpts    *os.File
	terminals *specs.Mount // what devpts is mounted by
	console   *os.File     // the terminal's master side
	slave     *os.File
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
	return finish(l.mounts)
}

// finish makes read-only what had to be written to until now.
func finish(mounts []*attachment) error {
	for _, a := range mounts {
		if !a.late {
			continue
		}
		if err := setAttributes(a.source, attributeChange{set: unix.MOUNT_ATTR_RDONLY}, 0); err != nil {
			return fmt.Errorf("make %s read-only: %w", a.at, err)
		}
	}
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
	if err := checkOrdinary(l.root, m); err != nil {
		return err
	}
	o := parseMountOptions(m.Options)
	o.source = m.Source
	if !isBind(m.Type, o) && !o.remount { // a tree of one
		o.change(o.tree)
		o.tree = attributeChange{}
	}
	a := &attachment{isDir: true, propagation: o.propagation, flags: int(o.set)}
	var err error
	switch {
	case o.remount:
		return l.remount(m, o)
	case isBind(m.Type, o):
		if done, err := l.bindMount(a, m, o); done || err != nil {
			return err
		}
	case m.Type == "proc" && !l.ns.ownsProcesses():
		a.source, err = bindHost("/proc", o.set)
	case m.Type == "proc", m.Type == "mqueue":
		a.fstype, a.optional, a.data = m.Type, m.Type == "mqueue", o.data
	case m.Type == "sysfs":
		a.data = o.data
		err = l.sysMount(a, o)
	case m.Type == "cgroup", m.Type == "cgroup2":
		return l.cgroupMounts(m.Destination, o)
	case m.Type == "devpts":
		a.made = true
		if l.devpts != nil && m == l.terminals {
			a.source, err = dup(l.devpts)
		} else {
			a.source, err = l.newFilesystem("devpts", l.ownedBy(slices.DeleteFunc(o.data, func(d string) bool { return d == "newinstance" })), o)
		}
	default:
		err = l.makeFilesystem(a, m, o)
	}
	if err != nil {
		return err
	}
	if err := l.finishMount(a, m, o); err != nil {
		return err
	}
	if o.links.targetLink {
		return placeOverLink(l, a, m.Destination)
	}
	if err := l.place(a, m.Destination); err != nil {
		return err
	}
	if o.copyUp {
		return l.copyUp(a, m.Destination)
	}
	return nil
}

// makeFilesystem makes one that belongs to no namespace. A tmpfs becomes read-only when it has been filled; a disk's is so as a whole.
func (l *layout) makeFilesystem(a *attachment, m *specs.Mount, o mountOptions) (err error) {
	data := o.data
	readOnly := o.set&unix.MOUNT_ATTR_RDONLY != 0
	switch {
	case m.Type == "tmpfs":
		if l.ns.ids.Size > 0 {
			data = l.ownedBy(append([]string{"uid=0", "gid=0"}, data...))
		}
		data = append(modeOf(l.find(&attachment{isDir: true}, m.Destination)), data...)
		a.late = readOnly
		o.set &^= unix.MOUNT_ATTR_RDONLY
	case readOnly:
		data = append(slices.Clone(data), "ro")
	}
	a.made = true
	a.source, err = l.newFilesystem(m.Type, data, o)
	return err
}

// modeOf has a tmpfs take the mode of the folder that it covers, unless its own options say another.
func modeOf(dir *os.File, name string) []string {
	if dir == nil {
		return nil
	}
	f, err := openIn(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(descriptor(f), &st); err != nil {
		return nil
	}
	return []string{"mode=" + strconv.FormatUint(uint64(st.Mode&0o7777), 8)}
}

// checkOrdinary refuses an image that has a link in the place of /proc or /sys: what is trusted of them would be looked for elsewhere.
func checkOrdinary(root *os.File, m *specs.Mount) error {
	if m.Type != "proc" && m.Type != "sysfs" {
		return nil
	}
	f, err := openIn(root, m.Destination, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open it in the root file system: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.IsDir() {
		return errors.Join(fmt.Errorf("filesystem %q must be mounted on ordinary directory: the image has something else there", m.Type), err)
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
	var layers held
	defer layers.close()
	if fstype == "overlay" {
		if data, err = layOverlay(fs, data, &layers); err != nil {
			return nil, err
		}
	}
	if err := configure(fs, data); err != nil {
		return nil, fmt.Errorf("file system %q: %w", fstype, err)
	}
	if label := mountContext(l.spec, fstype); label != "" {
		if err := unix.FsconfigSetString(fs, "context", label); err != nil {
			return nil, fmt.Errorf("linux.mountLabel %s on a %s: %w", label, fstype, err)
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

// slaveTree is the propagation of what the configuration says nothing about.
const slaveTree = unix.MS_SLAVE | unix.MS_REC

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
	group, err := l.group()
	if err != nil || group == nil || !cgroup.Exists(group) {
		return nil // of the error the step tells that waits for the group
	}
	dirs := group.Dirs()
	if dir, ok := dirs[""]; ok && len(dirs) == 1 { // pure cgroup v2
		source, err := rootfs.Bind(dir, rootfs.BindOptions{Set: o.set})
		if err != nil {
			return err
		}
		return l.place(&attachment{source: source, isDir: true}, at)
	}
	tmpfs, err := l.newFilesystem("tmpfs", l.ownedBy([]string{"mode=755", "uid=0", "gid=0", "size=64k"}), mountOptions{attributeChange: attributeChange{set: o.set &^ unix.MOUNT_ATTR_RDONLY}})
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
		if err := l.placeIn(&attachment{source: l.held.keep(source), isDir: true, at: path.Join(parent.at, name)}, tmpfs, "/"+name); err != nil {
			return err // our own tmpfs: nothing has to be looked for
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
	return put(l, a)
}

// put notes a mount whose place is open.
func put(l *layout, a *attachment) error {
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
