package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// Marks that the child passes.
const (
	markExecute = 7 // right before the execve
)

// moveByDescriptors: both ends of a move_mount(2) are descriptors.
const moveByDescriptors = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH

// writeProgram writes what the child does between its clone and the user's program.
func (s *start) writeProgram(context.Context) error {
	if err := s.openPipes(); err != nil {
		return err
	}
	filter, err := s.seccompFilter()
	if err != nil {
		return err
	}
	size := 64 << 10
	for _, list := range [][]string{s.spec.Process.Args, s.spec.Process.Env} {
		for _, str := range list {
			size += len(str) + 32
		}
	}
	size += len(filter) + len(s.spec.Process.Args[0])*64
	for _, list := range [][]string{s.spec.Linux.MaskedPaths, s.spec.Linux.ReadonlyPaths} {
		for _, p := range list {
			size += len(p) + 64
		}
	}
	p, err := sysprog.New(size)
	if err != nil {
		return err
	}
	s.program = p
	s.writeClone(p)
	if err := s.writeMounts(p); err != nil {
		return err
	}
	s.writeNames(p)
	if err := s.writeSysctls(p); err != nil {
		return err
	}
	s.writeProtectedPaths(p)
	stdio, err := s.stdio()
	if err != nil {
		return err
	}
	pp := processProgram{process: s.spec.Process, stdio: stdio, terminal: s.slave, filter: filter, keyring: true, preserve: s.o.PreserveFDs}
	s.writeGate(p, pp)
	s.execs, err = writeProcess(p, pp)
	return err
}

func (s *start) openPipes() error {
	var err error
	if s.fromChild, s.toParent, err = os.Pipe(); err != nil {
		return err
	}
	s.keep(s.toParent)
	if s.fromParent, s.toChild, err = os.Pipe(); err != nil {
		return err
	}
	s.keep(s.fromParent)
	return nil
}

// writeClone: the first child joins what exists and makes the rest, owned by the container's user namespace.
func (s *start) writeClone(p *sysprog.Program) {
	if s.userns != nil {
		p.Call("join the user namespace", unix.SYS_SETNS, int(s.userns.Fd()), unix.CLONE_NEWUSER)
	}
	for _, j := range s.joined {
		if j.kind != unix.CLONE_NEWUSER {
			p.Call("join the "+j.name+" namespace", unix.SYS_SETNS, int(j.file.Fd()), j.kind)
		}
	}
	flags := s.newNS &^ (unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP)
	if flags&unix.CLONE_NEWTIME != 0 {
		p.Call("make a time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
		flags &^= unix.CLONE_NEWTIME
	}
	group := -1
	if s.group != nil {
		if dir, ok := s.group.Dir(); ok {
			if f, err := os.Open(dir); err == nil {
				group = int(s.keep(f).Fd())
			}
		}
	}
	p.Fork("clone into the new namespaces", flags, group)
}

func (s *start) writeMounts(p *sysprog.Program) error {
	propagation := uintptr(unix.MS_REC | unix.MS_SLAVE)
	if want, ok := propagations[s.spec.Linux.RootfsPropagation]; ok && want&unix.MS_SHARED == 0 {
		propagation = want | unix.MS_REC
	} else if ok {
		propagation = 0
	}
	none := p.String("")
	if propagation != 0 {
		p.Call("cut mounts off from the host's", unix.SYS_MOUNT, none, p.String("/"), none, propagation, nil)
	} else {
		p.Call("keep shared mounts", unix.SYS_MOUNT, none, p.String("/"), none, unix.MS_REC|unix.MS_SHARED, nil)
	}
	at := s.o.Bundle
	if at == "" || s.o.Rootfs == nil {
		at = os.TempDir()
	}
	p.Call("attach the root file system", unix.SYS_MOVE_MOUNT, int(s.root.Fd()), none, unix.AT_FDCWD&0xffffffff, p.String(at), unix.MOVE_MOUNT_F_EMPTY_PATH)
	if s.userns != nil {
		p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
		p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	}
	made := map[*attachment]sysprog.Word{}
	for _, a := range s.mounts {
		s.writeMount(p, a, made)
	}
	for _, a := range s.mounts {
		if a.late {
			attr := p.Bytes(mountAttr(unix.MOUNT_ATTR_RDONLY))
			p.Call("make "+a.at+" read-only", unix.SYS_MOUNT_SETATTR, int(a.source.Fd()), none, unix.AT_EMPTY_PATH, attr, 32)
		}
	}
	if s.spec.Root.Readonly {
		attr := p.Bytes(mountAttr(unix.MOUNT_ATTR_RDONLY))
		p.Call("make the root file system read-only", unix.SYS_MOUNT_SETATTR, int(s.root.Fd()), none, unix.AT_EMPTY_PATH, attr, 32)
	}
	dot := p.String(".")
	p.Call("enter the root file system", unix.SYS_FCHDIR, int(s.root.Fd()))
	p.Call("pivot to the root file system", unix.SYS_PIVOT_ROOT, dot, dot)
	p.Call("cut the old root off", unix.SYS_MOUNT, none, dot, none, unix.MS_REC|unix.MS_SLAVE, nil)
	p.Call("unmount the old root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	p.Call("go to the new root", unix.SYS_CHDIR, p.String("/"))
	return nil
}

// writeMount attaches one mount, making it first where it belongs to a namespace of the child.
func (s *start) writeMount(p *sysprog.Program, a *attachment, made map[*attachment]sysprog.Word) {
	none := p.String("")
	var source, target any
	if a.source != nil {
		source = int(a.source.Fd())
	} else {
		first := p.Len()
		fs := p.Store(p.Call("open "+a.fstype, unix.SYS_FSOPEN, p.String(a.fstype), unix.FSOPEN_CLOEXEC))
		p.Call("name "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, p.String("source"), p.String(a.fstype), 0)
		create := p.Call("make "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, nil, nil, 0)
		mount := p.Call("mount "+a.fstype, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, a.flags)
		if a.optional {
			p.Tolerate(create, 2+s.attachLen(a), unix.EPERM, unix.EACCES)
			p.Tolerate(mount, 1+s.attachLen(a), unix.EPERM, unix.EACCES)
		}
		word := p.Store(mount)
		p.Call("close "+a.fstype, unix.SYS_CLOSE, fs)
		made[a], source = word, word
		_ = first
	}
	if a.target != nil {
		target = int(a.target.Fd())
	} else {
		how := p.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC, inRoot))
		rest := strings.TrimPrefix(path.Clean("/"+a.rest), "/")
		target = p.Store(p.Call("find "+a.at, unix.SYS_OPENAT2, made[a.parent], p.String(rest), how, 24))
	}
	p.Call("attach "+a.at, unix.SYS_MOVE_MOUNT, source, none, target, none, moveByDescriptors)
	if a.propagation != 0 && a.source != nil {
		attr := p.Bytes(propagationAttr(uint64(a.propagation &^ unix.MS_REC)))
		flags := unix.AT_EMPTY_PATH
		if a.propagation&unix.MS_REC != 0 {
			flags |= unix.AT_RECURSIVE
		}
		p.Call("set propagation of "+a.at, unix.SYS_MOUNT_SETATTR, source, none, flags, attr, 32)
	}
	if a.fstype == "proc" {
		s.proc = made[a]
	}
}

// attachLen is how many operations follow the mount of a file system that the child made, until the next attachment.
func (s *start) attachLen(a *attachment) int {
	n := 2 // close, attach
	if a.target == nil {
		n++
	}
	return n
}

func (s *start) writeNames(p *sysprog.Program) {
	if h := s.spec.Hostname; h != "" && s.newNS&unix.CLONE_NEWUTS != 0 {
		p.Call("set the host name", unix.SYS_SETHOSTNAME, p.String(h), len(h))
	}
	if d := s.spec.Domainname; d != "" && s.newNS&unix.CLONE_NEWUTS != 0 {
		p.Call("set the domain name", unix.SYS_SETDOMAINNAME, p.String(d), len(d))
	}
}

// writeSysctls writes below the child's own procfs.
func (s *start) writeSysctls(p *sysprog.Program) error {
	if len(s.spec.Linux.Sysctl) == 0 {
		return nil
	}
	if s.proc == 0 {
		return errors.New("sysctls are asked for, but the configuration mounts no procfs")
	}
	for key, value := range s.spec.Linux.Sysctl {
		if strings.Contains(key, "..") {
			return fmt.Errorf("sysctl %q is not a name", key)
		}
		file := "sys/" + strings.ReplaceAll(key, ".", "/")
		how := p.Bytes(openHow(unix.O_WRONLY|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS))
		fd := p.Store(p.Call("open sysctl "+key, unix.SYS_OPENAT2, s.proc, p.String(file), how, 24))
		p.Call("set sysctl "+key+" to "+value, unix.SYS_WRITE, fd, p.String(value), len(value))
		p.Call("close sysctl "+key, unix.SYS_CLOSE, fd)
	}
	return nil
}

// writeProtectedPaths hides and write-protects paths. Those below /proc are resolved from the child's own procfs; others inside the root.
func (s *start) writeProtectedPaths(p *sysprog.Program) {
	none := p.String("")
	for _, name := range s.spec.Linux.ReadonlyPaths {
		dir, rest := s.protectedAt(name)
		how := p.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, inRoot))
		open := p.Call("find "+name, unix.SYS_OPENAT2, dir, p.String(rest), how, 24)
		at := p.Store(open)
		p.Tolerate(open, 5, unix.ENOENT, unix.ENOTDIR)
		tree := p.Store(p.Call("clone "+name, unix.SYS_OPEN_TREE, at, none, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE))
		p.Call("make "+name+" read-only", unix.SYS_MOUNT_SETATTR, tree, none, unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, p.Bytes(mountAttr(unix.MOUNT_ATTR_RDONLY)), 32)
		p.Call("attach "+name, unix.SYS_MOVE_MOUNT, tree, none, at, none, moveByDescriptors)
		p.Call("close "+name, unix.SYS_CLOSE, tree)
		p.Call("close "+name, unix.SYS_CLOSE, at)
	}
	for _, name := range s.spec.Linux.MaskedPaths {
		s.writeMask(p, name)
	}
}

// writeMask covers a directory with an empty read-only tmpfs and anything else with the container's own /dev/null.
func (s *start) writeMask(p *sysprog.Program, name string) {
	none := p.String("")
	dir, rest := s.protectedAt(name)
	asDir := p.Call("find "+name, unix.SYS_OPENAT2, dir, p.String(rest), p.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_DIRECTORY, inRoot)), 24)
	at := p.Store(asDir)
	p.Tolerate(asDir, 7, unix.ENOTDIR, unix.ENOENT)
	fs := p.Store(p.Call("open a mask", unix.SYS_FSOPEN, p.String("tmpfs"), unix.FSOPEN_CLOEXEC))
	p.Call("make a mask", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, nil, nil, 0)
	tree := p.Store(p.Call("mount a mask", unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC))
	p.Call("mask "+name, unix.SYS_MOVE_MOUNT, tree, none, at, none, moveByDescriptors)
	p.Call("close the mask", unix.SYS_CLOSE, tree)
	p.Call("close the mask", unix.SYS_CLOSE, fs)
	done := p.Word(1)
	p.JumpIfEqual(done, 1, 4)
	asFile := p.Call("find "+name, unix.SYS_OPENAT2, dir, p.String(rest), p.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, inRoot)), 24)
	file := p.Store(asFile)
	p.Tolerate(asFile, 3, unix.ENOENT, unix.ENOTDIR)
	devices, null := unix.AT_FDCWD&0xffffffff, "/dev/null"
	if s.devices != nil {
		devices, null = int(s.devices.Fd()), "null"
	}
	tree2 := p.Store(p.Call("clone /dev/null", unix.SYS_OPEN_TREE, devices, p.String(null), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW))
	p.Call("mask "+name, unix.SYS_MOVE_MOUNT, tree2, none, file, none, moveByDescriptors)
	p.Call("close the mask", unix.SYS_CLOSE, tree2)
}

// protectedAt says below which descriptor a path to protect is resolved.
func (s *start) protectedAt(name string) (dir any, rest string) {
	if rest, ok := within(path.Clean("/"+name), "/proc"); ok && rest != "/" && s.proc != 0 {
		return s.proc, rest
	}
	return int(s.root.Fd()), strings.TrimPrefix(path.Clean("/"+name), "/")
}

// writeGate: the parent has put the child into its control groups; tell it that all is ready, and wait to be started.
func (s *start) writeGate(p *sysprog.Program, pp processProgram) {
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(s.toChild))
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(s.fromChild))
	writeAwait(p, "wait for the control group", int(s.fromParent.Fd()))
	if s.newNS&unix.CLONE_NEWCGROUP != 0 {
		p.Call("make the cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	gate := s.fromParent
	if s.o.Gate != nil {
		gate = s.o.Gate
	}
	p.Call("say that all is ready", unix.SYS_WRITE, int(s.toParent.Fd()), p.String("r"), 1)
	moved := writeStreams(p, pp, gate)
	writeAwait(p, "wait to be started", moved)
}

// writeAwait reads one byte; the end of the pipe (its writer is gone) ends the child.
func writeAwait(p *sysprog.Program, name string, pipe int) {
	got := p.Store(p.Call(name, unix.SYS_READ, pipe, p.Bytes(make([]byte, 8)), 1))
	p.JumpIfEqual(got, 1, 1)
	p.Fail(name, int(unix.EPIPE))
}

func (s *start) stdio() (Stdio, error) {
	if s.slave != nil {
		return Stdio{s.slave, s.slave, s.slave}, nil
	}
	return fillStdio(s.o.Stdio, s.keep)
}
