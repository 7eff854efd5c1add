package image

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
)

// expiry is the label of leases that end by themselves (containerd's garbage collection).
const expiry = "containerd.io/gc.expire"

// lightLeases hold in memory what is here already, for as long as an operation lasts: to write that down takes two waits for the disk each time, and
// nobody needs it after a crash. A lease is noted on the disk when something is made under it. Leases that do not expire are noted at once.
type lightLeases struct {
	leases.Manager
	collecting sync.RWMutex // written while garbage is collected: who holds something sees afterwards whether it is still here

	mu   sync.Mutex // guards open
	open map[string]*lightLease
}

// lightLease is one that expires.
type lightLease struct {
	leases.Lease
	until time.Time

	noting sync.Mutex // held while it is noted, by who waits for the collector; mu never is

	mu           sync.Mutex // guards what follows
	noted, ended bool
	holds        map[leases.Resource]bool
}

// newLightLeases tells the collector of a store what is held.
func newLightLeases(db *metadata.DB) *lightLeases {
	l := &lightLeases{Manager: metadata.NewLeaseManager(db), open: map[string]*lightLease{}}
	db.RegisterCollectibleResource(heldInMemory, l)
	return l
}

// Create notes a lease that does not expire.
func (l *lightLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	made := &lightLease{holds: map[leases.Resource]bool{}}
	for _, o := range opts {
		if err := o(&made.Lease); err != nil {
			return leases.Lease{}, err
		}
	}
	until, err := time.Parse(time.RFC3339, made.Labels[expiry])
	if err != nil || made.ID == "" {
		return l.Manager.Create(ctx, opts...)
	}
	made.until, made.CreatedAt = until, time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.open, func(_ string, x *lightLease) bool { return time.Now().After(x.until) })
	if l.open[made.ID] != nil {
		return leases.Lease{}, fmt.Errorf("lease %q: %w", made.ID, errdefs.ErrAlreadyExists)
	}
	l.open[made.ID] = made
	return made.Lease, nil
}

func (l *lightLeases) find(id string) *lightLease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[id]
}

// Delete ends a lease.
func (l *lightLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	l.mu.Lock()
	x := l.open[lease.ID]
	delete(l.open, lease.ID)
	l.mu.Unlock()
	if x != nil {
		x.noting.Lock()
		x.mu.Lock()
		x.ended = true
		noted := x.noted
		x.mu.Unlock()
		x.noting.Unlock()
		if !noted {
			return nil
		}
	}
	return l.Manager.Delete(ctx, lease, opts...)
}

// List has those in memory too.
func (l *lightLeases) List(ctx context.Context, fs ...string) ([]leases.Lease, error) {
	out, err := l.Manager.List(ctx, fs...)
	if err != nil {
		return nil, err
	}
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	l.mu.Lock()
	open := slices.Collect(maps.Values(l.open))
	l.mu.Unlock()
	for _, x := range open {
		x.mu.Lock()
		if !x.noted && filter.Match(fieldsOf(x.Lease)) {
			out = append(out, x.Lease)
		}
		x.mu.Unlock()
	}
	return out, nil
}

// fieldsOf is a lease as filters see it.
func fieldsOf(l leases.Lease) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch {
		case len(path) == 1 && path[0] == "id":
			return l.ID, true
		case len(path) > 1 && path[0] == "labels":
			v, ok := l.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}

// AddResource holds something. Who looks whether it is here does so afterwards.
func (l *lightLeases) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	if x := l.find(lease.ID); x != nil && l.holdLight(x, r) {
		return nil
	}
	return l.Manager.AddResource(ctx, lease, r)
}

// holdLight holds in memory; false: the lease has ended.
func (l *lightLeases) holdLight(x *lightLease, r leases.Resource) bool {
	l.collecting.RLock()
	defer l.collecting.RUnlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return false
	}
	x.holds[r] = true
	return true
}

// DeleteResource lets go of something.
func (l *lightLeases) DeleteResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	x := l.find(lease.ID)
	if x == nil {
		return l.Manager.DeleteResource(ctx, lease, r)
	}
	x.mu.Lock()
	delete(x.holds, r)
	noted := x.noted
	x.mu.Unlock()
	if !noted {
		return nil
	}
	return l.Manager.DeleteResource(ctx, lease, r)
}

// ListResources are those in memory and those on the disk.
func (l *lightLeases) ListResources(ctx context.Context, lease leases.Lease) ([]leases.Resource, error) {
	x := l.find(lease.ID)
	if x == nil {
		return l.Manager.ListResources(ctx, lease)
	}
	x.mu.Lock()
	out, noted := slices.Collect(maps.Keys(x.holds)), x.noted
	x.mu.Unlock()
	if !noted {
		return out, nil
	}
	more, err := l.Manager.ListResources(ctx, lease)
	for _, r := range more {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, err
}

// note puts the lease of ctx on the disk, where what is made under it is looked for.
func (l *lightLeases) note(ctx context.Context) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	x := l.find(id)
	if x == nil {
		return nil
	}
	x.noting.Lock()
	defer x.noting.Unlock()
	x.mu.Lock()
	over := x.noted || x.ended // what is made under a lease that has ended fails
	x.mu.Unlock()
	if over {
		return nil
	}
	if _, err := l.Manager.Create(in(ctx), func(made *leases.Lease) error { *made = x.Lease; return nil }); err != nil {
		return fmt.Errorf("make a lease: %w", err)
	}
	x.mu.Lock()
	x.noted = true
	x.mu.Unlock()
	return nil
}

// leasedContent is content that is made under light leases.
type leasedContent struct {
	content.Store
	l *lightLeases
}

// Writer holds what is here already.
func (c leasedContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	id, _ := leases.FromContext(ctx)
	if x := c.l.find(id); x != nil && o.Desc.Digest != "" {
		_, err := c.Store.Info(ctx, o.Desc.Digest)
		if err == nil && c.l.holdLight(x, leases.Resource{ID: o.Desc.Digest.String(), Type: "content"}) {
			if _, err = c.Store.Info(ctx, o.Desc.Digest); err == nil { // still
				return nil, fmt.Errorf("content %v: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
			}
		}
	}
	if err := c.l.note(ctx); err != nil {
		return nil, err
	}
	return c.Store.Writer(ctx, opts...)
}

// leasedSnapshots are snapshots that are made under light leases.
type leasedSnapshots struct {
	snapshots.Snapshotter
	l *lightLeases
}

func (s leasedSnapshots) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.l.note(ctx); err != nil {
		return nil, err
	}
	return s.Snapshotter.Prepare(ctx, key, parent, opts...)
}

func (s leasedSnapshots) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.l.note(ctx); err != nil {
		return nil, err
	}
	return s.Snapshotter.View(ctx, key, parent, opts...)
}

func (s leasedSnapshots) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if err := s.l.note(ctx); err != nil {
		return err
	}
	return s.Snapshotter.Commit(ctx, name, key, opts...)
}

// heldInMemory is a kind of resource that there is none of: its collector says what is in use.
const heldInMemory = gc.ResourceType(0x1c)

// StartCollection is called when nothing else changes what is here.
func (l *lightLeases) StartCollection(context.Context) (metadata.CollectionContext, error) {
	l.collecting.Lock()
	return collection{l}, nil
}

// ReferenceLabel says that no label refers to such resources.
func (l *lightLeases) ReferenceLabel() string { return "" }

// collection is one run of the collector.
type collection struct{ l *lightLeases }

func (c collection) All(func(gc.Node))                    {}
func (c collection) Leased(_, _ string, _ func(gc.Node))  {}
func (c collection) Remove(gc.Node)                       {}
func (c collection) Cancel() error                        { c.l.collecting.Unlock(); return nil }
func (c collection) Finish() error                        { c.l.collecting.Unlock(); return nil }
func (c collection) Active(ns string, fn func(n gc.Node)) { c.l.each(ns, fn) }

func (l *lightLeases) each(ns string, fn func(gc.Node)) {
	if ns != namespace {
		return
	}
	l.mu.Lock()
	open := slices.Collect(maps.Values(l.open))
	l.mu.Unlock()
	for _, x := range open {
		if time.Now().After(x.until) {
			continue
		}
		x.mu.Lock()
		for r := range x.holds {
			if r.Type == "content" {
				fn(gc.Node{Type: metadata.ResourceContent, Namespace: ns, Key: r.ID})
			} else if name, ok := strings.CutPrefix(r.Type, "snapshots/"); ok {
				fn(gc.Node{Type: metadata.ResourceSnapshot, Namespace: ns, Key: name + "/" + r.ID})
			}
		}
		x.mu.Unlock()
	}
}
