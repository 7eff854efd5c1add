package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
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
	return life{s, c}.startByUser(ctx, startOptions{})
}

func (l life) startByUser(ctx context.Context, o startOptions) error {
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
	err := l.start(ctx, o)
	if err == nil {
		if !r.HostConfig.AutoRemove { // the end of such a one may be near, and is waited for
			l.s.blank.hurry()
		}
		return nil
	}
	if waiting && !errors.Is(err, errClosed) {
		l.c.settle(func(r *Record) { r.Status = Exited })
	}
	if r.HostConfig.AutoRemove {
		l.s.log(l.removeNow(ctx, RemoveOptions{Volumes: true}))
	}
	return err
}

// startOptions of start; the zero value is a start that the user asked for.
type startOptions struct {
	byPolicy bool
	from     *checkpointed // nil: the program begins
}

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
	making  *task.Creation
	task    *task.Task
	cause   why.Cause  // of a failure, where the runtime does not know it
	began   time.Time  // right before the program was executed
	held    []*os.File // what the runtime finds by this process's descriptors
	undo    []func(context.Context)
	free    func() // lets others have the writable layer
}

// startStep is one named part of a start.
type startStep struct {
	name    string
	run     func(*starting, context.Context) error
	runtime bool // it may end for what the runtime says, which names a step of its own
}

// startSteps in order. Each notes how it is undone; the runtime's own steps are in package ociruntime.
func startSteps() []startStep {
	return []startStep{
		{name: "ask the policy", run: (*starting).permit},
		{name: "wait for who writes into it", run: (*starting).alone},
		{name: "look at the layers", run: (*starting).layers},
		{name: "find the user", run: (*starting).findUser},
		{name: "find the devices", run: (*starting).findDevices},
		{name: "find what is to be mounted", run: (*starting).findMounts},
		{name: "show the secrets", run: (*starting).showSecrets},
		{name: "open the namespaces to join", run: (*starting).join},
		{name: "reserve addresses and ports", run: (*starting).allocate},
		{name: "write the files of /etc", run: (*starting).writeFiles},
		{name: "share memory", run: (*starting).shareMemory},
		{name: "build the configuration", run: (*starting).build},
		{name: "begin the task", run: (*starting).begin},
		{name: "attach the network", run: (*starting).attach, runtime: true},
		{name: "finish the task", run: (*starting).finish, runtime: true},
		{name: "execute the program", run: (*starting).execute, runtime: true},
		{name: "record the start", run: (*starting).record},
	}
}

// start brings the container to life; the caller holds op and has looked at the status. What was made is undone in reverse on failure.
func (l life) start(ctx context.Context, o startOptions) error {
	lasting, done := l.s.lives.outlive(ctx)
	defer done()
	ctx, cancel := context.WithTimeoutCause(lasting, startLimit, fmt.Errorf("the start took longer than %s", startLimit))
	defer cancel()
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
			n.undo[i](lasting)
		}
		n.release()
		if errors.Is(context.Cause(lasting), errClosed) { // which says nothing of the container
			return errClosed
		}
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
		code, n.cause = failure.Code, failure.Cause
		err = invalid("%s", failure.Message)
	} else if errdefs.IsUnknown(errdefs.Resolve(err)) {
		tried := step.name + " of"
		if step.runtime {
			tried = "start"
		}
		err = fmt.Errorf("%s container %s: %w", tried, n.r.Name, err)
	}
	n.s.log(n.failedToStart(code, err))
	n.c.settle(func(r *Record) {
		r.ExitCode, r.Error = code, err.Error()
		if n.o.byPolicy {
			r.RestartCount++
		}
	})
	return err
}

func (n *starting) onUndo(fn func(context.Context)) { n.undo = append(n.undo, fn) }

// release closes what only the start needed.
func (n *starting) release() {
	for _, f := range n.held {
		f.Close()
	}
	n.held = nil
	if n.free != nil {
		n.free()
	}
	n.s.log(n.hideImages())
	n.s.log(n.hideSecrets())
}

// begin gives the container to a shim, and does not wait until that has made it.
func (n *starting) begin(ctx context.Context) (err error) {
	root := n.s.o.rootfs(n.r)
	root.Volatile, root.ReadOnly = n.volatile(), false // read-only once the places of mounts are made: the spec says so
	var restore *shim.Restore
	if n.o.from != nil {
		restore = &shim.Restore{Dir: n.o.from.dir, Criu: n.o.from.criu}
	}
	n.making, err = task.Begin(ctx, task.CreateOptions{Restore: restore, Shims: n.s.shims, Dir: n.c.taskDir, ID: n.r.ID, Spec: n.spec, Rootfs: &root, Filters: &n.s.filters,
		Stdin: n.r.Config.OpenStdin, Log: n.r.Log, Hidden: n.input.SecretEnv, Life: n.r.Lives + 1,
		Last: n.r.HostConfig.AutoRemove})
	if err == nil {
		n.onUndo(n.unmake)
	}
	return err
}

// finish waits until the container is made, where that has not been done.
func (n *starting) finish(ctx context.Context) (err error) {
	if n.task != nil {
		return nil
	}
	making := n.making
	n.making = nil
	if n.task, err = making.Finish(ctx); err != nil {
		return err
	}
	for _, w := range n.task.Warnings() {
		n.s.log(fmt.Errorf("container %s: %s", n.r.Name, w))
	}
	return nil
}

func (n *starting) unmake(ctx context.Context) {
	switch {
	case n.making != nil:
		n.making.Abort(ctx)
	case n.task != nil:
		n.s.log(n.task.Delete(ctx))
	}
}

// attach plumbs the network while the shim makes the rest, where the namespace was there before, or while the process waits: it never sees a
// moment without its interfaces.
func (n *starting) attach(ctx context.Context) error {
	switch {
	case !n.r.bridged():
		return nil
	case n.making.Net != nil:
		return n.s.o.Networks.Attach(ctx, n.r.ID, n.making.Net)
	}
	if err := n.finish(ctx); err != nil {
		return err
	}
	netns, err := n.task.Namespace("net")
	if err != nil {
		// The process has died on its way to the gate: the start says at what.
		if why := n.task.Start(ctx); why != nil {
			return why
		}
		return err
	}
	defer netns.Close()
	return n.s.o.Networks.Attach(ctx, n.r.ID, netns)
}

func (n *starting) execute(ctx context.Context) error {
	forgetAsks(n.c)
	n.s.senders.add(n.c.id, n.task.Pid(), n.input.CgroupPath)
	n.onUndo(func(context.Context) { n.s.senders.forget(n.c.id) })
	sockets := networks.Sockets(n.s.o.Networks, n.r.ID)
	defer closeFiles(sockets)
	n.began = time.Now()
	return n.task.Start(ctx, sockets...)
}

// record makes the start known.
func (n *starting) record(ctx context.Context) error {
	t := n.task
	if err := n.recordStart(); err != nil {
		return err
	}
	n.s.lives.run(ctx, func(ctx context.Context) { n.watch(ctx, t) })
	sendOutput(ctx, n.life)
	n.startHealth(ctx)
	relink(n.s, n.c.id)
	return nil
}

// recordStart writes the start down and tells it. A container with a restart policy is on the disk as started before anyone is told.
func (n *starting) recordStart() error {
	c, t := n.c, n.task
	c.mu.Lock()
	c.task = t
	c.policy.keep = false // whoever has it started anew has what they want
	c.mu.Unlock()
	resetHealth(c)
	r, err := c.become(Running, !n.r.HostConfig.RestartPolicy.IsNone(), func(r *Record) {
		r.Pid, r.StartedAt, r.BootID, r.HasRun, r.Lives = t.Pid(), n.began.UTC(), n.s.host.bootID, true, n.r.Lives+1
		r.Cgroup, r.Image.Lower = n.input.CgroupPath, n.r.Image.Lower
		r.ExitCode, r.Error, r.OOMKilled, r.OOMVictim, r.Stopped = 0, "", false, "", false
		r.RestartCount, r.Restarted, r.Health = 0, "", nil
		if n.again && n.o.from == nil {
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
	tellVolumes(n.s, r, events.ActionMount)
	switch {
	case n.o.from != nil:
		n.s.publish(r, events.ActionStart, "checkpoint", n.o.from.name)
	case n.again:
		n.s.publish(r, events.ActionStart, "restart", r.layerWord())
	default:
		n.s.publish(r, events.ActionStart)
	}
	return nil
}

// layerWord says which writable layer a further start has.
func (r *Record) layerWord() string {
	if r.fresh() {
		return "fresh"
	}
	return "kept"
}
