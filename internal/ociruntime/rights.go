package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
)

// rights say what this process may do, being root of a user namespace other than the machine's: it makes no device nodes, mounts what
// belongs to namespaces that are its own or below, and knows the ids of its own map only. The zero value is the machine's root.
type rights struct {
	nested   bool
	ids      rootfs.IDMap // its ids, as far as they follow one another from 0
	noGroups bool         // setgroups(2) is denied (user_namespaces(7))
}

// machineUsers is what the link of the machine's first user namespace reads (USER_NS_INIT_INO in linux/nsfs.h).
const machineUsers = "user:[4026531837]"

// Nested says whether this process is in a user namespace other than the machine's first one.
func Nested() (bool, error) {
	name, err := os.Readlink("/proc/self/ns/user")
	return name != machineUsers, err
}

func readRights() (rights, error) {
	var r rights
	var err error
	if r.nested, err = Nested(); err != nil || !r.nested {
		return r, err
	}
	maps, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return r, err
	}
	r.ids.Size = countFromZero(string(maps))
	groups, err := os.ReadFile("/proc/self/setgroups")
	r.noGroups = strings.TrimSpace(string(groups)) == "deny"
	return r, err
}

// countFromZero is how many ids from 0 on a map has without a gap.
func countFromZero(idMap string) uint32 {
	var lines [][2]uint64
	for line := range strings.Lines(idMap) {
		if f := strings.Fields(line); len(f) == 3 {
			first, _ := strconv.ParseUint(f[0], 10, 32)
			count, _ := strconv.ParseUint(f[2], 10, 32)
			lines = append(lines, [2]uint64{first, count})
		}
	}
	slices.SortFunc(lines, func(a, b [2]uint64) int { return int(int64(a[0]) - int64(b[0])) })
	var next uint64
	for _, l := range lines {
		if l[0] == next {
			next += l[1]
		}
	}
	return uint32(min(next, 1<<32-1))
}

// checkUser refuses ids of a process that this process cannot give it; the kernel would only say "invalid argument".
func (r rights) checkUser(u specs.User, l *specs.Linux) error {
	if !r.nested {
		return nil
	}
	if len(u.AdditionalGids) > 0 && r.noGroups {
		return errors.New("process.user.additionalGids: a user who maps only himself may not set groups; leave them out, or map subordinate ids (/etc/subuid, /etc/subgid)")
	}
	if slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace && n.Path != "" }) {
		return nil // with maps of its own
	}
	known := func(id uint32, maps []specs.LinuxIDMapping) bool {
		return len(maps) == 0 && id < r.ids.Size || slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size })
	}
	if !known(u.UID, l.UIDMappings) {
		return fmt.Errorf("process.user: user %d is not mapped into the container's user namespace: take one that is, or map more ids", u.UID)
	}
	for _, g := range append([]uint32{u.GID}, u.AdditionalGids...) {
		if !known(g, l.GIDMappings) {
			return fmt.Errorf("process.user: group %d is not mapped into the container's user namespace: take one that is, or map more ids", g)
		}
	}
	return nil
}

// lessThan warns of resource limits that will be lower than asked for.
func (r rights) lessThan(limits []rlimit) (warnings []string) {
	for _, l := range limits {
		if r.nested && l.want.Max > l.own.Max {
			warnings = append(warnings, fmt.Sprintf("process.rlimits: %s is %d and not %d: this user may have no more", l.name, l.own.Max, l.want.Max))
		}
	}
	return warnings
}

// makeDelegated makes the control group where that is permitted, or none.
func (g *grouping) makeDelegated(path string, limits *specs.LinuxResources) error {
	var missing, err error
	g.group, missing, err = cgroup.CreateDelegated(path, limits)
	if missing != nil {
		g.warnings = append(g.warnings, fmt.Sprintf("linux.resources: the container runs without these limits: %v", missing))
	}
	return err
}

// checkEntry refuses a control group that a further process may not enter: outside of it nothing would limit or end that process.
func (r rights) checkEntry(g *cgroup.Group) error {
	if !r.nested || g == nil || !cgroup.Exists(g) || cgroup.MayEnter(g) {
		return nil
	}
	return fmt.Errorf("this process may not move into the container's control group %s: run the command in the service or scope that made the container, "+
		"or in another part of the tree that is delegated to the same user (systemd-run --user --scope …)", g.Path())
}

// ownsNetwork says that the container's processes may mount a sysfs: their network namespace belongs to their user namespace.
func (n *namespaces) ownsNetwork() bool {
	switch {
	case n.create&unix.CLONE_NEWNET != 0, n.net != nil:
		return true
	case n.user == nil:
		return !n.rights.nested || n.joins(unix.CLONE_NEWNET)
	}
	return n.joins(unix.CLONE_NEWUSER) && n.joinsNetworkOf(n.user)
}

// joinsNetworkOf says that the network namespace to join belongs to a user namespace: another container's may be the host's.
func (n *namespaces) joinsNetworkOf(user *os.File) bool {
	own, err := user.Stat()
	if err != nil {
		return false
	}
	for _, j := range n.joined {
		if j.kind != unix.CLONE_NEWNET {
			continue
		}
		fd, err := unix.IoctlRetInt(descriptor(j.file), unix.NS_GET_USERNS)
		if err != nil { // it is none that this process may know of
			return false
		}
		owner := os.NewFile(uintptr(fd), "owner")
		defer owner.Close()
		fi, err := owner.Stat()
		return err == nil && os.SameFile(own, fi)
	}
	return false
}

// ownsProcesses says the same of a procfs and the pid namespace.
func (n *namespaces) ownsProcesses() bool {
	return n.create&unix.CLONE_NEWPID != 0 || n.joins(unix.CLONE_NEWPID) || n.user == nil && !n.rights.nested
}

// bindHost shows a tree of the host's instead of a file system that may not be made.
func bindHost(path string, flags uint64) (*os.File, error) {
	return rootfs.Bind(path, rootfs.BindOptions{Recursive: true, Set: flags})
}

// showDevice shows the host's device where none may be made.
func (l *layout) showDevice(d specs.LinuxDevice) error {
	at := canonical(l.root, d.Path)
	if slices.ContainsFunc(l.mounts, func(m *attachment) bool { return m.at == at }) {
		return nil // the configuration has mounted one itself
	}
	source, err := rootfs.Bind(d.Path, rootfs.BindOptions{})
	if err != nil {
		return fmt.Errorf("device %s: who is not root of the machine can show only devices that the host has at the same path: %w", d.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(descriptor(source), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != deviceTypes[d.Type] || st.Rdev != unix.Mkdev(uint32(d.Major), uint32(d.Minor)) {
		source.Close()
		return fmt.Errorf("device %s: the host has another one at this path, and who is not root of the machine can make none", d.Path)
	}
	return l.place(&attachment{source: source, propagation: slaveTree}, d.Path)
}

// joinable leaves out of kinds (CLONE_NEW*) those namespaces that a process shares with this one: to join them takes rights over them, which
// the root of a user namespace does not have over the host's.
func (r rights) joinable(pid, kinds int) (int, error) {
	if !r.nested {
		return kinds, nil
	}
	for kind, name := range map[int]string{unix.CLONE_NEWNS: "mnt", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWUTS: "uts", unix.CLONE_NEWIPC: "ipc",
		unix.CLONE_NEWNET: "net", unix.CLONE_NEWUSER: "user", unix.CLONE_NEWCGROUP: "cgroup"} {
		if kinds&kind == 0 {
			continue
		}
		theirs, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + name)
		if err != nil {
			return 0, err
		}
		if ours, err := os.Readlink("/proc/self/ns/" + name); err != nil || ours == theirs {
			kinds &^= kind
		}
	}
	return kinds, nil
}
