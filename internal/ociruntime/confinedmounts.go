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
)

// mounted is a line of mountinfo (proc_pid_mountinfo(5)).
type mounted struct {
	id     uint64
	part   string // of its file system: what is mounted
	at     string
	flags  []string
	fstype string
}

func parseMountinfo(text string) (list []mounted, err error) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(kind) < 1 {
			return nil, fmt.Errorf("a line of mountinfo has an unknown form: %q", line)
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("a line of mountinfo has an unknown form: %q", line)
		}
		list = append(list, mounted{id, unescape(f[3]), unescape(f[4]), strings.Split(f[5], ","), kind[0]})
	}
	return list, nil
}

// unescape reads the octal numbers that stand for blanks and the like.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

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
	list, err := parseMountinfo(string(text))
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
			return fmt.Errorf("the mount on %s: %w", m.at, err)
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
	list     []mounted
}

func (t mountTable) allowed(m mounted) error {
	l := t.spec.Linux
	if m.at == "/" {
		return t.same("/", t.rootPath)
	}
	for i := len(t.spec.Mounts) - 1; i >= 0; i-- {
		s := t.spec.Mounts[i]
		if rest, ok := within(m.at, canonical(t.root, s.Destination)); ok && (rest == "/" || s.Type == "cgroup" || slices.Contains(s.Options, "rbind")) {
			return t.as(m, s, rest)
		}
	}
	switch {
	case slices.Contains(l.MaskedPaths, m.at) && m.fstype == "tmpfs", slices.Contains(l.ReadonlyPaths, m.at) && slices.Contains(m.flags, "ro"):
		return nil
	case capabilitySets(t.spec.Process.Capabilities).bounding&(1<<unix.CAP_SYS_ADMIN) != 0:
		return t.nodes(m)
	}
	return fmt.Errorf("the configuration does not have it (a %s)", m.fstype)
}

// as compares a mount with the configuration's, or, with the rest of its path, one below: of a tree of the host's each must be the host's.
func (t mountTable) as(m mounted, s specs.Mount, rest string) error {
	o := parseMountOptions(s.Options)
	switch {
	case o.bind || o.rbind || s.Type == "bind":
		source := s.Source
		if !path.IsAbs(source) {
			source = path.Join(t.bundle, source)
		}
		if err := t.same(m.at, path.Join(source, rest)); err != nil {
			return err
		}
	case s.Type == "cgroup" || s.Type == "cgroup2":
		if _, ok := within(m.part, t.group); m.fstype != "tmpfs" && (!strings.HasPrefix(m.fstype, "cgroup") || !ok) {
			return fmt.Errorf("it shows %s of a %s, not control group %s", m.part, m.fstype, t.group)
		}
	case m.fstype != s.Type:
		return fmt.Errorf("it is a %s, not a %s", m.fstype, s.Type)
	}
	for attr, flag := range map[uint64]string{unix.MOUNT_ATTR_RDONLY: "ro", unix.MOUNT_ATTR_NOSUID: "nosuid", unix.MOUNT_ATTR_NODEV: "nodev", unix.MOUNT_ATTR_NOEXEC: "noexec"} {
		if o.set&attr != 0 && !slices.Contains(m.flags, flag) {
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
func (t mountTable) nodes(m mounted) error {
	if m.fstype != "tmpfs" || slices.Contains(m.flags, "nodev") || capabilitySets(t.spec.Process.Capabilities).bounding&(1<<unix.CAP_MKNOD) != 0 {
		return nil
	}
	known := map[uint64]bool{unix.Mkdev(5, 2): true} // ptmx
	for _, d := range append(defaultDevices(), t.spec.Linux.Devices...) {
		known[unix.Mkdev(uint32(d.Major), uint32(d.Minor))] = true
	}
	dir, err := openIn(t.root, m.at, unix.O_PATH)
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
			return fmt.Errorf("it has the device %s (%d:%d), which the configuration does not give", path.Join(m.at, name), major, unix.Minor(st.Rdev))
		}
		return nil
	})
}

// protects: every path that is to be hidden or read-only is, as far as it is there.
func (t mountTable) protects() error {
	for _, name := range t.spec.Linux.MaskedPaths {
		if err := t.covered(name, func(m mounted) bool { return m.fstype == "tmpfs" }); err != nil {
			return err
		}
	}
	for _, name := range t.spec.Linux.ReadonlyPaths {
		hidden := slices.Contains(t.spec.Linux.MaskedPaths, name)
		if err := t.covered(name, func(m mounted) bool { return slices.Contains(m.flags, "ro") || hidden && m.fstype == "tmpfs" }); err != nil {
			return err
		}
	}
	return nil
}

// covered says that what is seen at a path lies on a mount of its own that is as it has to be: one below another that was mounted over it
// protects nothing.
func (t mountTable) covered(name string, how func(mounted) bool) error {
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
		if m.id == st.Mnt_id && m.at == at && how(m) {
			return nil
		}
	}
	return fmt.Errorf("%s is not protected as the configuration says", name)
}
