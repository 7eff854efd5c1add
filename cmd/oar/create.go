package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/systemd"
)

// creation are the options that create and run share.
type creation struct {
	id            string
	bundle        string
	pidFile       string
	consoleSocket string
	pidfdSocket   string
	config        string
	preserve      int
	sockets       int // of those, a service manager's
	noPivot       bool
	noNewKeyring  bool
	gate          bool // the container waits for another process's start
	detach        bool
	limitless     bool         // it may do without a control group
	trace         func(string) // told each step
	measure       bool         // what the container's process does before its program, too
}

func (o *creation) define(f flags) {
	f.text(&o.bundle, "bundle b", ".", "the bundle's `FOLDER`")
	f.text(&o.config, "config f", configFile, "the configuration: a `FILE`, from the bundle's folder on")
	f.yes(&o.noPivot, "no-pivot", "move the root file system over the host's instead of pivoting (on a host that runs from its initial RAM disk)")
	f.yes(&o.noNewKeyring, "no-new-keyring", "leave the container in this session's keyring")
	o.defineProcess(f)
}

// defineProcess names the options that exec has too.
func (o *creation) defineProcess(f flags) {
	f.text(&o.pidFile, "pid-file", "", "write the process's pid to a `FILE`")
	f.text(&o.consoleSocket, "console-socket", "", "hand the terminal to who listens on a unix `SOCKET`")
	f.text(&o.pidfdSocket, "pidfd-socket", "", "hand a pidfd of the process to who listens on a unix `SOCKET`")
	f.IntVar(&o.preserve, "preserve-fds", 0, "pass `N` descriptors on, from 3")
}

// create makes a container that waits, with nobody of ours beside it, until start opens its gate.
func (r *store) create(ctx context.Context, f flags) error {
	o := creation{gate: true, trace: r.step}
	o.define(f)
	var err error
	if o.id, err = f.id(); err != nil {
		return err
	}
	o.takeSockets(r)
	if done, err := r.elsewhere(o.where); done {
		return err
	}
	o.limitless = limitsOptional(r)
	c, err := r.newRecord(o)
	if err != nil {
		return err
	}
	made, err := c.makeOrRemove(ctx, o)
	if err != nil {
		return err
	}
	defer made.Close()
	if err := o.hand(c, made); err != nil {
		return errors.Join(err, c.destroy(context.WithoutCancel(ctx)))
	}
	return nil
}

// makeOrRemove creates the container of a new record, which goes when an error is returned, but where something of it could not be ended:
// delete needs the record then.
func (c *record) makeOrRemove(ctx context.Context, o creation) (*ociruntime.Container, error) {
	made, err := c.make(ctx, o)
	if err != nil && !errors.Is(err, errLeft) {
		os.RemoveAll(c.dir)
	}
	return made, err
}

// errLeft is the class of errors after which something of a container is left.
var errLeft = errors.New("delete it with --force when they have ended")

// endAfter ends what an error has left half made, and says so where that does not work.
func endAfter(ctx context.Context, c *record, err error) error {
	if left := c.end(context.WithoutCancel(ctx)); left != nil {
		return fmt.Errorf("%w; its processes could not be ended: %w; %w", err, left, errLeft)
	}
	return err
}

func (c *record) make(ctx context.Context, o creation) (*ociruntime.Container, error) {
	release, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.save(); err != nil {
		return nil, err
	}
	o.announceSockets(c.spec.Process)
	options := ociruntime.CreateOptions{ID: c.ID, Bundle: c.Bundle, Spec: c.spec, PreserveFDs: o.preserve, NoNewKeyring: o.noNewKeyring, KeepGroups: keepsGroups(c.spec), Trace: o.trace,
		LimitsOptional: o.limitless, NoPivot: o.noPivot, Measure: o.measure}
	if o.gate {
		gate, err := c.makeGate()
		if err != nil {
			return nil, err
		}
		defer gate.Close()
		options.Gate = gate
	}
	if !c.spec.Process.Terminal {
		options.Stdio = ociruntime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	}
	var s *scope
	if c.Scope != "" {
		if s, err = makeScope(ctx, c); err != nil {
			return nil, err
		}
		options.Cgroup = s.group
	}
	made, err := ociruntime.Create(ctx, options)
	s.release() // before the scope is stopped: systemd waits for all who are in it
	if err != nil {
		return nil, errors.Join(err, stopScope(context.WithoutCancel(ctx), c.Scope))
	}
	c.group = made.Cgroup()
	err = c.note(made, o.gate)
	if err == nil && o.gate {
		err = made.Keep()
	}
	if err != nil {
		err = endAfter(ctx, c, err)
		made.Close()
		return nil, err
	}
	return made, nil
}

// note writes down what has been made. Another process that opens the gate could not say that there is no program to start.
func (c *record) note(made *ociruntime.Container, gate bool) (err error) {
	for _, w := range made.Warnings() {
		c.warn("%s", w)
	}
	noteGroup(c, made.Cgroup())
	c.Pid = made.Pid()
	if c.Started, err = startTime(c.Pid); err != nil {
		return err
	}
	if gate {
		if err := made.CheckProgram(); err != nil {
			return err
		}
	}
	return c.save()
}

// check refuses what cannot be done before anything is made.
func (o *creation) check() error {
	for fd := 3; fd < 3+o.preserve; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return fmt.Errorf("--preserve-fds %d: descriptor %d was not passed to this command", o.preserve, fd)
		}
	}
	return nil
}

// newRecord reads the configuration and makes the container's folder, which reserves its id. It may execute this binary again.
func (r *store) newRecord(o creation) (*record, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	bundle, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, err
	}
	c := &record{ID: o.id, Bundle: bundle, Created: time.Now().UTC(), dir: r.dir(o.id), nested: r.nested, logger: &r.logger, NoNewKeyring: o.noNewKeyring}
	name := o.configuration()
	config, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("JSON specification file %s not found: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	if !mayNameUserNamespace(config) {
		if err := protectBinary(); err != nil {
			return nil, err
		}
	}
	if c.spec, err = parseSpec(name, config); err != nil {
		return nil, err
	}
	c.spec = translate(c.spec, r.inside)
	if err := checkSpec(c.spec, o); err != nil {
		return nil, err
	}
	if !hasUserNamespace(c.spec) || r.nested {
		if err := protectBinary(); err != nil {
			return nil, err
		}
	}
	if err := c.fill(ownerOf(r), r.systemd); err != nil {
		return nil, err
	}
	if err := makeRoot(r.root); err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container with given ID already exists: %s (in %s); delete it or take another id", o.id, r.root)
	} else if err != nil {
		return nil, err
	}
	if err := writeWhole(filepath.Join(c.dir, configFile), config); err != nil {
		os.RemoveAll(c.dir)
		return nil, err
	}
	return c, nil
}

// configuration is its file.
func (o *creation) configuration() string {
	if filepath.IsAbs(o.config) {
		return o.config
	}
	return filepath.Join(o.bundle, o.config)
}

// fill notes what follows from the configuration.
func (c *record) fill(owner string, scope bool) error {
	if c.Rootfs = c.spec.Root.Path; !filepath.IsAbs(c.Rootfs) {
		c.Rootfs = filepath.Join(c.Bundle, c.Rootfs)
	}
	if c.spec.Linux == nil {
		c.spec.Linux = &specs.Linux{}
	}
	if err := placeGroup(c, scope); err != nil {
		return err
	}
	r := c.spec.Linux.Resources
	if r != nil {
		dropZero(r)
	}
	if r != nil && len(r.Devices) > 0 {
		r.Devices = append(r.Devices, defaultDevices()...)
	}
	if p := c.spec.Process; p.ApparmorProfile != "" && !ociruntime.AppArmor() {
		c.warn("process.apparmorProfile %q has no effect: this kernel does not apply AppArmor's profiles", p.ApparmorProfile)
		p.ApparmorProfile = ""
	}
	c.Owner = owner
	return nil
}

// placeGroup says where the container's control group will be: at a path, or where systemd puts the scope.
func placeGroup(c *record, scope bool) error {
	if scope {
		name, err := systemd.ParseName(c.spec.Linux.CgroupsPath, c.ID)
		c.Scope, c.slice = name.Unit, name.Slice
		return err
	}
	path := c.spec.Linux.CgroupsPath
	if path == "" {
		path = "/oar/" + c.ID
	}
	c.Cgroup = filepath.Clean("/" + path)
	c.spec.Linux.CgroupsPath = c.Cgroup
	return nil
}

// defaultDevices may be used whatever the configuration forbids: it has them made in every container (runtime-spec, "Default Devices").
func defaultDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	list := []specs.LinuxDeviceCgroup{rule("c", -1, -1, "m"), rule("b", -1, -1, "m"), rule("c", 136, -1, "rwm")}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} {
		list = append(list, rule("c", d[0], d[1], "rwm"))
	}
	return list
}

func checkSpec(s *specs.Spec, o creation) error {
	switch {
	case s.Root == nil || s.Root.Path == "":
		return errors.New("config.json names no root file system (root.path)")
	case s.Process == nil:
		return errors.New("config.json has no process")
	case !validVersion(s.Version):
		return fmt.Errorf("config.json is of version %q (ociVersion) of the specification; oar knows 1.0.0 to %s", s.Version, specs.Version)
	case s.Process.Terminal && (o.gate || o.detach) && o.consoleSocket == "":
		return errors.New("cannot allocate tty if runc will detach without setting console socket: config.json asks for a terminal (process.terminal), name the socket that takes it with --console-socket")
	case s.Process.Terminal && !o.gate && !o.detach && o.consoleSocket == "" && !atTerminal():
		return errors.New("config.json asks for a terminal (process.terminal), and oar is at none whose input could go to it: run it at a terminal, name a socket that takes the container's one (--console-socket), or set process.terminal to false")
	case (!s.Process.Terminal || !o.gate && !o.detach) && o.consoleSocket != "":
		return errors.New("cannot use console socket if runc will not detach or allocate tty: leave --console-socket out")
	}
	return nil
}

// validVersion accepts semantic versions of the specification's first major version.
func validVersion(v string) bool {
	v, _, _ = strings.Cut(v, "+")
	v, _, _ = strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	if len(parts) != 3 || parts[0] != "1" {
		return false
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return false
		}
	}
	return true
}

// makeGate makes the fifo that start writes to. The container's process holds both ends, so it waits although nobody has opened it.
func (c *record) makeGate() (*os.File, error) {
	name := filepath.Join(c.dir, gateFile)
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, fmt.Errorf("make the gate %s: %w", name, err)
	}
	return os.OpenFile(name, os.O_RDWR, 0)
}

// hand gives the caller what it asked for: the terminal, and the pid in a file.
func (o *creation) hand(c *record, made *ociruntime.Container) error {
	if o.consoleSocket != "" {
		if err := send(o.consoleSocket, "console", made.Console()); err != nil {
			return err
		}
	}
	if o.pidfdSocket != "" {
		if err := send(o.pidfdSocket, "pidfd", made.Pidfd()); err != nil {
			return err
		}
	}
	return writePid(o.pidFile, c.Pid)
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	return writeWhole(file, []byte(strconv.Itoa(pid)))
}

// send passes a descriptor to who listens on a unix socket.
func send(socket, what string, f *os.File) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("%s socket: %w", what, err)
	}
	defer conn.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = conn.WriteMsgUnix([]byte(f.Name()), unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}
