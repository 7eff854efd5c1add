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

// start collects what the steps of one Create make.
type start struct {
	o        CreateOptions
	spec     *specs.Spec
	held     held // what the child needs until it is ready
	ns       namespaces
	layout   layout
	grouping *grouping // whole from awaitGroup on

	pipes
	attributes attributes
	filter     filter
	listening  sysprog.Word // where the child notes its seccomp listener
	program    *sysprog.Program
	clock      *sysprog.Clock // of the program's stages; nil: nobody asks
	execs      execPaths
	process    *sysprog.Process
	pidfd      *os.File
}

// pipes lead to a child that waits and from it. The second one's ends are nil where nobody waits for the child: a byte comes when its
// mounts are made, for hooks and what only this process may set, and one more at a gate of the caller's.
type pipes struct {
	toChild, fromParent *os.File // the gate
	fromChild, toParent *os.File
}

// NoSuidAnnotation with the value "true" has the root file system mounted nosuid and nodev, which the specification has no word for: a
// program with file capabilities then runs without them instead of being refused.
const NoSuidAnnotation = "dev.wherry.root.nosuid"

// LowPortsAnnotation with the value "true" lets root of a container with a user namespace of its own bind ports below 1024 in a network
// namespace that belongs to another one.
const LowPortsAnnotation = "dev.wherry.net.low-ports"

// A start has two halves. The first is ordinary Go and works by descriptor on things that no container sees yet: the user namespace,
// detached file systems, mount targets (steps). The second is a program of system calls that the container's first process runs in its
// new namespaces until it executes the user's program (stages; package sysprog):
//
//	this process                          first child (X)              the container's process
//	  prepare …
//	  clone X ───────────────────────────▶ raise limits
//	                                       [enter a bare mount namespace]
//	                                       join the user namespace
//	                                       join namespaces by path
//	                                       clone3(CLONE_PARENT) ─────▶ tell of the clone (futex)
//	  ◀──────────────────────────────────────────────────────────────  enter control groups
//	                                                                   attach mounts, mask, host name
//	  [◀────────────────────────────────────────────────── byte 'h' ── mounts are made
//	   hooks ──── byte 'h' ─────────────────────────────────────────▶] change the root
//	                                                                   cgroup namespace, streams, close all else
//	  [◀────────────────────────────────────────────────── byte 'r' ── at the gate, where it is the caller's]
//	  [Keep ───── byte 'k' ────────────────────────────────────────▶]
//	  Start ───── byte 's' ─────────────────────────────────────────▶ identity, seccomp, execve
//	  ◀─────────────────────────────── the kernel clears the futex ── (execve or exit)
//	                                       exits (it slept: vfork)

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
		{"begin the control group", (*start).beginGroup},
		{"make the class of service", makeClass},
		{"mount the root file system, detached", (*start).openRoot},
		{"open the terminal", (*start).openTerminal},
		{"prepare the mounts", (*start).prepareMounts},
		{"make the control group", (*start).awaitGroup},
		{"write the child's program", (*start).writeProgram},
		{"clone the child", (*start).cloneChild},
		{"wait until the mounts are made", awaitMounts},
		{"set limits", (*start).setLimits},
		{"move network devices", moveDevices},
		{"run the hooks of the creation", (*start).createHooks},
		{"let the child prepare", (*start).awaitPrepared},
		{"watch the process", (*start).watchProcess},
	}
}

// stage is one named part of the program that the child runs.
type stage struct {
	name  string
	write func(*writer) error
}

// stages of the child's program, in order. The first three are run by the first child, which makes the container's process.
func stages() []stage {
	return []stage{
		{"raise limits", (*writer).raise},
		{"join namespaces", (*writer).join},
		{"clone into the new namespaces", (*writer).clone},
		{"enter the control groups", (*writer).enterGroups},
		{"attach the root file system", (*writer).enterRoot},
		{"attach the mounts", (*writer).attachAll},
		{"set the names", (*writer).names},
		{"set the loopback interface up", (*writer).loopback},
		{"set the sysctls", (*writer).sysctls},
		{"mask and protect paths", (*writer).protectedPaths},
		{"bring the mounts into their order", (*writer).order},
		{"wait for hooks", (*writer).awaitHooks},
		{"change the root", (*writer).pivot},
		{"take the streams, close all else", (*writer).streams},
		{"wait to be started", (*writer).await},
		{"take rights away: limits, seccomp, capabilities, user", (*writer).confine},
		{"execute the program", (*writer).execute},
	}
}

// Create makes the namespaces and mounts; the init process puts them in place and then waits for Start, which also says what went wrong
// with that. All is undone when an error is returned.
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

// finish leaves what only the start needed to be closed when the program runs: until then somebody waits.
func (s *start) finish() *Container {
	c := &Container{spec: s.spec, process: s.process, program: s.program, console: s.layout.console, devpts: s.layout.devpts, cgroup: s.grouping.group,
		ids: s.ns.ids, execs: s.execs, told: report{warnings: s.layout.warnings, clock: s.clock}, files: s.layout.view(s.spec.Process, s.execs), userns: s.ns.user, filter: s.filter, oomScore: s.o.OOMScoreAdj}
	c.files.parts.files = append(s.layout.parts.files, s.held.files...)
	c.pidfd = s.pidfd
	if s.fromChild != nil {
		s.fromChild.Close()
	}
	if s.o.Gate == nil || s.isKept() {
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
	if class := s.attributes.class; class != nil {
		_ = class.Undo()
	}
	if s.grouping != nil && s.o.Cgroup == nil {
		if group, _ := s.layout.group(); group != nil {
			_ = group.Kill()
			_ = group.WaitEmpty(ctx)
			_ = group.Delete()
		}
	}
	s.held.close()
	s.layout.parts.close()
	for _, f := range []*os.File{s.layout.root, s.ns.user, s.layout.console, s.layout.devpts, s.toChild, s.fromChild} {
		if f != nil {
			f.Close()
		}
	}
	if s.program != nil {
		s.program.Close()
	}
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
	s.layout = layout{bundle: s.o.Bundle, spec: s.spec, ns: &s.ns, held: &s.held}
	var err error
	s.layout.warnings = unsupported(s.spec)
	if s.o.NoPivot && capabilitySets(s.spec.Process.Capabilities).bounding&(1<<unix.CAP_SYS_ADMIN) != 0 {
		s.layout.warnings = append(s.layout.warnings, "without a pivot a process with CAP_SYS_ADMIN can take the container's root away and finds the host's below")
	}
	return err
}

func (s *start) openNamespaces(context.Context) (err error) {
	if s.ns.rights, err = readRights(); err != nil {
		return err
	}
	if err = s.ns.rights.checkUser(s.spec.Process.User, s.spec.Linux); err != nil {
		return err
	}
	if err = s.ns.open(s.spec.Linux.Namespaces, &s.held); err != nil {
		return err
	}
	p := s.spec.Process
	if s.attributes, err = attributesOf(s.spec.Linux, p, p, s.ns.has(unix.CLONE_NEWUSER)); err != nil {
		return err
	}
	if err = new(attributes).affinity(p, p); err != nil { // for exec
		return err
	}
	if err = checkNetDevices(s.spec.Linux.NetDevices, &s.ns); err != nil {
		return err
	}
	if err = checkNames(s.spec); err != nil {
		return err
	}
	return checkSysctls(s.spec.Linux.Sysctl, &s.ns)
}

func (s *start) makeUserNamespace(context.Context) error {
	if s.o.Ready != nil {
		s.held.keep(s.o.Ready.Net)
		return s.ns.take(s.o.Ready, s.spec.Linux)
	}
	return s.ns.makeUser(s.spec.Linux)
}

// grouping is a control group that is made while the mounts are prepared: it takes the kernel as long as those.
type grouping struct {
	done     chan struct{} // closed when what follows is there
	group    *cgroup.Group
	warnings []string
	err      error
}

func (s *start) beginGroup(context.Context) error {
	g := &grouping{done: make(chan struct{}), group: s.o.Cgroup}
	s.grouping, s.layout.group = g, func() (*cgroup.Group, error) {
		<-g.done
		return g.group, g.err
	}
	if g.group != nil {
		close(g.done)
		return nil
	}
	path := s.spec.Linux.CgroupsPath
	if path == "" {
		path = "/oar/" + s.o.ID
	}
	path = filepath.Clean("/" + path) // a relative one begins at the root of the hierarchies
	go func() {                       // awaitGroup or undo waits for it
		defer close(g.done)
		g.err = g.make(path, s.spec, s.o.LimitsOptional)
	}()
	return nil
}

func (g *grouping) make(path string, spec *specs.Spec, optional bool) (err error) {
	g.group, err = cgroup.Create(path, spec.Linux.Resources)
	if err != nil && optional && cgroup.Refused(err) {
		err = g.makeDelegated(path, spec.Linux.Resources)
	}
	if err != nil || g.group == nil || spec.Annotations[LowPortsAnnotation] != "true" {
		return err
	}
	for _, m := range spec.Linux.UIDMappings {
		if m.ContainerID != 0 {
			continue
		}
		if err := g.group.AllowLowPorts(m.HostID); err != nil {
			g.warnings = append(g.warnings, fmt.Sprintf("ports below 1024 cannot be bound: %v", err))
		}
	}
	return nil
}

func (s *start) awaitGroup(context.Context) (err error) {
	_, err = s.layout.group()
	s.layout.warnings = append(s.layout.warnings, s.grouping.warnings...)
	return err
}

func (s *start) openRoot(context.Context) (err error) {
	var flags uint64
	if s.spec.Annotations[NoSuidAnnotation] == "true" {
		flags = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	}
	if s.o.Rootfs != nil {
		if s.layout.root, s.layout.parts.files, err = s.o.Rootfs.MountParts(s.ns.user); err == nil && flags != 0 {
			err = unix.MountSetattr(descriptor(s.layout.root), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: flags})
		}
		return err
	}
	s.layout.root, err = rootfs.Bind(s.rootPath(), rootfs.BindOptions{Recursive: true, Set: flags})
	return err
}

// rootPath is the configuration's root file system on the host.
func (s *start) rootPath() string {
	if path := s.spec.Root.Path; filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.o.Bundle, s.spec.Root.Path)
}

func (s *start) openTerminal(context.Context) error { return s.layout.openTerminal() }

// prepareMounts of the configuration. Where no place can be made for one, as the whole root file system is read-only and is not to be, it says why.
func (s *start) prepareMounts(context.Context) error {
	err := s.layout.prepare()
	r := s.o.Rootfs
	if !errors.Is(err, unix.EROFS) || r == nil || r.ReadOnly || r.Upper == "" {
		return err
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(descriptor(s.layout.root), &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%w: %w", err, r.Unwritable())
	}
	return err
}

func (s *start) cloneChild(context.Context) (err error) {
	if s.process, err = s.program.Start(0, true); err != nil {
		return err
	}
	s.fromParent.Close()
	if s.toParent != nil {
		s.toParent.Close()
	}
	return nil
}

// awaitPrepared waits until the child stands at its gate. A seccomp listener is sent while it stands there.
func (s *start) awaitPrepared(context.Context) error {
	if awaitsReady(s) {
		if err := s.awaitChild(); err != nil {
			return err
		}
	}
	if s.filter.listener == nil {
		return nil
	}
	s.filter.listener.state.Pid = s.process.Pid // for every exec
	if err := s.filter.listener.send(s.process, s.listening, s.state(specs.StateCreating)); err != nil {
		return s.diagnose(err)
	}
	return nil
}

// awaitChild waits for the child's next byte, or says why it will not come.
func (s *start) awaitChild() error {
	var b [1]byte
	if n, _ := s.fromChild.Read(b[:]); n == 1 {
		return nil
	}
	return s.diagnose(s.process.Wait(markExecute))
}

func (s *start) diagnose(err error) error {
	files := s.layout.view(s.spec.Process, s.execs)
	defer files.close()
	return diagnose(err, s.program, s.execs, files)
}

// state is what hooks and agents are told of the container.
func (s *start) state(status specs.ContainerState) specs.State {
	state := specs.State{Version: specs.Version, ID: s.o.ID, Status: status, Bundle: s.o.Bundle, Annotations: s.spec.Annotations}
	if s.process != nil {
		state.Pid = s.process.Pid
	}
	return state
}

// watchProcess is the last step: the descriptor belongs to a file from here on, which closes it, and nothing is discarded any more.
func (s *start) watchProcess(context.Context) (err error) {
	s.pidfd, err = sysprog.Pollable(s.process.Pidfd)
	return err
}

// setLimits sets what belongs to the pid from outside.
func (s *start) setLimits(context.Context) error {
	setOOMScore(s.process.Pid, oomScore(s.spec.Process.OOMScoreAdj, s.o.OOMScoreAdj))
	return s.attributes.setByParent(s.process.Pid)
}
