package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// start collects what the steps of one Create make. What stays open in files is needed by the child until it is ready.
type start struct {
	o       CreateOptions
	spec    *specs.Spec
	ids     rootfs.IDMap // how ids inside are written to file systems that this process makes
	root    *os.File     // the detached root file system
	userns  *os.File
	mounts  []*attachment
	files   []*os.File
	joined  []joinedNamespace
	newNS   uint64
	group   *cgroup.Group
	console *os.File
	slave   *os.File
	devpts  *os.File
	devices *os.File // the /dev tmpfs

	toChild, fromParent *os.File // 'p' and 's'
	fromChild, toParent *os.File // 'r'
	program             *sysprog.Program
	execs               execPaths
	proc                sysprog.Word // the child's procfs
	process             *sysprog.Process
	pidfd               *os.File
	warnings            []string
}

// step is one named part of a start.
type step struct {
	name string
	run  func(*start, context.Context) error
}

// steps of Create, in order.
func steps() []step {
	return []step{
		{"check the configuration", (*start).check},
		{"open the namespaces to join", (*start).openNamespaces},
		{"make the user namespace", (*start).makeUserNamespace},
		{"make the control group", (*start).makeGroup},
		{"mount the root file system, detached", (*start).openRoot},
		{"open the terminal", (*start).openTerminal},
		{"prepare the mounts, detached", (*start).prepareMounts},
		{"write the child's program", (*start).writeProgram},
		{"clone the child", (*start).cloneChild},
		{"join the control group", (*start).joinGroup},
		{"set limits", (*start).setLimits},
		{"run the hooks of the creation", (*start).createHooks},
		{"let the child prepare", (*start).waitReady},
	}
}

// Create makes the namespaces and mounts; the init process then waits for Start. All is undone when an error is returned.
func Create(ctx context.Context, o CreateOptions) (*Container, error) {
	if err := sysprog.Protect(); err != nil {
		return nil, err
	}
	s := &start{o: o, spec: o.Spec}
	for _, st := range steps() {
		if o.Trace != nil {
			o.Trace(st.name)
		}
		if err := st.run(s, ctx); err != nil {
			s.undo(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("%s: %w", st.name, err)
		}
	}
	return s.finish(), nil
}

// finish closes what only the start needed.
func (s *start) finish() *Container {
	for _, f := range s.files {
		f.Close()
	}
	c := &Container{id: s.o.ID, spec: s.spec, process: s.process, program: s.program, console: s.console, devpts: s.devpts, cgroup: s.group,
		ownGroup: s.o.Cgroup == nil, execs: s.execs, warnings: s.warnings, root: s.root, userns: s.userns, oomScore: s.o.OOMScoreAdj}
	c.pidfd = s.pidfd
	if s.o.Gate == nil {
		c.gate = s.toChild
	} else {
		s.toChild.Close()
	}
	return c
}

// undo ends the child and gives back what was made.
func (s *start) undo(ctx context.Context) {
	if s.process != nil {
		s.process.Discard()
	}
	if s.group != nil && s.o.Cgroup == nil {
		_ = s.group.Kill()
		_ = s.group.WaitEmpty(ctx)
		_ = s.group.Delete()
	}
	for _, f := range append(s.files, s.root, s.userns, s.console, s.devpts, s.toChild, s.fromChild) {
		if f != nil {
			f.Close()
		}
	}
	if s.program != nil {
		s.program.Close()
	}
}

// keep holds a file open until the child is ready.
func (s *start) keep(f *os.File) *os.File {
	s.files = append(s.files, f)
	return f
}

func (s *start) check(context.Context) error {
	switch {
	case s.spec == nil || s.spec.Process == nil || s.spec.Root == nil:
		return errors.New("config.json has no process or no root")
	case s.spec.Linux == nil:
		s.spec.Linux = &specs.Linux{}
	}
	if len(s.spec.Process.Args) == 0 {
		return errors.New("config.json says no program to run (process.args is empty)")
	}
	if !filepath.IsAbs(s.spec.Process.Cwd) {
		return fmt.Errorf("the working directory %q is not absolute", s.spec.Process.Cwd)
	}
	if maps := s.spec.Linux.UIDMappings; len(maps) == 1 && maps[0].ContainerID == 0 {
		s.ids = rootfs.IDMap{Base: maps[0].HostID, Size: maps[0].Size}
	} else if len(maps) > 0 {
		s.ids = rootfs.IDMap{Base: maps[0].HostID, Size: maps[0].Size}
	}
	return nil
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

func (s *start) openNamespaces(context.Context) error {
	for _, ns := range s.spec.Linux.Namespaces {
		flag, ok := namespaceFlags[ns.Type]
		if !ok {
			return fmt.Errorf("namespace %q is not one of Linux's", ns.Type)
		}
		if ns.Path == "" {
			s.newNS |= uint64(flag)
			continue
		}
		f, err := os.Open(ns.Path)
		if err != nil {
			return fmt.Errorf("%s namespace: %w", ns.Type, err)
		}
		kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
		if err != nil || kind != flag {
			f.Close()
			return fmt.Errorf("%s is not a %s namespace", ns.Path, ns.Type)
		}
		s.keep(f)
		s.joined = append(s.joined, joinedNamespace{kind: flag, name: string(ns.Type), file: f})
	}
	if s.newNS&unix.CLONE_NEWNS == 0 {
		return errors.New("a container without a mount namespace of its own is not supported: it would change the host's mounts")
	}
	return nil
}

// makeUserNamespace makes the container's, or takes the one to join.
func (s *start) makeUserNamespace(context.Context) error {
	for _, j := range s.joined {
		if j.kind == unix.CLONE_NEWUSER {
			fd, err := unix.FcntlInt(j.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return err
			}
			s.userns = os.NewFile(uintptr(fd), "user namespace")
			return nil
		}
	}
	if s.newNS&unix.CLONE_NEWUSER == 0 {
		s.ids = rootfs.IDMap{}
		return nil
	}
	var err error
	s.userns, err = sysprog.UserNamespace(mappings(s.spec.Linux.UIDMappings), mappings(s.spec.Linux.GIDMappings))
	return err
}

func mappings(list []specs.LinuxIDMapping) []sysprog.Mapping {
	out := make([]sysprog.Mapping, 0, len(list))
	for _, m := range list {
		out = append(out, sysprog.Mapping{Inside: m.ContainerID, Outside: m.HostID, Count: m.Size})
	}
	return out
}

func (s *start) makeGroup(context.Context) error {
	if s.o.Cgroup != nil {
		s.group = s.o.Cgroup
		return nil
	}
	path := s.spec.Linux.CgroupsPath
	if path == "" {
		path = "/oar/" + s.o.ID
	}
	if !filepath.IsAbs(path) {
		path = "/" + path
	}
	var err error
	s.group, err = cgroup.Create(path, s.spec.Linux.Resources)
	return err
}

func (s *start) openRoot(context.Context) (err error) {
	if s.o.Rootfs != nil {
		s.root, err = s.o.Rootfs.Mount(s.userns)
		return err
	}
	path := s.spec.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.o.Bundle, path)
	}
	s.root, err = rootfs.Bind(path, rootfs.BindOptions{Recursive: true})
	return err
}

func (s *start) cloneChild(context.Context) (err error) {
	if s.process, err = s.program.Start(0, true); err != nil {
		return err
	}
	s.fromParent.Close()
	s.toParent.Close()
	return nil
}

// joinGroup moves the child where clone3 could not (cgroup v1).
func (s *start) joinGroup(context.Context) error {
	if s.group == nil {
		return nil
	}
	return s.group.Add(s.process.Pid)
}

// waitReady tells the child that its pid's control groups and limits are set, and waits until all its file systems are in place.
func (s *start) waitReady(context.Context) (err error) {
	defer s.fromChild.Close()
	if _, err := s.toChild.Write([]byte{'p'}); err != nil {
		return err
	}
	var b [1]byte
	if n, _ := s.fromChild.Read(b[:]); n != 1 {
		return diagnose(s.process.Wait(markExecute), s.program, s.execs, s.root)
	}
	s.pidfd, err = sysprog.Pollable(s.process.Pidfd)
	return err
}
