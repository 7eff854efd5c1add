// Package container keeps containers: their records, their life cycle, their processes and what these print.
//
// On disk a container is the folder <Root>/containers/<id>: config.json (the record), rootfs/{upper,work} (the writable layer) and logs/.
// Its task's folder is <State>/tasks/<id>; hosts, hostname and resolv.conf lie in <State>/etc/<id>. What is alive is what the kernel and the shim say; the record
// follows. A Service is safe for many goroutines: lists read immutable records, no lock is held while something slow is done but the
// container's own "one operation at a time".
package container

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/logs"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/secret"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/volume"
)

// Options of Open.
type Options struct {
	Root         string // <Root>/containers/<id>/…
	State        string // <State>/tasks/<id>/…
	Oar          string // path of the oar binary
	CgroupParent string // "" : "/wherry"
	ShimGroup    string // directory of the shims' control group; "": the engine's own
	Socket       string // where clients reach the engine; "": nowhere that can be mounted
	Images       *image.Service
	Networks     *networks.Service
	Volumes      *volume.Service
	Secrets      *secret.Service // nil: there are none
	Settings     settings.Containers
	Configs      *secret.Service // nil: there are none
	Events       *event.Bus
	// Log is told what a person should know and no call returns: damaged records, clean-ups that did not work. nil: nobody.
	Log func(error)
	// Trace is told how long each step of a start took. nil: nobody.
	Trace func(id, step string, took time.Duration)
}

// Service owns the containers. Safe for many goroutines; lists read an immutable snapshot.
type Service struct {
	o      Options
	ranges *sandbox.Ranges
	index  *index
	execs  *Execs
	host   host
	opened chan struct{} // closed when what is left of earlier lives is known
	lives  lives

	filters   task.Filters
	shims     *task.Shims
	followers logs.Watcher // of output
	graves    graves
	blank     blank
	senders   senders
	halting   atomic.Bool // the host is being shut down: nothing is started any more

	etc sync.Mutex // one at a time learns of addresses and writes them to files of /etc: a later one has the last word
}

// lives are the goroutines of a Service, and what it goes on with when who asked for it has gone.
type lives struct {
	mu      sync.Mutex // guards what follows
	closed  bool
	late    bool // closed, and for so long that nothing goes on
	next    int
	cancels map[int]context.CancelCauseFunc
	lasting map[int]context.CancelCauseFunc // of outlive
	sending map[string]bool                 // containers whose output somebody sends
	wg      sync.WaitGroup
}

// closeLimit is what the engine's end leaves to what goes on without its client: enough for what does not wait for anything. The next life goes on
// from there, as it does after a kill.
const closeLimit = 2 * time.Second

// outlive gives a context to what does not end with its client. It ends with the engine, a little later than the others.
func (l *lives) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late {
		cancel(errClosed)
	}
	if l.lasting == nil {
		l.lasting = map[int]context.CancelCauseFunc{}
	}
	n := l.next
	l.next++
	l.lasting[n] = cancel
	return ctx, func() {
		cancel(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.lasting, n)
	}
}

// giveUp ends what goes on.
func (l *lives) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = true
	for _, cancel := range l.lasting {
		cancel(errClosed)
	}
}

// run starts a goroutine that outlives the request whose context is given; its own ends at stop. False: the service is closed.
func (l *lives) run(ctx context.Context, fn func(context.Context)) bool {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		cancel(errClosed)
		return false
	}
	if l.cancels == nil {
		l.cancels = map[int]context.CancelCauseFunc{}
	}
	n := l.next
	l.next++
	l.cancels[n] = cancel
	l.wg.Go(func() {
		defer func() {
			cancel(errClosed)
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.cancels, n)
		}()
		fn(ctx)
	})
	return true
}

func (l *lives) stop() {
	l.mu.Lock()
	l.closed = true
	for _, cancel := range l.cancels {
		cancel(errClosed)
	}
	l.mu.Unlock()
	defer time.AfterFunc(closeLimit, l.giveUp).Stop()
	l.wg.Wait()
}

// Close drops connections to the shims. Containers keep running; where none does, their common control group goes.
func (s *Service) Close() error {
	s.lives.stop()
	s.log(s.blank.drop())
	s.senders.close()
	s.shims.Close()
	alive := false
	for _, c := range s.index.all() {
		c.mu.Lock()
		if c.task != nil {
			alive = true
			c.task.Close()
		}
		c.mu.Unlock()
	}
	if !alive {
		s.o.unmountEtc()
		s.log(s.o.Images.Unmount()) // they are mounted again when somebody needs them
	}
	if g, err := cgroup.Open(s.o.CgroupParent); err == nil && !alive {
		for _, dir := range g.Dirs() {
			_ = os.Remove(dir) // not empty: another engine's containers are in it
		}
	}
	return s.followers.Close()
}

// log tells what no call can return.
func (s *Service) log(err error) {
	if err != nil && s.o.Log != nil {
		s.o.Log(err)
	}
}

// publish tells the world about a container, with Docker's attributes: its labels, image and name, and what more is given in pairs.
func (s *Service) publish(r *Record, action events.Action, more ...string) {
	attributes := make(map[string]string, len(r.Config.Labels)+2+len(more)/2)
	for k, v := range r.Config.Labels {
		attributes[k] = v
	}
	attributes["image"], attributes["name"] = r.Config.Image, r.Name
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	attributes[access.OwnerAttribute] = r.Owner
	s.o.Events.Publish(events.ContainerEventType, action, r.ID, attributes)
}

// Terminal says whether the container has one (raw stream) or not (stdcopy frames).
func (s *Service) Terminal(id string) (bool, error) {
	c, err := s.index.find(id)
	if err != nil {
		return false, err
	}
	return c.record().Config.Tty, nil
}

// Resize tells the container's terminal its size; where there is none nothing is done.
func (s *Service) Resize(ctx context.Context, id string, rows, cols uint16) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	t, r, err := c.running()
	if err != nil {
		return err
	}
	if !r.Config.Tty {
		return nil
	}
	if err := t.Resize(ctx, rows, cols); err != nil {
		return err
	}
	s.publish(r, events.ActionResize, "height", strconv.Itoa(int(rows)), "width", strconv.Itoa(int(cols)))
	return nil
}

// View is what packages files and monitor need of a container: values, no locks.
type View struct {
	ID, Name   string
	Running    bool
	Paused     bool
	Pid        int
	Init       *os.File // a pidfd of the init process when running; the caller closes it
	Rootfs     rootfs.Rootfs
	Config     *container.Config
	HostConfig *container.HostConfig
	Mounts     []container.MountPoint
	Binds      []spec.Mount // the same, with what inspect does not show
	Secrets    bool         // it has file systems of secrets, which are nobody's to read from outside
	Image      *image.Image
	Cgroup     *cgroup.Group // nil when not running
	Kept       *Kept         // what was measured of it; nil when running
	Layer      *Layer        // to be held by who mounts its writable layer, which is nobody while it runs
	Networks   map[string]*network.EndpointSettings
	Created    time.Time
	Owner      string // who made it, as access.Caller.ID names them
}
