// Package volume keeps named volumes: directories that outlive containers.
//
// On disk a volume is the folder <root>/<name>: opts.json, its definition, and _data, its files. A folder is made under a name that no
// volume can have (.new) and renamed when it is whole; it goes by the same way (.gone-…). A volume whose definition cannot be read is
// kept, listed and named, and nothing but its removal is done with it: a container that began with an empty directory in its place would
// be worse than one that does not start. References are in memory. A Service is safe for many goroutines: lists wait for no disk and no
// mount. A volume of another driver has its folder here, too, and its data at its driver's, who mounts it while containers run that have it.
package volume

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/plugin"
)

const labelAnonymous = "com.docker.volume.anonymous"

// Service owns <root>/volumes. A volume's data lies in <root>/volumes/<name>/_data with ids as seen inside (0…65535): it is id-mapped
// into each container that mounts it.
type Service struct {
	root   string
	events *event.Bus
	log    func(error)

	drivers drivers // of volumes that are kept by others

	changing sync.Mutex // held while a volume is made or taken out: one at a time

	mu  sync.Mutex // guards what follows and the entries' references; never held while the disk is asked
	all map[string]*entry
}

// entry is a volume in memory.
type entry struct {
	definition
	damaged error // why the definition cannot be read

	refs  map[string]struct{} // containers, guarded by Service.mu
	going bool                // its driver is removing it, likewise
	path  string              // where its driver says that it is, likewise

	mount sync.Mutex          // held while the volume's own file system is mounted, unmounted or its data removed
	users map[string]struct{} // containers that its driver has mounted it for, guarded by mount
}

// definition is what opts.json holds.
type definition struct {
	Name    string
	Created time.Time
	Labels  map[string]string
	Options map[string]string
	Driver  string `json:",omitempty"` // a program's name; "": local
	Scope   string `json:",omitempty"` // as the driver says; "": local
	Owner   string `json:",omitempty"` // who made it, as access.Caller.ID names them
	For     string `json:",omitempty"` // the container that an anonymous one was made for
}

// driver is the name of its driver.
func (d *definition) driver() string { return cmp.Or(d.Driver, local) }

// Options of Open.
type Options struct {
	Root    string // folder of the volumes
	Events  *event.Bus
	Log     func(error)    // is told of what goes wrong unasked; nil: nobody
	Drivers *plugin.Finder // of other drivers than the local one; nil: there is none
}

// Open reads the definitions of all volumes. Those that cannot be read are logged.
func Open(o Options) (*Service, error) {
	s := &Service{root: o.Root, events: o.Events, log: o.Log, drivers: drivers{o.Drivers}, all: map[string]*entry{}}
	if s.log == nil {
		s.log = func(error) {}
	}
	if o.Drivers == nil {
		s.drivers.Finder = &plugin.Finder{}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the volumes in %s: %w", o.Root, err)
	}
	for _, e := range s.all {
		if e.damaged != nil {
			s.log(e.damaged)
		}
	}
	return s, nil
}

// Close does nothing: volumes stay mounted for the containers that run on.
func (s *Service) Close() error { return nil }

func (s *Service) dir(name string) string  { return filepath.Join(s.root, name) }
func (s *Service) data(name string) string { return filepath.Join(s.root, name, dataDir) }

// shown is the volume as the API shows it. Of a driver's the place is known while it is mounted, or once the driver has been asked.
func (s *Service) shown(e *entry) volume.Volume {
	at := s.data(e.Name)
	if e.Driver != "" {
		s.mu.Lock()
		at = e.path
		s.mu.Unlock()
	}
	v := volume.Volume{Name: e.Name, Driver: e.driver(), Mountpoint: at, Scope: cmp.Or(e.Scope, local), Labels: maps.Clone(e.Labels), Options: maps.Clone(e.Options)}
	if !e.Created.IsZero() {
		v.CreatedAt = e.Created.Format(time.RFC3339)
	}
	if e.damaged != nil {
		v.Status = map[string]any{"Error": e.damaged.Error()}
	}
	return v
}

// find returns a volume that can be used.
func (s *Service) find(name string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[name]
	switch {
	case e == nil:
		return nil, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	case e.damaged != nil:
		return nil, e.damaged
	case e.going:
		return nil, fmt.Errorf("volume %s is being removed: %w", name, errdefs.ErrConflict)
	}
	return e, nil
}

// existing returns the volume of the same name, unless it was to be another one.
func (s *Service) existing(d definition) (*entry, error) {
	e, err := s.find(d.Name)
	if err == nil && d.Driver != e.Driver {
		return nil, fmt.Errorf("create %s: conflict: volume name must be unique: it is there already, with the driver %s: remove it or choose another name: %w", d.Name, e.driver(), errdefs.ErrConflict)
	}
	if err == nil && len(d.Options) > 0 && !maps.Equal(d.Options, e.Options) {
		return nil, fmt.Errorf("create %s: the volume is there already, with other options: remove it or choose another name: %w", d.Name, errdefs.ErrConflict)
	}
	return e, err
}

// Create returns the existing volume when name is taken by one with the same driver. An empty name gets 64 random hex digits and the
// label com.docker.volume.anonymous.
func (s *Service) Create(ctx context.Context, r volume.CreateRequest) (*volume.Volume, error) {
	return s.CreateFor(ctx, r, "")
}

// CreateFor is Create for a container: an anonymous volume remembers it, so that RemoveOf finds it.
func (s *Service) CreateFor(ctx context.Context, r volume.CreateRequest, containerID string) (*volume.Volume, error) {
	e, err := s.create(ctx, r, containerID)
	if err != nil {
		return nil, err
	}
	v := s.shown(e)
	return &v, nil
}

func (s *Service) create(ctx context.Context, r volume.CreateRequest, containerID string) (*entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	scope := access.ScopeOf(ctx)
	d := definition{Name: r.Name, Created: time.Now(), Labels: maps.Clone(r.Labels), Options: maps.Clone(r.DriverOpts), Owner: scope.Owner}
	if r.Driver != local {
		d.Driver = r.Driver
	}
	if d.Name == "" {
		d.anonymous()
		d.For = containerID
	}
	if err := checkName(d.Name); err != nil {
		return nil, err
	}
	if r.Driver == "" {
		s.mu.Lock()
		if e := s.all[d.Name]; e != nil {
			d.Driver = e.Driver
		}
		s.mu.Unlock()
	}
	if r.Driver != "" { // it is to be made
		if err := forgetLost(ctx, s, d.Name); err != nil {
			s.log(err)
		}
	}
	if e, err := s.existing(d); !errdefs.IsNotFound(err) {
		return seen(scope, e, err)
	}
	if r.Driver == "" && r.Name != "" && !scope.Limited {
		if by, k := s.drivers.owner(ctx, d.Name); k != nil {
			d.Driver, d.Scope = by.Name, by.scope(ctx)
		}
	}
	if err := d.conceive(ctx, s.drivers); err != nil {
		return nil, fmt.Errorf("create %s: %w", d.Name, err)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if e, err := s.existing(d); !errdefs.IsNotFound(err) {
		return seen(scope, e, err)
	}
	if err := scope.Afford("volumes", s.takenBy(scope.Owner), d.taken()); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", d.Name, err)
	}
	if err := s.makeDir(d); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", d.Name, err)
	}
	e := &entry{definition: d, refs: map[string]struct{}{}}
	s.mu.Lock()
	s.all[d.Name] = e
	s.mu.Unlock()
	s.events.Publish(events.VolumeEventType, events.ActionCreate, d.Name, map[string]string{"driver": d.driver(), access.OwnerAttribute: d.Owner})
	return e, nil
}

// seen refuses a volume of others.
func seen(scope access.Scope, e *entry, err error) (*entry, error) {
	if err == nil && !scope.Sees(e.Owner) {
		return nil, fmt.Errorf("volume %s belongs to somebody else, and you may use your own: %w", e.Name, errdefs.ErrPermissionDenied)
	}
	return e, err
}

func (d *definition) anonymous() {
	d.Name = randomName(32)
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	d.Labels[labelAnonymous] = ""
}

func randomName(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

func checkName(name string) error {
	const first, rest = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "_.-"
	switch {
	case len(name) == 1:
		return fmt.Errorf("create %s: volume name is too short, names should be at least two alphanumeric characters: %w", name, errdefs.ErrInvalidArgument)
	case len(name) > 255:
		return fmt.Errorf("create a volume: its name has %d characters, 255 is the most: %w", len(name), errdefs.ErrInvalidArgument)
	case strings.Trim(name, first+rest) != "" || !strings.Contains(first, name[:1]):
		return fmt.Errorf(`create %s: "%s" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path: %w`, name, name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Inspect shows one volume; a damaged one too. A driver is asked for what it says of its own, and for volumes that nobody knows.
func (s *Service) Inspect(ctx context.Context, name string) (*volume.Volume, error) {
	s.mu.Lock()
	e := s.all[name]
	s.mu.Unlock()
	none := fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	if e == nil {
		by, k := s.drivers.owner(ctx, name)
		if k == nil || access.ScopeOf(ctx).Limited {
			return nil, none
		}
		v := k.shown(by.Name, by.scope(ctx))
		return &v, nil
	}
	if _, err := seen(access.ScopeOf(ctx), e, nil); err != nil {
		return nil, err
	}
	v := s.shown(e)
	if e.Driver == "" || e.damaged != nil {
		return &v, nil
	}
	by, err := s.drivers.find(ctx, e.Driver)
	var k *kept
	if err == nil {
		k, err = by.get(ctx, name)
	}
	switch {
	case err != nil:
		v.Status = map[string]any{"Error": err.Error()}
	case k == nil:
		return nil, fmt.Errorf("the driver %s does not have it any more: %w", e.Driver, none)
	default:
		v.Mountpoint, v.Status = cmp.Or(k.Mountpoint, v.Mountpoint), k.Status
	}
	return &v, nil
}

// List takes Docker's filters (name, driver, label, dangling).
func (s *Service) List(ctx context.Context, filters map[string]map[string]bool) ([]volume.Volume, error) {
	list, err := s.matching(filters, listFilters)
	if err != nil {
		return nil, err
	}
	out := make([]volume.Volume, 0, len(list))
	for _, e := range list {
		if access.ScopeOf(ctx).Sees(e.Owner) {
			out = append(out, s.shown(e))
		}
	}
	if access.ScopeOf(ctx).Limited {
		return out, nil
	}
	others, err := others(ctx, s, filters)
	if err != nil || len(others) == 0 {
		return out, err
	}
	out = append(out, others...)
	slices.SortFunc(out, func(a, b volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// matching returns the entries that all filters let through, by name.
func (s *Service) matching(filters map[string]map[string]bool, known string) ([]*entry, error) {
	keep, err := compile(filters, known)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*entry
	for _, e := range s.all {
		if keep(e) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// taken is what a volume takes in memory, roughly.
func (d *definition) taken() int { return 1<<10 + len(d.Name) + access.Weight(d.Labels, d.Options) }

// takenBy is what somebody's volumes take.
func (s *Service) takenBy(owner string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		if e.Owner == owner {
			n += e.taken()
		}
	}
	return n
}
