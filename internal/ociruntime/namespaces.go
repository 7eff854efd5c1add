package ociruntime

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// namespaces are those that a container gets.
type namespaces struct {
	create uint64 // CLONE_NEW* of those to make
	joined []joinedNamespace
	user   *os.File     // made or joined; nil: the host's
	net    *os.File     // made ahead, and joined as the container's own
	ids    rootfs.IDMap // how ids inside are written to file systems that this process makes
	rights rights       // of this process
}

// joinedNamespace is one that the spec names by path.
type joinedNamespace struct {
	kind int // CLONE_NEW*
	name string
	file *os.File
}

var namespaceFlags = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.MountNamespace: unix.CLONE_NEWNS,
	specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS, specs.UserNamespace: unix.CLONE_NEWUSER,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP, specs.TimeNamespace: unix.CLONE_NEWTIME,
}

// open sorts the namespaces of a configuration and opens those to join.
func (n *namespaces) open(list []specs.LinuxNamespace, h *held) error {
	for _, ns := range list {
		flag, ok := namespaceFlags[ns.Type]
		if !ok {
			return fmt.Errorf("namespace %q is not one of Linux's", ns.Type)
		}
		if n.create&uint64(flag) != 0 || n.joins(flag) {
			return fmt.Errorf("the configuration names the %s namespace twice", ns.Type)
		}
		if ns.Path == "" {
			n.create |= uint64(flag)
			continue
		}
		f, err := os.Open(ns.Path)
		if err != nil {
			return fmt.Errorf("%s namespace: %w", ns.Type, err)
		}
		h.keep(f)
		kind, err := unix.IoctlRetInt(descriptor(f), unix.NS_GET_NSTYPE)
		if err != nil || kind != flag {
			return fmt.Errorf("%s is not a %s namespace", ns.Path, ns.Type)
		}
		n.joined = append(n.joined, joinedNamespace{kind: flag, name: string(ns.Type), file: f})
	}
	return n.checkMount()
}

// checkMount refuses the namespace of this process by path: the root of all who live there would be moved.
func (n *namespaces) checkMount() error {
	own, err := os.Stat("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	for _, j := range n.joined {
		if fi, err := j.file.Stat(); err != nil || j.kind == unix.CLONE_NEWNS && os.SameFile(own, fi) {
			return errors.Join(errors.New("the mount namespace to join is the runtime's own: leave its path out, or name another"), err)
		}
	}
	return nil
}

// sharesMounts says that the container lives in this process's mount namespace: its root is then a tree of mounts that no namespace has,
// so nothing of it shows on the host.
func (n *namespaces) sharesMounts() bool { return !n.has(unix.CLONE_NEWNS) }

func (n *namespaces) joins(kind int) bool {
	for _, j := range n.joined {
		if j.kind == kind {
			return true
		}
	}
	return false
}

// has says that the container has a namespace of the kind that is not this process's.
func (n *namespaces) has(kind int) bool { return n.create&uint64(kind) != 0 || n.joins(kind) }

// makeUser makes the user namespace, or takes the one to join.
func (n *namespaces) makeUser(l *specs.Linux) (err error) {
	if !n.has(unix.CLONE_NEWUSER) {
		n.ids = n.rights.ids // of the user namespace that this process is in itself
		return nil
	}
	n.ids = idsOf(l.UIDMappings)
	for _, j := range n.joined {
		if j.kind != unix.CLONE_NEWUSER {
			continue
		}
		if n.user, err = dup(j.file); err != nil || len(l.UIDMappings) > 0 {
			return err
		}
		uids, _, err := sysprog.Mappings(n.user)
		if err == nil && len(uids) > 0 {
			n.ids = rootfs.IDMap{Base: uids[0].Outside, Size: uids[0].Count}
		}
		return err
	}
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return errors.New("a user namespace is asked for, but no ids are mapped into it (linux.uidMappings, gidMappings)")
	}
	n.user, err = sysprog.UserNamespace(mappings(l.UIDMappings), mappings(l.GIDMappings))
	return err
}

// idsOf is the first range of a map, with those that go on where it ends, inside and outside.
func idsOf(maps []specs.LinuxIDMapping) (ids rootfs.IDMap) {
	maps = slices.Clone(maps)
	slices.SortFunc(maps, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	for i, m := range maps {
		if i == 0 {
			ids = rootfs.IDMap{Base: m.HostID, Size: m.Size}
		} else if m.ContainerID == maps[0].ContainerID+ids.Size && m.HostID == ids.Base+ids.Size {
			ids.Size += m.Size
		}
	}
	return ids
}

func mappings(list []specs.LinuxIDMapping) []sysprog.Mapping {
	out := make([]sysprog.Mapping, 0, len(list))
	for _, m := range list {
		out = append(out, sysprog.Mapping{Inside: m.ContainerID, Outside: m.HostID, Count: m.Size})
	}
	return out
}

// held are files that stay open until the child no longer needs them.
type held struct{ files []*os.File }

func (h *held) keep(f *os.File) *os.File {
	if f != nil {
		h.files = append(h.files, f)
	}
	return f
}

func (h *held) close() {
	for _, f := range h.files {
		f.Close()
	}
	h.files = nil
}
