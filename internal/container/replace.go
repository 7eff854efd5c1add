package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/spec"
)

// Replacement is noted in the record of a container that is taking another one's place. The note is what an engine that was killed goes on
// from: before Switched the old container serves and the new one goes; from then on the new one serves and the old one goes.
type Replacement struct {
	Old       string // its id
	Name      string // its name, which the new one gets
	Live      bool   // it runs: the new one publishes nothing until it takes over
	Switched  bool
	AutoStart bool // the old one was running or was to be started again
	Keep      bool // the old one stays, stopped
	Drain     time.Duration
	Stop      StopOptions
}

// ReplaceOptions of Replace; a zero duration is the default.
type ReplaceOptions struct {
	HealthTimeout time.Duration // how long the new one may take to be healthy, or to listen where nothing checks its health
	Settle        time.Duration // how long the new one has to run where nothing checks its health
	Drain         time.Duration // how long connections to the old one may go on; negative: not at all
	Stop          StopOptions   // of the old one
	Keep          bool          // the old one stays, stopped, under another name
	Tell          func(string)  // is told how far it is; may be nil
}

const (
	defaultHealthTimeout = 2 * time.Minute
	defaultSettle        = 3 * time.Second
	defaultDrain         = 10 * time.Second
)

// replacing is one replacement on its way.
type replacing struct {
	s        *Service
	o        ReplaceOptions
	old, new *Container
	name     string
	listened []uint16 // ports at which the old one takes connections
}

// Replace puts a container of another image in the place of one, with the same configuration. Both run until the new one is healthy; then
// published ports and names move to it at once, connections to the old one get time to end, and it goes. Where the new one does not get
// healthy it goes, and the old one has never noticed.
func Replace(ctx context.Context, s *Service, id, image string, o ReplaceOptions) (newID string, err error) {
	old, err := s.index.find(id)
	if err != nil {
		return "", err
	}
	n := &replacing{s: s, o: o.withDefaults(), old: old, name: old.record().Name}
	if err := n.make(ctx, image); err != nil {
		return "", err
	}
	n.new.setKept(true) // with --rm, too, its output is wanted when it fails
	defer n.new.setKept(false)
	lasting, done := s.lives.outlive(ctx)
	defer done()
	err = n.ready(ctx)
	if err == nil {
		err = n.change(lasting)
	}
	if err != nil {
		return "", n.revert(lasting, err)
	}
	ended := make(chan error, 1)
	if !s.lives.run(ctx, func(ctx context.Context) { ended <- n.finish(ctx) }) {
		return n.new.id, errClosed
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("the new container serves; the old one is stopped without you: %w", context.Cause(ctx))
	}
	return n.new.id, err
}

func (o ReplaceOptions) withDefaults() ReplaceOptions {
	for _, row := range []struct {
		d       *time.Duration
		instead time.Duration
	}{{&o.HealthTimeout, defaultHealthTimeout}, {&o.Settle, defaultSettle}, {&o.Drain, defaultDrain}} {
		if *row.d == 0 {
			*row.d = row.instead
		}
	}
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	return o
}

func (n *replacing) tell(format string, args ...any) { n.o.Tell(fmt.Sprintf(format, args...)) }

// make makes the new container, with a note in its record.
func (n *replacing) make(ctx context.Context, image string) error {
	old := n.old
	old.op.Lock()
	r := old.record()
	err := n.allowed(r)
	old.op.Unlock()
	if err != nil {
		return err
	}
	q := successor(r, image)
	q.Name = r.Name + ".new"
	q.Secrets = r.Secrets
	q.replaces = &Replacement{Old: r.ID, Name: r.Name, Live: r.Status.Alive(), AutoStart: r.Status.Alive() || r.Status == Restarting,
		Keep: n.o.Keep, Drain: n.o.Drain, Stop: n.o.Stop}
	// It belongs to whom the old one belongs to, whoever replaces it.
	answer, err := n.s.Create(access.With(ctx, access.Scope{Owner: r.Owner, Limited: r.Limited}), q)
	if errdefs.IsConflict(err) {
		if other, found := n.s.index.find(q.Name); found == nil && other.record().Replaces != nil {
			return busy(r, "being replaced already")
		}
	}
	if err != nil {
		return err
	}
	if n.new, err = n.s.index.find(answer.ID); err != nil {
		return err
	}
	n.tell("made %s of %s", n.new.record().short(), image)
	return nil
}

// allowed says why a container cannot be replaced.
func (n *replacing) allowed(r *Record) error {
	m := r.HostConfig.NetworkMode
	switch {
	case n.old.isGone(), r.Status == Removing, r.Status == Dead:
		return fail(errdefs.ErrConflict, "container %s is marked for removal and cannot be replaced", r.Name)
	case r.Replaces != nil:
		return busy(r, "taking the place of another one: wait until that is done")
	case r.Status == Paused:
		return fail(errdefs.ErrConflict, "container %s is paused: unpause it before it is replaced", r.Name)
	case r.Status.Alive() && (m.IsHost() || m.IsContainer()):
		return fail(errdefs.ErrConflict, "container %s has the network mode %s: two programs cannot listen at the same ports of one network, and there is nothing to switch between them; stop it first, and it is replaced while it does not run", r.Name, m)
	}
	for _, other := range n.s.index.all() {
		for _, name := range joinedNames(other.record().HostConfig) {
			if joined, err := n.s.index.find(name); err == nil && joined == n.old {
				return fail(errdefs.ErrConflict, "container %s uses namespaces of container %s, which go with it: remove that one first", other.record().Name, r.Name)
			}
		}
	}
	return nil
}

// ready starts the new one and waits until it serves.
func (n *replacing) ready(ctx context.Context) error {
	note := n.new.record().Replaces
	l := life{n.s, n.old}
	if !note.Live && note.AutoStart {
		if _, err := l.stop(ctx, n.o.Stop); err != nil && !errdefs.IsNotModified(err) {
			return err
		}
	}
	if !note.AutoStart {
		return nil
	}
	n.listened = slices.DeleteFunc(n.old.listening(), func(p uint16) bool { return !declared(n.old.record(), p) })
	if err := (life{n.s, n.new}).startByUser(ctx, startOptions{}); err != nil {
		return err
	}
	n.tell("started it")
	return n.serves(ctx)
}

// change makes the new one serve: from the moment that its record says so, there is no way back but another change.
func (n *replacing) change(ctx context.Context) error {
	n.old.op.Lock()
	defer n.old.op.Unlock()
	n.new.op.Lock()
	defer n.new.op.Unlock()
	r := n.new.record()
	switch {
	case n.old.isGone():
		return noSuchContainer(n.old.id)
	case n.new.isGone(), r.Replaces == nil:
		return noSuchContainer(n.new.id)
	case r.Replaces.AutoStart && !r.Status.Alive():
		return n.died(ctx, r)
	}
	if err := n.note(func(note *Replacement) { note.Switched = true }); err != nil {
		return err
	}
	if err := n.hand(n.old, n.new); err != nil {
		return err
	}
	keepSockets(ctx, life{n.s, n.new})
	n.tell("switched to it")
	return n.swapNames(n.old, n.new, n.aside())
}

// note changes the note in the new one's record, on the disk.
func (n *replacing) note(fn func(*Replacement)) error {
	_, err := n.new.change(true, func(r *Record) error {
		note := *r.Replaces
		fn(&note)
		r.Replaces = &note
		return nil
	})
	return err
}

// hand gives the ports and names of one to the other, where that one runs.
func (n *replacing) hand(from, to *Container) error {
	r := to.record()
	if !r.Status.Alive() || !r.bridged() || r.HostConfig.NetworkMode.IsNone() {
		return nil
	}
	h := r.HostConfig
	return networks.TakeOver(n.s.o.Networks, from.id, networks.PortsRequest{ContainerID: to.id, Ports: h.PortBindings, PublishAll: h.PublishAllPorts, Exposed: r.Config.ExposedPorts})
}

// aside is the name that the old one has while both are there.
func (n *replacing) aside() string {
	name := n.name + ".old"
	if other, err := n.s.index.find(name); err == nil && other != n.old {
		name += "-" + n.old.record().short()
	}
	return name
}

// swapNames gives a container's name to another one. The first one's goes first: two records never have the same.
func (n *replacing) swapNames(from, to *Container, aside string) error {
	x := n.s.index
	for _, step := range []struct {
		c    *Container
		name string
	}{{from, aside}, {to, n.name}} {
		before := step.c.record().Name
		if before == step.name {
			continue
		}
		if err := x.reserve(step.name, step.c.id); err != nil {
			return err
		}
		r, err := step.c.change(true, func(r *Record) error {
			r.Name = step.name
			return nil
		})
		if err != nil {
			x.release(step.name, step.c.id)
			return err
		}
		x.release(before, step.c.id)
		if r.bridged() {
			n.s.o.Networks.Rename(r.ID, r.Name)
		}
		n.s.publish(r, events.ActionRename, "oldName", "/"+before)
	}
	n.s.log(x.moveLinks(from, to)) // which is no reason to take the change back
	return nil
}

// finish lets the old one's connections end, and removes it. It ends with ctx when the engine closes: its next life goes on.
func (n *replacing) finish(ctx context.Context) error {
	note := n.new.record().Replaces
	if n.old.record().Status.Alive() {
		if err := n.drain(ctx, note); err != nil {
			return err
		}
	}
	ctx, done := n.s.lives.outlive(ctx)
	defer done()
	l := life{n.s, n.old}
	n.tell("stopping the old one")
	if _, err := l.stop(ctx, note.Stop); err != nil && !errdefs.IsNotModified(err) && !errdefs.IsNotFound(err) {
		return fmt.Errorf("the new container serves; the old one, %s, is not stopped: %w", n.old.record().Name, err)
	}
	if r := n.new.record(); r.Status.Alive() && r.bridged() {
		n.s.log(networks.TakeStatic(n.s.o.Networks, r.ID))
	}
	if note.Keep && !n.old.isGone() {
		if _, err := n.old.change(true, func(r *Record) error {
			h := *r.HostConfig
			h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyDisabled}
			r.HostConfig = &h
			return nil
		}); err != nil {
			return err
		}
		n.tell("the old one is called %s", n.old.record().Name)
	} else if err := l.remove(ctx, RemoveOptions{Force: true}); err != nil {
		return fmt.Errorf("the new container serves; the old one, %s, is not removed: %w", n.old.record().Name, err)
	}
	_, err := n.new.change(true, func(r *Record) error {
		r.Replaces = nil
		return nil
	})
	return err
}

// drain waits until the old one has no connections from outside any more. Where the new one ends meanwhile, the old one is back.
func (n *replacing) drain(ctx context.Context, note *Replacement) error {
	if note.Drain < 0 {
		return nil
	}
	n.tell("waiting for the old one's connections to end")
	deadline := time.NewTimer(note.Drain)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 2; {
		if connections(n.old.record().Pid, n.old.listening()) == 0 {
			quiet++ // twice: what was under way to it at the change has arrived by then
		} else {
			quiet = 0
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if r := n.new.record(); !r.Status.Alive() && n.old.record().Status.Alive() {
			return n.revert(ctx, n.died(ctx, r))
		}
	}
	return nil
}

// revert takes the new one away; where it serves already the old one gets everything back.
func (n *replacing) revert(ctx context.Context, why error) error {
	errs := []error{why}
	r := n.new.record()
	if note := r.Replaces; note != nil && note.Switched && !n.old.isGone() {
		n.old.op.Lock()
		n.new.op.Lock()
		errs = append(errs, n.hand(n.new, n.old), n.swapNames(n.new, n.old, n.name+".new"))
		errs = append(errs, n.note(func(note *Replacement) { note.Switched = false }))
		n.new.op.Unlock()
		n.old.op.Unlock()
	}
	if err := (life{n.s, n.new}).remove(ctx, RemoveOptions{Force: true, Volumes: true}); err != nil {
		errs = append(errs, fmt.Errorf("remove the new container: %w", err))
	}
	if note := r.Replaces; note != nil && !note.Live && note.AutoStart {
		errs = append(errs, (life{n.s, n.old}).startByUser(ctx, startOptions{}))
	}
	if err := errors.Join(errs[1:]...); err != nil {
		return fmt.Errorf("%w; and then: %v", why, err)
	}
	return why
}

// declared says that a container's TCP port is published or exposed.
func declared(r *Record, number uint16) bool {
	port, _ := network.PortFrom(number, network.TCP)
	_, published := r.HostConfig.PortBindings[port]
	_, exposed := r.Config.ExposedPorts[port]
	return published || exposed
}

// inherited gives mounts without a name the volumes that the old container has there.
func inherited(list []spec.Mount, from []spec.Mount) {
	for i := range list {
		m := &list[i]
		if !m.Anonymous || m.Name != "" {
			continue
		}
		at := slices.IndexFunc(from, func(o spec.Mount) bool { return o.Anonymous && o.Destination == m.Destination })
		if at >= 0 {
			m.Name, m.Source = from[at].Name, from[at].Source
		}
	}
}
