package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/sysprog"
)

// openGroup opens a control group for a child that enters it by itself: the cgroup2 directory for its clone (-1: none), and the files of
// v1's hierarchies.
func openGroup(g *cgroup.Group, h *held) (dir int, entries []*os.File, err error) {
	if g == nil {
		return -1, nil, nil
	}
	dir = -1
	if name, ok := g.Dir(); ok {
		f, err := os.Open(name)
		if err != nil {
			return -1, nil, err
		}
		dir = descriptor(h.keep(f))
	}
	entries, err = g.Entries()
	for _, f := range entries {
		h.keep(f)
	}
	return dir, entries, err
}

// writeEntries has the child enter v1's groups. It moves only itself, which needs no lock against all forks of the machine: a write of
// its pid by the parent would wait for an RCU grace period (8 to 18 ms on an idle machine).
func writeEntries(p *sysprog.Program, entries []*os.File) {
	for _, f := range entries {
		p.Call("enter "+f.Name(), unix.SYS_WRITE, descriptor(f), p.String("0"), 1)
	}
}

// namespaceSysctls are those of the kernel that belong to a namespace, by the namespace.
func namespaceSysctls(key string) (namespace int) {
	switch {
	case strings.HasPrefix(key, "net."):
		return unix.CLONE_NEWNET
	case strings.HasPrefix(key, "fs.mqueue."), slices.Contains([]string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id"}, key):
		return unix.CLONE_NEWIPC
	case key == "kernel.domainname", key == "kernel.hostname":
		return unix.CLONE_NEWUTS
	case strings.HasPrefix(key, "user."):
		return unix.CLONE_NEWUSER
	}
	return 0
}

// checkSysctls refuses what would change the host, or a name that is none.
func checkSysctls(sysctls map[string]string, ns *namespaces) error {
	for key := range sysctls {
		name := strings.ReplaceAll(key, "/", ".")
		kind := namespaceSysctls(name)
		switch {
		case key == "" || strings.Contains(key, "..") || strings.Trim(name, ".") != name || strings.ContainsAny(key, "\x00\n "):
			return fmt.Errorf("sysctl %q is not a name", key)
		case kind == 0:
			return fmt.Errorf("sysctl %q belongs to no namespace: it would change the whole host; set it there", key)
		case !ns.has(kind):
			return fmt.Errorf("sysctl %q would change the host: the container shares the namespace that it belongs to", key)
		}
	}
	return nil
}

// checkNames refuses a name that a sysctl gives the container, and the configuration another.
func checkNames(spec *specs.Spec) error {
	for key, value := range spec.Linux.Sysctl {
		field, given := "hostname", spec.Hostname
		switch strings.ReplaceAll(key, "/", ".") {
		case "kernel.hostname":
		case "kernel.domainname":
			field, given = "domainname", spec.Domainname
		default:
			continue
		}
		if given != "" && given != value {
			return fmt.Errorf("sysctl %q is %q, and %s is %q: leave one of them out", key, value, field, given)
		}
	}
	return nil
}

// The names of the steps that set a sysctl, without the sysctl.
const (
	openSysctl = "open sysctl "
	setSysctl  = "set sysctl "
)

// sysctls are written below the child's own procfs: nothing that the configuration mounts over it gets a byte of them.
func (w *writer) sysctls() error {
	list := w.s.spec.Linux.Sysctl
	if len(list) == 0 {
		return nil
	}
	if w.proc == 0 {
		return errors.New("sysctls are asked for, but the configuration mounts no procfs")
	}
	for key, value := range list {
		file := "sys/" + strings.ReplaceAll(key, ".", "/")
		how := w.Bytes(openHow(unix.O_WRONLY|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV))
		fd := w.Store(w.Call(openSysctl+key, unix.SYS_OPENAT2, w.proc, w.String(file), how, openHowSize))
		w.Call(setSysctl+key+" to "+value, unix.SYS_WRITE, fd, w.String(value), len(value))
		w.Call("close sysctl "+key, unix.SYS_CLOSE, fd)
	}
	return nil
}

// protectedPaths are hidden or write-protected. Those below /proc are resolved from the child's own procfs; others inside the root.
func (w *writer) protectedPaths() error {
	for _, name := range w.s.spec.Linux.ReadonlyPaths {
		w.readOnlyPath(name)
	}
	masked, empty := map[string]bool{}, w.Word(0)
	for _, name := range w.s.spec.Linux.MaskedPaths {
		if name = path.Clean("/" + name); !masked[name] {
			masked[name] = true
			w.mask(name, empty)
		}
	}
	return nil
}

func (w *writer) readOnlyPath(name string) {
	dir, rest := w.protectedAt(name)
	how := w.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, inRoot))
	open := w.Call("find "+name, unix.SYS_OPENAT2, dir, w.String(rest), how, openHowSize)
	at := w.Store(open)
	tree := w.Store(w.Call("clone "+name, unix.SYS_OPEN_TREE, at, w.none, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE))
	w.Call("make "+name+" read-only", unix.SYS_MOUNT_SETATTR, tree, w.none, unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, w.Bytes(mountAttr(unix.MOUNT_ATTR_RDONLY)), mountAttrSize)
	w.Call("attach "+name, unix.SYS_MOVE_MOUNT, tree, w.none, at, w.none, moveByDescriptors)
	w.Tolerate(open, w.Len()-int(open)-1, unix.ENOENT, unix.ENOTDIR)
}

// mask covers a directory with an empty read-only tmpfs, the same one for all, and anything else with the container's own /dev/null. Engines
// mask a directory for each processor: a file system each would take as long to make, and to end, as all the rest of the mounts.
func (w *writer) mask(name string, empty sysprog.Word) {
	dir, rest := w.protectedAt(name)
	how := w.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_DIRECTORY, inRoot))
	asDir := w.Call("find "+name, unix.SYS_OPENAT2, dir, w.String(rest), how, openHowSize)
	w.maskDirectory(name, w.Store(asDir), empty)
	done := w.JumpIfEqual(w.Word(1), 1, 3) // over the three operations for a file
	w.Tolerate(asDir, int(done)-int(asDir), unix.ENOTDIR, unix.ENOENT)

	how = w.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, inRoot))
	asFile := w.Call("find "+name, unix.SYS_OPENAT2, dir, w.String(rest), how, openHowSize)
	file := w.Store(asFile)
	w.Tolerate(asFile, 2, unix.ENOENT, unix.ENOTDIR)
	devices := descriptor(w.s.layout.null)
	null := w.Store(w.Call("clone /dev/null", unix.SYS_OPEN_TREE, devices, w.String("null"), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW))
	w.Call("mask "+name, unix.SYS_MOVE_MOUNT, null, w.none, file, w.none, moveByDescriptors)
}

// maskDirectory makes the tmpfs for the first directory that is there, and clones it for the others (only what is attached can be cloned).
func (w *writer) maskDirectory(name string, at, empty sysprog.Word) {
	w.JumpIfEqual(empty, 0, 3)
	clone := w.Store(w.Call("clone the mask", unix.SYS_OPEN_TREE, empty, w.none, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH))
	w.Call("mask "+name, unix.SYS_MOVE_MOUNT, clone, w.none, at, w.none, moveByDescriptors)
	w.JumpIfEqual(w.Word(1), 1, 4) // over the four operations for the first
	fs := w.Store(w.Call("open a mask", unix.SYS_FSOPEN, w.String("tmpfs"), unix.FSOPEN_CLOEXEC))
	w.Call("make a mask", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, nil, nil, 0)
	flags := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	w.Store(w.Call("mount a mask", unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, flags), empty)
	w.Call("mask "+name, unix.SYS_MOVE_MOUNT, empty, w.none, at, w.none, moveByDescriptors)
}

// protectedAt says below which descriptor a path to protect is resolved.
func (w *writer) protectedAt(name string) (dir any, rest string) {
	if rest, ok := within(path.Clean("/"+name), "/proc"); ok && rest != "/" && w.proc != 0 {
		return w.proc, rest
	}
	return descriptor(w.s.layout.root), strings.TrimPrefix(path.Clean("/"+name), "/")
}
