package ociruntime

import (
	"context"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// markExecute is passed right before the execve.
const markExecute = 7

// moveByDescriptors: both ends of a move_mount(2) are descriptors.
const moveByDescriptors = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH

// here is the working directory as an argument of openat2(2) and the like.
const here = unix.AT_FDCWD & 0xffffffff

// writer writes what the child does between its clone and the user's program.
type writer struct {
	*sysprog.Program
	s    *start
	none uintptr      // an empty string
	proc sysprog.Word // the child's procfs
	root any          // what the pivot makes the root
	pp   processProgram

	entries []*os.File // of v1's control groups
}

func (s *start) writeProgram(context.Context) error {
	if err := s.openPipes(); err != nil {
		return err
	}
	var err error
	if s.filter, err = filterOf(s.spec, s.o.Filter, s.state(specs.StateRunning)); err != nil {
		return err
	}
	if s.program, err = s.ns.newProgram(s.programSize() + len(s.filter.code)); err != nil {
		return err
	}
	if s.o.Measure {
		s.clock = sysprog.NewClock(s.program)
	}
	w := &writer{Program: s.program, s: s, none: s.program.String("")}
	w.pp = processProgram{process: s.ownEnvironment(), terminal: s.layout.slave, filter: s.filter, keyring: !s.o.NoNewKeyring, preserve: s.o.PreserveFDs}
	w.pp.noGroups, w.pp.tells = s.ns.rights.noGroups || s.o.KeepGroups, s.o.Gate != nil
	if w.pp.stdio, err = s.stdio(); err != nil {
		return err
	}
	if w.pp.rlimits, err = rlimitsOf(s.spec.Process.Rlimits); err != nil {
		return err
	}
	s.layout.warnings = append(s.layout.warnings, s.ns.rights.lessThan(w.pp.rlimits)...)
	for _, st := range stages() {
		s.clock.Begin(st.name)
		if err := st.write(w); err != nil {
			return err
		}
	}
	return nil
}

// programSize bounds the strings and structures of the program, and the operations for what the configuration has lists of.
func (s *start) programSize() int {
	size := 96<<10 + 4*len(s.spec.Process.User.AdditionalGids)
	for _, list := range [][]string{s.spec.Process.Args, s.spec.Process.Env} {
		for _, str := range list {
			size += len(str) + 64
		}
	}
	for _, list := range [][]string{s.spec.Linux.MaskedPaths, s.spec.Linux.ReadonlyPaths} {
		for _, name := range list {
			size += 2*len(name) + 256 + 16*sysprog.OpSize
		}
	}
	for key, value := range s.spec.Linux.Sysctl {
		size += len(key) + len(value) + 128 + 4*sysprog.OpSize
	}
	for _, m := range s.spec.Mounts {
		size += 512 + (8+len(m.Options))*sysprog.OpSize
	}
	return size + len(s.spec.Process.Args[0])*64
}

func (s *start) openPipes() error {
	var err error
	if s.fromParent, s.toChild, err = os.Pipe(); err != nil {
		return err
	}
	s.held.keep(s.fromParent)
	if !awaitsReady(s) && !s.awaitsMounts() {
		return nil
	}
	if s.fromChild, s.toParent, err = os.Pipe(); err != nil {
		return err
	}
	s.held.keep(s.toParent)
	return nil
}

// raise does what wants the rights from before all namespaces.
func (w *writer) raise() error {
	writeRaise(w.Program, w.pp.rlimits)
	w.s.attributes.writeEarly(w.Program)
	return nil
}

// clone: what is not joined is made new, owned by the container's user namespace.
func (w *writer) clone() error {
	s := w.s
	flags := s.ns.create&^(unix.CLONE_NEWUSER|unix.CLONE_NEWCGROUP|unix.CLONE_NEWTIME) | s.ns.forkFlags()
	dir, entries, err := openGroup(s.grouping.group, &s.held)
	if err != nil {
		return err
	}
	w.entries = entries
	w.Fork("clone into the new namespaces", flags, dir)
	return nil
}

// enterGroups is the first thing that the container's process does: whatever it takes from then on is counted there.
func (w *writer) enterGroups() error {
	s := w.s
	writeEntries(w.Program, w.entries)
	labels, err := labelsOf(s.spec.Process, s.spec.Process)
	if err != nil {
		return err
	}
	if err := writeLabels(w.Program, labels, &s.held); err != nil {
		return err
	}
	s.attributes.writeLate(w.Program)
	w.Call("close the parent's end", unix.SYS_CLOSE, descriptor(s.toChild))
	_ = unix.SetNonblock(descriptor(s.fromParent), false) // the child has no poller
	if s.fromChild != nil {
		w.Call("close the parent's end", unix.SYS_CLOSE, descriptor(s.fromChild))
	}
	return nil
}

// join enters the namespaces that exist. Those of the host, or of others, want the rights from before the user namespace; those that belong
// to it, where this process has no rights, want the ones inside. A mount namespace is entered last: paths lead elsewhere from there on.
func (w *writer) join() error {
	s := w.s
	if isBare(s) { // the rights for that are those from before the user namespace
		w.Call("enter a bare mount namespace", unix.SYS_SETNS, descriptor(s.o.Mounts), unix.CLONE_NEWNS)
	}
	entered := map[int]sysprog.Word{}
	call := func(j joinedNamespace) sysprog.Op {
		return w.Call("join the "+j.name+" namespace", unix.SYS_SETNS, descriptor(j.file), j.kind)
	}
	if s.ns.user != nil {
		for _, j := range s.ns.joined {
			if j.kind != unix.CLONE_NEWUSER && j.kind != unix.CLONE_NEWNS {
				op := call(j)
				w.Tolerate(op, 0, unix.EPERM)
				entered[j.kind] = w.Store(op)
			}
		}
		w.Call("join the user namespace", unix.SYS_SETNS, descriptor(s.ns.user), unix.CLONE_NEWUSER)
	}
	if err := w.makeTime(); err != nil {
		return err
	}
	for _, j := range s.ns.joined {
		if done, ok := entered[j.kind]; ok {
			w.JumpIfEqual(done, 0, 1)
		}
		if j.kind != unix.CLONE_NEWUSER {
			call(j)
		}
	}
	return nil
}

// rootAttached: at the configuration's path, which may be a link.
const rootAttached = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS

// enterRoot attaches the root file system in the new mount namespace, and takes the identity that owns it.
func (w *writer) enterRoot() error {
	s := w.s
	if s.ns.sharesMounts() {
		if s.ns.user != nil {
			writeRootInside(w.Program)
		}
		return nil
	}
	if !isBare(s) {
		w.Call("cut mounts off from the host's", unix.SYS_MOUNT, w.none, w.String("/"), w.none, slaveTree, nil)
	}
	at := s.attachAt()
	for _, f := range s.layout.aside { // below the root, gone with the old root
		w.Call("attach what parts are taken of", unix.SYS_MOVE_MOUNT, descriptor(f), w.none, here, w.String(at), rootAttached)
	}
	w.Call("attach the root file system", unix.SYS_MOVE_MOUNT, descriptor(s.layout.root), w.none, here, w.String(at), rootAttached)
	if s.ns.user == nil {
		return nil
	}
	if s.o.NoPivot { // before the process is somebody who may not go to all of their places
		if err := hideKernel(w); err != nil {
			return err
		}
	}
	writeRootInside(w.Program)
	return nil
}

// attachAt is where the root file system lies until the pivot: where hooks of the creation look for it.
func (s *start) attachAt() string {
	switch {
	case isBare(s):
		return "/"
	case s.o.Rootfs == nil:
		return s.rootPath()
	}
	return rootfs.AttachedAt
}

// order lists a bundle's mounts in the order of the configuration: kernels list them by their age (6.8 and later), and the child's own are
// the youngest. A clone of the tree, mounted over it, makes all anew, depth first; the first tree goes with the old root. The engine's own
// containers do without: nobody reads their order.
func (w *writer) order() error {
	s := w.s
	w.root = descriptor(s.layout.root)
	if s.o.Rootfs != nil || s.ns.sharesMounts() {
		return nil
	}
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	tree := w.Store(w.Call("clone all mounts in their order", unix.SYS_OPEN_TREE, w.root, w.none, flags))
	w.Call("attach the root file system", unix.SYS_MOVE_MOUNT, tree, w.none, w.root, w.none, moveByDescriptors)
	w.root = tree
	how := w.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC, inRoot))
	for _, a := range s.layout.mounts {
		if w.later(a) {
			at := w.Store(w.Call("find "+a.at, unix.SYS_OPENAT2, tree, w.String(strings.TrimPrefix(a.at, "/")), how, openHowSize))
			w.propagate(a, at)
		}
	}
	return nil
}

// later says that a mount's propagation is set when its tree has been cloned: what is unbindable cannot be.
func (w *writer) later(a *attachment) bool {
	return w.s.o.Rootfs == nil && !w.s.ns.sharesMounts() && a.propagation != 0 && a.propagation != slaveTree
}

// propagate sets a mount's propagation.
func (w *writer) propagate(a *attachment, mount any) {
	flags := unix.AT_EMPTY_PATH
	if a.propagation&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	attr := w.Bytes(propagationAttr(uint64(a.propagation &^ unix.MS_REC)))
	w.Call("set propagation of "+a.at, unix.SYS_MOUNT_SETATTR, mount, w.none, flags, attr, mountAttrSize)
}

func writeRootInside(p *sysprog.Program) {
	p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
}

func (w *writer) pivot() error {
	dot := w.String(".")
	w.Call("enter the root file system", unix.SYS_FCHDIR, w.root)
	bare := isBare(w.s)
	if bare {
		coverKernel(w)
	}
	if w.s.ns.sharesMounts() || w.s.o.NoPivot || bare {
		if w.s.o.NoPivot && !w.s.ns.sharesMounts() {
			if err := moveRoot(w); err != nil {
				return err
			}
		}
		w.Call("change the root", unix.SYS_CHROOT, dot)
		w.Call("go to the new root", unix.SYS_CHDIR, w.String("/"))
		w.propagateRoot()
		return nil
	}
	old := w.Store(w.Call("open the old root", unix.SYS_OPENAT, here, w.String("/"), unix.O_PATH|unix.O_CLOEXEC, 0))
	w.Call(pivotStep, unix.SYS_PIVOT_ROOT, dot, dot)
	// By descriptor: "." is the new root. What is unmounted with the old one must not be unmounted on the host.
	slave := w.Bytes(propagationAttr(unix.MS_SLAVE))
	w.Call("cut the old root off", unix.SYS_MOUNT_SETATTR, old, w.none, unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, slave, mountAttrSize)
	w.Call("unmount the old root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	w.Call("go to the new root", unix.SYS_CHDIR, w.String("/"))
	w.propagateRoot()
	return nil
}

const pivotStep = "pivot to the root file system"

// propagateRoot comes last: pivot_root(2) wants parents that are not shared.
func (w *writer) propagateRoot() {
	if want, ok := propagations[w.s.spec.Linux.RootfsPropagation]; ok && !w.s.ns.sharesMounts() {
		w.Call("set the root's propagation", unix.SYS_MOUNT, w.none, w.String("/"), w.none, want&^unix.MS_REC, nil)
	}
}

func (w *writer) names() error {
	if w.s.ns.create&unix.CLONE_NEWUTS == 0 {
		return nil
	}
	if h := w.s.spec.Hostname; h != "" {
		w.Call("set the host name", unix.SYS_SETHOSTNAME, w.String(h), len(h))
	}
	if d := w.s.spec.Domainname; d != "" {
		w.Call("set the domain name", unix.SYS_SETDOMAINNAME, w.String(d), len(d))
	}
	return nil
}

// awaitsReady says that the child is waited for until all is in place: who opens another's gate could not say what went wrong before, and hooks
// of the start join its namespaces.
func awaitsReady(s *start) bool {
	return s.o.Gate != nil || s.spec.Hooks != nil && len(s.spec.Hooks.StartContainer) > 0
}

// isKept: a child that stands at a gate of the caller's outlives this process, so it is let there when the caller has noted it. One with a listener
// has to go on before.
func (s *start) isKept() bool { return s.o.Gate != nil && s.filter.listener == nil }

// streams: all is in place; the process gets what its program will have, and closes the rest.
func (w *writer) streams() error {
	s := w.s
	if s.ns.create&unix.CLONE_NEWCGROUP != 0 {
		w.Call("make the cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	gate := s.fromParent
	if s.o.Gate != nil {
		gate = s.o.Gate
	}
	_ = unix.SetNonblock(descriptor(gate), false)
	w.nameTerminal(w.pp)
	if awaitsReady(s) {
		w.Call("say that all is ready", unix.SYS_WRITE, descriptor(s.toParent), w.String("r"), 1)
	}
	if s.isKept() {
		writeAwait(w.Program, "wait until it is noted", descriptor(s.fromParent))
	}
	w.pp.gate = writeStreams(w.Program, w.pp, gate)
	return nil
}

// await: the gate comes before the rights are taken away, but where somebody must take the filter's listener in between.
func (w *writer) await() error {
	if w.pp.filter.listener == nil {
		writeAwait(w.Program, waitToStart, w.pp.gate)
	}
	return nil
}

func (w *writer) confine() (err error) {
	w.s.listening, err = writeConfinement(w.Program, w.pp)
	return err
}

func (w *writer) execute() error {
	w.s.execs = writeExecute(w.Program, w.pp)
	return nil
}

// nameTerminal opens the terminal again where the container has it: in the mounts that order has cloned. By the first ones its path would
// lead nowhere, and programs that ask for its name would have none. Where that does not work, it stays as it is.
func (w *writer) nameTerminal(pp processProgram) {
	tree, cloned := w.root.(sysprog.Word)
	if pp.terminal == nil || !cloned {
		return
	}
	n, err := terminalNumber(w.s.layout.console)
	if err != nil {
		return
	}
	how := w.Bytes(openHow(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, inRoot|unix.RESOLVE_NO_SYMLINKS))
	open := w.Call("open the terminal in its place", unix.SYS_OPENAT2, tree, w.String("dev/pts/"+strconv.Itoa(int(n))), how, openHowSize)
	w.Call("set the terminal", unix.SYS_DUP3, w.Store(open), descriptor(pp.terminal), unix.O_CLOEXEC)
	w.Tolerate(open, 1, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.EPERM, unix.ENXIO, unix.EIO, unix.ELOOP)
}

// writeAwait reads one byte; the end of the pipe (its writer is gone) ends the child.
func writeAwait(p *sysprog.Program, name string, pipe int) {
	got := p.Store(p.Call(name, unix.SYS_READ, pipe, p.Bytes(make([]byte, 8)), 1))
	p.JumpIfEqual(got, 1, 1)
	p.Fail(name, int(unix.EPIPE))
}

func (s *start) stdio() (Stdio, error) {
	if slave := s.layout.slave; slave != nil {
		return Stdio{slave, slave, slave}, nil
	}
	return fillStdio(s.o.Stdio, s.ns.ids.Host(int(s.spec.Process.User.UID)), s.held.keep)
}
