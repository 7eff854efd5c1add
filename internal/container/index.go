package container

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/task"
)

// Container is a container in memory. Its record is read without a lock.
type Container struct {
	id, dir, taskDir string
	rec              atomic.Pointer[Record]

	op   sync.Mutex // one start, exit or removal at a time; held across I/O, never by readers
	disk onDisk

	audience audience

	mu      sync.Mutex // guards what follows; held for moments
	task    *task.Task
	policy  policy
	health  *health
	readers map[*logs.Reader]bool // of the output
	changed chan struct{}         // closed and replaced at each change of the record
	gone    chan struct{}         // closed when it has been removed
	past    past                  // its ends
}

// onDisk is the record as it is on the disk.
type onDisk struct {
	sync.Mutex       // one change at a time, until it is written; never taken by readers
	stale      error // why it is an older one; nil: it is not
	layer      Layer // beside it
	trees      Trees
}

func newContainer(r *Record, dir, taskDir string) *Container {
	c := &Container{id: r.ID, dir: dir, taskDir: taskDir, readers: map[*logs.Reader]bool{}, changed: make(chan struct{}), gone: make(chan struct{})}
	c.disk.trees.All.Own = ownDepth
	c.rec.Store(r)
	return c
}

// record is the container's present record: read it once, and read from that.
func (c *Container) record() *Record { return c.rec.Load() }

// change makes a new record, by fn on a copy, and writes it; durable: on the disk before change returns.
func (c *Container) change(durable bool, fn func(*Record) error) (*Record, error) {
	c.disk.Lock()
	defer c.disk.Unlock()
	next := *c.rec.Load()
	if err := fn(&next); err != nil {
		return nil, err
	}
	if err := next.write(c.dir, durable); err != nil {
		return nil, err
	}
	c.disk.stale = nil
	c.set(&next, nil)
	return &next, nil
}

// set makes a record the present one and wakes who waits for a change; the caller holds disk. tell, which may be nil, publishes the change
// before anybody who has waited for it goes on.
func (c *Container) set(r *Record, tell func(*Record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Load().Status.Alive() && !r.Status.Alive() {
		c.past.exits++
		c.audience.over()
	}
	c.past.kept.Forget()
	c.rec.Store(r)
	if tell != nil {
		tell(r)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// become is change to another status, guarded.
func (c *Container) become(s Status, durable bool, fn func(*Record)) (*Record, error) {
	return c.change(durable, func(r *Record) (err error) {
		if r.Status, err = r.Status.To(s); err == nil && fn != nil {
			fn(r)
		}
		return err
	})
}

// running is the task of a container that has a process.
func (c *Container) running() (*task.Task, *Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rec.Load()
	if c.task == nil || !r.Status.Alive() {
		return nil, r, notRunning(r)
	}
	return c.task, r, nil
}

// next waits for a change of the record: take the channel first, then look.
func (c *Container) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// index finds containers by id and by name. Names are reserved before their containers exist.
type index struct {
	mu    sync.RWMutex // guards what follows
	byID  map[string]*Container
	names map[string]string     // name to id
	links map[string]*Container // those that are linked to others, by id: every start asks for them
}

func newIndex() *index {
	return &index{byID: map[string]*Container{}, names: map[string]string{}, links: map[string]*Container{}}
}

// reserve takes a name for a container.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner, ok := x.names[name]; ok && owner != id {
		return fail(errdefs.ErrConflict, `Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, owner)
	}
	x.names[name] = id
	return nil
}

func (x *index) release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == id {
		delete(x.names, name)
	}
}

func (x *index) add(c *Container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[c.id] = c
	if len(c.record().Links) > 0 {
		x.links[c.id] = c
	}
}

func (x *index) remove(c *Container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, c.id)
	delete(x.links, c.id)
	for name, id := range x.names {
		if id == c.id {
			delete(x.names, name)
		}
	}
}

// find takes a whole id, a name, one that a link gives (/app/db), or the beginning of one id only.
func (x *index) find(name string) (*Container, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c, ok := x.byID[name]; ok {
		return c, nil
	}
	if c, ok := x.byID[x.names[strings.TrimPrefix(name, "/")]]; ok {
		return c, nil
	}
	if c := x.linked(name); c != nil {
		return c, nil
	}
	var found *Container
	for id, c := range x.byID {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, invalid("multiple IDs found with provided prefix: %s: give more of the id, or the name", name)
		}
		found = c
	}
	if found == nil {
		return nil, noSuchContainer(name)
	}
	return found, nil
}

// named is find for a container that the configuration of another one names: only the image of a create may be "not found", as the docker
// client would pull it then.
func (x *index) named(name string) (*Container, error) {
	c, err := x.find(name)
	if errdefs.IsNotFound(err) {
		return nil, invalid("No such container: %s: the namespaces or volumes of that one were asked for", name)
	}
	return c, err
}

// linkers are the containers that are linked to one.
func (x *index) linkers(id string) (out []*Container) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, c := range x.links {
		if slices.ContainsFunc(c.record().Links, func(l Link) bool { return l.ID == id }) {
			out = append(out, c)
		}
	}
	return out
}

// sharers are the other containers that have a container's ids.
func (x *index) sharers(r *Record) (out []*Container) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, c := range x.byID {
		if c.id != r.ID && c.record().IDMap == r.IDMap {
			out = append(out, c)
		}
	}
	return out
}

// all are the containers, newest first.
func (x *index) all() []*Container {
	x.mu.RLock()
	list := make([]*Container, 0, len(x.byID))
	for _, c := range x.byID {
		list = append(list, c)
	}
	x.mu.RUnlock()
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].record(), list[j].record()
		if a.Created.Equal(b.Created) {
			return a.ID < b.ID
		}
		return a.Created.After(b.Created)
	})
	return list
}
