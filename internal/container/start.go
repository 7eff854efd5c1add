package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

// startLimit bounds a start: its client may have gone, and nobody else would end it.
const startLimit = 2 * time.Minute

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// life is what a service does with one container: start, watch, restart, end, remove.
type life struct {
	s *Service
	c *Container
}

// Start runs the container's program. errdefs.ErrNotModified when it runs already.
func (s *Service) Start(ctx context.Context, id string) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	return life{s, c}.startByUser(ctx)
}

func (l life) startByUser(ctx context.Context) error {
	l.c.op.Lock()
	defer l.c.op.Unlock()
	r := l.c.record()
	switch {
	case l.c.isGone():
		return noSuchContainer(r.ID)
	case r.Status == Paused:
		return fail(errdefs.ErrConflict, "cannot start a paused container, try unpause instead")
	case r.Status.Alive():
		return fmt.Errorf("container %s is running: %w", r.Name, errdefs.ErrNotModified)
	case r.Status == Removing, r.Status == Dead:
		return fail(errdefs.ErrConflict, "container is marked for removal and cannot be started")
	}
	waiting := l.c.cancelRestart()
	err := l.start(ctx, startOptions{})
	if err == nil {
		return nil
	}
	if waiting {
		l.c.settle(func(r *Record) { r.Status = Exited })
	}
	if r.HostConfig.AutoRemove {
		l.s.log(l.removeNow(context.WithoutCancel(ctx), RemoveOptions{Volumes: true}))
	}
	return err
}

// startOptions of start; the zero value is a start that the user asked for.
type startOptions struct{ byPolicy bool }

// starting collects what the steps of one start make.
type starting struct {
	life
	o       startOptions
	r       *Record
	again   bool // it has run before
	who     identity
	input   spec.Input
	content sandbox.Content
	spec    *specs.Spec
	task    *task.Task
	began   time.Time  // right before the program was executed
	held    []*os.File // what the runtime finds by this process's descriptors
	undo    []func(context.Context)
}

// startStep is one named part of a start.
type startStep struct {
	name string
	run  func(*starting, context.Context) error
}

// startSteps in order. Each notes how it is undone; the runtime's own steps are in package ociruntime.
func startSteps() []startStep {
	return []startStep{
		{"look at the layers", (*starting).layers},
		{"find the user", (*starting).findUser},
		{"find the devices", (*starting).findDevices},
		{"find what is to be mounted", (*starting).findMounts},
		{"open the namespaces to join", (*starting).join},
		{"reserve addresses and ports", (*starting).allocate},
		{"write the files of /etc", (*starting).writeFiles},
		{"share memory", (*starting).shareMemory},
		{"build the configuration", (*starting).build},
		{"create the task", (*starting).create},
		{"attach the network", (*starting).attach},
		{"execute the program", (*starting).execute},
		{"record the start", (*starting).record},
	}
}

// start brings the container to life; the caller holds op and has looked at the status. What was made is undone in reverse on failure.
func (l life) start(ctx context.Context, o startOptions) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), startLimit, fmt.Errorf("the start took longer than %s", startLimit))
	defer cancel()
	expectStart(ctx, l.s)
	n := &starting{life: l, o: o, r: l.c.record()}
	n.again = n.r.HasRun
	for _, step := range startSteps() {
		began := time.Now()
		err := step.run(n, ctx)
		if l.s.o.Trace != nil {
			l.s.o.Trace(n.r.ID, step.name, time.Since(began))
		}
		if err == nil {
			continue
		}
		for i := len(n.undo) - 1; i >= 0; i-- {
			n.undo[i](context.WithoutCancel(ctx))
		}
		n.release()
		return n.failed(step, err)
	}
	n.release()
	return nil
}

// failed records why a start did not come about, and gives the error its class.
func (n *starting) failed(step startStep, err error) error {
	code := 128
	err = plain(err)
	var failure *task.ExecError
	if errors.As(err, &failure) {
		code = failure.Code
		err = invalid("%s", failure.Message)
	} else if errdefs.IsUnknown(errdefs.Resolve(err)) {
		err = fmt.Errorf("%s of container %s: %w", step.name, n.r.Name, err)
	}
	n.c.settle(func(r *Record) {
		r.ExitCode, r.Error = code, err.Error()
		if n.o.byPolicy {
			r.RestartCount++
		}
	})
	return err
}

// expectStart has the kernel prepare for a process that is about to join a control group.
func expectStart(ctx context.Context, s *Service) {
	if !s.warming.CompareAndSwap(false, true) {
		return
	}
	if !s.lives.run(ctx, func(context.Context) {
		defer s.warming.Store(false)
		cgroup.Warm()
	}) {
		s.warming.Store(false)
	}
}

func (n *starting) onUndo(fn func(context.Context)) { n.undo = append(n.undo, fn) }

// release closes what only the start needed.
func (n *starting) release() {
	for _, f := range n.held {
		f.Close()
	}
	n.held = nil
}

// layers sees to it that the image is still there, and that --restart-fresh gets its clean layer.
func (n *starting) layers(context.Context) error {
	for _, dir := range n.r.Image.Lower {
		if _, err := os.Stat(dir); err != nil {
			return fail(errdefs.ErrFailedPrecondition, "a layer of image %s is not there any more (%v): create the container anew", n.r.Config.Image, err)
		}
	}
	if n.again && n.r.fresh() {
		return freshLayer(n.c.dir, n.r)
	}
	if n.again && n.volatile() {
		// Overlay refuses a layer that was mounted without syncs, since a power cut may have spoiled it; there was none.
		_, work := layerDirs(n.c.dir)
		return os.RemoveAll(filepath.Join(work, "work", "incompat"))
	}
	return nil
}

// volatile says that the writable layer is disposable.
func (n *starting) volatile() bool { return n.r.HostConfig.AutoRemove }

func (n *starting) findUser(context.Context) (err error) {
	layers := n.r.layers(n.c.dir)
	a := accounts{open: func(name string) (*os.File, error) { return openInLayers(layers, name) }}
	if n.who, err = a.find(n.r.Config.User, n.r.HostConfig.GroupAdd); err != nil {
		return err
	}
	return n.who.fits(n.r.IDMap.Size)
}

func (n *starting) findDevices(context.Context) (err error) {
	if n.input.Devices, n.input.DeviceRules, err = devicesOf(n.r.HostConfig); err != nil {
		return err
	}
	n.input.BlockIO, err = blockIO(&n.r.HostConfig.Resources)
	return err
}

// hold keeps a file open until the task is made, and is the path by which the runtime finds it. A path of its own could be another's by
// then: the pid of a namespace, a link in a folder that a container writes to.
func (n *starting) hold(f *os.File) string {
	n.held = append(n.held, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// findMounts makes missing folders of -v again, and opens what lies below volumes.
func (n *starting) findMounts(context.Context) error {
	n.input.Mounts = slices.Clone(n.r.Mounts)
	for i := range n.input.Mounts {
		m := &n.input.Mounts[i]
		if m.CreateSource {
			if err := bindSource(m); err != nil {
				return err
			}
		}
		if m.Type != mount.TypeVolume || m.Subpath == "" {
			continue
		}
		f, err := openBelow(m.Source, m.Subpath)
		if err != nil {
			return invalid("cannot access path %s of volume %s: %v: make it first, for example with a container that mounts the whole volume", m.Subpath, m.Name, errors.Unwrap(err))
		}
		m.Source = n.hold(f)
	}
	return nil
}

func openBelow(dir, name string) (*os.File, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return openIn(d, name, unix.O_PATH)
}

// join opens the namespaces of other containers.
func (n *starting) join(context.Context) error {
	h := n.r.HostConfig
	n.input.Joined = map[specs.LinuxNamespaceType]string{}
	for _, row := range []struct {
		is   bool
		name string
		kind specs.LinuxNamespaceType
		file string
	}{
		{h.NetworkMode.IsContainer(), h.NetworkMode.ConnectedContainer(), specs.NetworkNamespace, "net"},
		{h.PidMode.IsContainer(), h.PidMode.Container(), specs.PIDNamespace, "pid"},
		{h.IpcMode.IsContainer(), h.IpcMode.Container(), specs.IPCNamespace, "ipc"},
	} {
		if !row.is {
			continue
		}
		c, err := n.s.index.find(row.name)
		if err != nil {
			return fail(errdefs.ErrConflict, "cannot join the %s namespace of container %s: it does not exist any more", row.kind, row.name)
		}
		t, r, err := c.running()
		if err != nil {
			return fail(errdefs.ErrConflict, "cannot join %s of a non running container: %s: start it first", row.kind, r.Name)
		}
		if err := n.joinOne(t, row.kind, row.file); err != nil {
			return err
		}
		if n.r.IDMap.Size > 0 {
			if err := n.joinOne(t, specs.UserNamespace, "user"); err != nil {
				return err
			}
		}
		if row.kind == specs.IPCNamespace {
			if !r.HostConfig.IpcMode.IsShareable() {
				return fail(errdefs.ErrConflict, "can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", r.Name)
			}
			n.input.Shm = n.s.o.sharedMemory(r.ID)
		}
	}
	return nil
}

func (n *starting) joinOne(t *task.Task, kind specs.LinuxNamespaceType, name string) error {
	f, err := t.Namespace(name)
	if err != nil {
		return fmt.Errorf("open the %s namespace to join: %w", kind, err)
	}
	n.input.Joined[kind] = n.hold(f)
	return nil
}

// bridged says that package network furnishes the container's network namespace: with interfaces or, on none, with loopback only.
func (r *Record) bridged() bool {
	m := r.HostConfig.NetworkMode
	return !m.IsContainer() && !m.IsHost()
}

// allocateRequest is what a container asks of its networks.
func (r *Record) allocateRequest() networks.AllocateRequest {
	h := r.HostConfig
	q := networks.AllocateRequest{ContainerID: r.ID, Name: r.Name, Hostname: r.Config.Hostname, Networks: r.Networks, Ports: h.PortBindings,
		PublishAll: h.PublishAllPorts, Exposed: r.Config.ExposedPorts, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions,
		ExtraHosts: h.ExtraHosts, Domainname: r.Config.Domainname}
	for _, a := range h.DNS {
		q.DNS = append(q.DNS, a.String())
	}
	if first := r.Networks[string(h.NetworkMode)]; first != nil && len(h.Links) > 0 {
		linked := first.Copy()
		linked.Links = append(linked.Links, h.Links...)
		q.Networks = withNetwork(r.Networks, string(h.NetworkMode), linked)
	}
	return q
}

func (n *starting) allocate(ctx context.Context) error {
	if !n.r.bridged() {
		return nil
	}
	a, err := n.s.o.Networks.Allocate(ctx, n.r.allocateRequest())
	if err != nil {
		return err
	}
	n.onUndo(func(ctx context.Context) { n.s.log(n.s.o.Networks.Release(ctx, n.r.ID)) })
	n.content = sandbox.Content{Hosts: a.Hosts, ResolvConf: a.ResolvConf, Hostname: n.r.Config.Hostname}
	return nil
}

func (n *starting) writeFiles(context.Context) error {
	h := n.r.HostConfig
	files := sandbox.FilesIn(n.s.o.etcDir(n.r.ID))
	if err := os.MkdirAll(n.s.o.etcDir(n.r.ID), 0o700); err != nil {
		return err
	}
	switch {
	case h.NetworkMode.IsContainer():
		other, err := n.s.index.find(h.NetworkMode.ConnectedContainer())
		if err != nil {
			return err
		}
		files = sandbox.FilesIn(n.s.o.etcDir(other.id))
	case n.r.bridged():
		if err := files.Write(n.content); err != nil {
			return err
		}
	default:
		own := sandbox.HostNetwork{Hostname: n.r.Config.Hostname, ExtraHosts: h.ExtraHosts, DNS: h.DNS,
			DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions}
		if err := files.Write(own.Content()); err != nil {
			return err
		}
	}
	n.input.Hosts, n.input.HostnameFile, n.input.ResolvConf = files.Hosts, files.Hostname, files.ResolvConf
	return nil
}

func (n *starting) shareMemory(context.Context) error {
	if !n.r.HostConfig.IpcMode.IsShareable() {
		return nil
	}
	n.input.Shm = n.s.o.sharedMemory(n.r.ID)
	n.onUndo(func(context.Context) { n.s.log(removeSharedMemory(n.input.Shm)) })
	return makeSharedMemory(n.input.Shm, n.r)
}

func (n *starting) build(context.Context) (err error) {
	in := &n.input
	in.ID, in.Config, in.HostConfig = n.r.ID, n.r.Config, n.r.HostConfig
	in.User, in.Hostname = n.who.user, n.r.Config.Hostname
	in.Base, in.Size = n.r.IDMap.Base, n.r.IDMap.Size
	in.Oar, in.CgroupPath, in.MaxRlimits = n.s.o.Oar, n.s.o.cgroupPath(n.r), n.s.host.rlimit
	in.Env = []string{defaultPath, "HOSTNAME=" + n.r.Config.Hostname}
	if n.r.Config.Tty {
		in.Env = append(in.Env, "TERM=xterm")
	}
	if !slices.ContainsFunc(n.r.Config.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		in.Env = append(in.Env, "HOME="+n.who.home)
	}
	n.spec, err = spec.Build(*in)
	return err
}

func (n *starting) create(ctx context.Context) (err error) {
	root := n.r.rootfs(n.c.dir)
	root.Volatile = n.volatile()
	n.task, err = task.Create(ctx, task.CreateOptions{Oar: n.s.o.Oar, Dir: n.c.taskDir, ID: n.r.ID, Spec: n.spec, Rootfs: &root,
		Stdin: n.r.Config.OpenStdin, Log: n.r.Log})
	if err != nil {
		return err
	}
	n.onUndo(func(ctx context.Context) { n.s.log(n.task.Delete(ctx)) })
	for _, w := range n.task.Warnings() {
		n.s.log(fmt.Errorf("container %s: %s", n.r.Name, w))
	}
	return nil
}

// attach plumbs the network while the process waits: it never sees a moment without its interfaces.
func (n *starting) attach(ctx context.Context) error {
	if !n.r.bridged() {
		return nil
	}
	netns, err := n.task.Namespace("net")
	if err != nil {
		return err
	}
	defer netns.Close()
	return n.s.o.Networks.Attach(ctx, n.r.ID, netns)
}

func (n *starting) execute(ctx context.Context) error {
	n.began = time.Now()
	return n.task.Start(ctx)
}

// record makes the start known. A container with a restart policy is on the disk as started before anyone is told.
func (n *starting) record(ctx context.Context) error {
	c, t := n.c, n.task
	c.mu.Lock()
	c.task = t
	c.mu.Unlock()
	r, err := c.become(Running, !n.r.HostConfig.RestartPolicy.IsNone(), func(r *Record) {
		r.Pid, r.StartedAt, r.BootID, r.HasRun = t.Pid(), n.began.UTC(), n.s.host.bootID, true
		r.ExitCode, r.Error, r.OOMKilled, r.OOMVictim, r.Stopped = 0, "", false, "", false
		r.RestartCount, r.Restarted = 0, ""
		if n.again {
			r.Restarted = r.layerWord()
		}
		if n.o.byPolicy {
			r.RestartCount = n.r.RestartCount + 1
		}
	})
	if err != nil {
		c.mu.Lock()
		c.task = nil
		c.mu.Unlock()
		return err
	}
	if n.again {
		n.s.publish(r, events.ActionStart, "restart", r.layerWord())
	} else {
		n.s.publish(r, events.ActionStart)
	}
	n.s.lives.run(ctx, func(ctx context.Context) { n.watch(ctx, t) })
	n.startHealth(ctx)
	return nil
}

// layerWord says which writable layer a further start has.
func (r *Record) layerWord() string {
	if r.fresh() {
		return "fresh"
	}
	return "kept"
}
