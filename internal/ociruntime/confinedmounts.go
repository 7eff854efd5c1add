package ociruntime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// confinedMounts compares a process's mounts with a configuration: there is none that it does not name, each is of its kind and as
// restricted as it says, and what it hides and protects is hidden and protected. Who may mount (CAP_SYS_ADMIN) may have more.
func confinedMounts(o OpenOptions) error {
	if !names(o.Spec, specs.MountNamespace) {
		return errors.New("it has no mount namespace of its own: nothing can be said of its mounts")
	}
	text, err := os.ReadFile(procOf(o.Pid) + "/mountinfo")
	if err != nil {
		return err
	}
	list, err := mountinfo.Parse(string(text))
	if err != nil {
		return err
	}
	root, err := os.OpenFile(procOf(o.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	t := mountTable{spec: o.Spec, bundle: o.State.Bundle, root: root, rootPath: o.RootPath, group: o.Cgroup.Path(), list: list}
	for _, m := range list {
		if err := t.allowed(m); err != nil {
			return fmt.Errorf("the mount on %s: %w", m.At, err)
		}
	}
	return t.protects()
}

// mountTable is a container's mounts beside its configuration.
type mountTable struct {
	spec     *specs.Spec
	bundle   string // where relative sources begin
	root     *os.File
	rootPath string
	group    string
	list     []mountinfo.Mount
}

func (t mountTable) allowed(m mountinfo.Mount) error {
	l := t.spec.Linux
	if m.At == "/" {
		return t.same("/", t.rootPath)
	}
	for i := len(t.spec.Mounts) - 1; i >= 0; i-- {
		s := t.spec.Mounts[i]
		if rest, ok := within(m.At, canonical(t.root, s.Destination)); ok && (rest == "/" || s.Type == "cgroup" || slices.Contains(s.Options, "rbind")) {
			return t.as(m, s, rest)
		}
	}
	switch {
	case slices.Contains(l.MaskedPaths, m.At) && m.Type == "tmpfs", slices.Contains(l.ReadonlyPaths, m.At) && slices.Contains(m.Flags, "ro"):
		return nil
	case capabilitySets(t.spec.Process.Capabilities).bounding&(1<<unix.CAP_SYS_ADMIN) != 0:
		return t.nodes(m)
	}
	return fmt.Errorf("the configuration does not have it (a %s)", m.Type)
}

// as compares a mount with the configuration's, or, with the rest of its path, one below: of a tree of the host's each must be the host's.
func (t mountTable) as(m mountinfo.Mount, s specs.Mount, rest string) error {
	o := parseMountOptions(s.Options)
	switch {
	case o.bind || o.rbind || s.Type == "bind":
		source := s.Source
		if !path.IsAbs(source) {
			source = path.Join(t.bundle, source)
		}
		if err := t.same(m.At, path.Join(source, rest)); err != nil {
			return err
		}
	case s.Type == "cgroup" || s.Type == "cgroup2":
		if _, ok := within(m.Part, t.group); m.Type != "tmpfs" && (!strings.HasPrefix(m.Type, "cgroup") || !ok) {
			return fmt.Errorf("it shows %s of a %s, not control group %s", m.Part, m.Type, t.group)
		}
	case m.Type != s.Type:
		return fmt.Errorf("it is a %s, not a %s", m.Type, s.Type)
	}
	for attr, flag := range map[uint64]string{unix.MOUNT_ATTR_RDONLY: "ro", unix.MOUNT_ATTR_NOSUID: "nosuid", unix.MOUNT_ATTR_NODEV: "nodev", unix.MOUNT_ATTR_NOEXEC: "noexec"} {
		if o.set&attr != 0 && !slices.Contains(m.Flags, flag) {
			return fmt.Errorf("it lacks the option %s", flag)
		}
	}
	return t.nodes(m)
}

// same compares a file of the container with one of the host.
func (t mountTable) same(inside, outside string) error {
	f, err := openIn(t.root, inside, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := f.Stat()
	if err != nil {
		return err
	}
	if b, err := os.Stat(outside); err != nil || !os.SameFile(a, b) {
		return errors.Join(fmt.Errorf("it is not the host's %s", outside), err)
	}
	return nil
}

// nodes looks for device nodes on a file system of the archive's making that the configuration does not have.
func (t mountTable) nodes(m mountinfo.Mount) error {
	if m.Type != "tmpfs" || slices.Contains(m.Flags, "nodev") || capabilitySets(t.spec.Process.Capabilities).bounding&(1<<unix.CAP_MKNOD) != 0 {
		return nil
	}
	known := map[uint64]bool{unix.Mkdev(5, 2): true} // ptmx
	for _, d := range append(defaultDevices(), t.spec.Linux.Devices...) {
		known[unix.Mkdev(uint32(d.Major), uint32(d.Minor))] = true
	}
	dir, err := openIn(t.root, m.At, unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	return fs.WalkDir(os.DirFS("/proc/self/fd/"+strconv.Itoa(descriptor(dir))), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeDevice == 0 {
			return nil //nolint:nilerr // what cannot be read here is not a device that can be opened there
		}
		var st unix.Stat_t
		if err := unix.Fstatat(descriptor(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if major := unix.Major(st.Rdev); !known[st.Rdev] && major != 136 { // terminals
			return fmt.Errorf("it has the device %s (%d:%d), which the configuration does not give", path.Join(m.At, name), major, unix.Minor(st.Rdev))
		}
		return nil
	})
}

// protects: every path that is to be hidden or read-only is, as far as it is there.
func (t mountTable) protects() error {
	for _, name := range t.spec.Linux.MaskedPaths {
		if err := t.covered(name, func(m mountinfo.Mount) bool { return m.Type == "tmpfs" }); err != nil {
			return err
		}
	}
	for _, name := range t.spec.Linux.ReadonlyPaths {
		hidden := slices.Contains(t.spec.Linux.MaskedPaths, name)
		if err := t.covered(name, func(m mountinfo.Mount) bool { return slices.Contains(m.Flags, "ro") || hidden && m.Type == "tmpfs" }); err != nil {
			return err
		}
	}
	return nil
}

// covered says that what is seen at a path lies on a mount of its own that is as it has to be: one below another that was mounted over it
// protects nothing.
func (t mountTable) covered(name string, how func(mountinfo.Mount) bool) error {
	f, err := openIn(t.root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil //nolint:nilerr // there is nothing to protect
	}
	defer f.Close()
	var st unix.Statx_t
	if err := unix.Statx(descriptor(f), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return errors.Join(fmt.Errorf("%s: this kernel does not say which mount it is on", name), err)
	}
	at := canonical(t.root, name)
	for _, m := range t.list {
		if m.ID == st.Mnt_id && m.At == at && how(m) {
			return nil
		}
	}
	return fmt.Errorf("%s is not protected as the configuration says", name)
}
