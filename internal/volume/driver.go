package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/plugin"
)

// local is the driver of volumes that lie below the Service's root. All others are programs (package plugin) that implement this:
const (
	local          = "local"
	implementation = "VolumeDriver"
)

// How long a program may take: for what the engine has to know, to say what it is or to let a volume go, for what the engine would like to know, and to be
// there at all, at a boot.
const (
	driverLimit   = 2 * time.Minute
	answerLimit   = 15 * time.Second
	askLimit      = 2 * time.Second
	driverArrives = 10 * time.Second
)

// driver is a program that keeps volumes. What it mounts for a container is bound on the volume's own data folder, so that everything but the mounting is
// as with a local volume's own file system.
type driver struct{ *plugin.Plugin }

// request is what all calls take; each has its part of it.
type request struct {
	Name string
	Opts map[string]string `json:",omitempty"`
	ID   string            `json:",omitempty"` // of who mounts
}

// kept is a volume as its driver describes it.
type kept struct {
	Name       string
	Mountpoint string
	CreatedAt  time.Time
	Status     map[string]any
}

// drivers finds them.
type drivers struct{ *plugin.Finder }

func (f drivers) find(ctx context.Context, name string) (driver, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("it has not answered within %s", answerLimit))
	defer cancel()
	p, err := f.Find(ctx, name, implementation)
	return driver{p}, err
}

// await is find for a volume that is here: at a boot its driver may be there a little later than the engine.
func (f drivers) await(ctx context.Context, name string) (driver, error) {
	for end := time.Now().Add(driverArrives); ; {
		d, err := f.find(ctx, name)
		if err == nil || !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) || time.Now().After(end) {
			return d, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return d, errors.Join(context.Cause(ctx), err)
		}
	}
}

func (d driver) call(ctx context.Context, method string, r request, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, driverLimit, fmt.Errorf("it has not answered within %s", driverLimit))
	defer cancel()
	if err := d.Call(ctx, implementation+"."+method, r, out); err != nil {
		return fmt.Errorf("volume driver %s: %w", d.Name, err)
	}
	return nil
}

// get asks for one volume; nil: the driver has none of this name.
func (d driver) get(ctx context.Context, name string) (*kept, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var out struct{ Volume *kept }
	err := d.call(ctx, "Get", request{Name: name}, &out)
	if errdefs.IsNotImplemented(err) { // of before Docker 1.10: it is trusted to have what it has made
		return &kept{Name: name}, nil
	}
	if errdefs.IsInternal(err) { // there is no word for "it is not there" but the driver's own
		return nil, nil
	}
	if err != nil || out.Volume == nil || out.Volume.Name == "" {
		return nil, err
	}
	return out.Volume, nil
}

func (d driver) list(ctx context.Context) ([]kept, error) {
	var out struct{ Volumes []kept }
	err := d.call(ctx, "List", request{}, &out)
	if errdefs.IsNotImplemented(err) {
		return nil, nil
	}
	return out.Volumes, err
}

// scope is local, or global where the driver's volumes are the same on all machines.
func (d driver) scope(ctx context.Context) string {
	var out struct{ Capabilities struct{ Scope string } }
	if err := d.call(ctx, "Capabilities", request{}, &out); err == nil && strings.EqualFold(out.Capabilities.Scope, "global") {
		return "global"
	}
	return local
}

// mount has the driver mount a volume for somebody, and returns where.
func (d driver) mount(ctx context.Context, name, id string) (string, error) {
	var out struct{ Mountpoint string }
	if err := d.call(ctx, "Mount", request{Name: name, ID: id}, &out); err != nil {
		return "", err
	}
	if !filepath.IsAbs(out.Mountpoint) {
		err := fmt.Errorf("volume driver %s has mounted it at %q, which is no absolute path: %w", d.Name, out.Mountpoint, errdefs.ErrInternal)
		return "", errors.Join(err, d.call(ctx, "Unmount", request{Name: name, ID: id}, nil))
	}
	return out.Mountpoint, nil
}

// Drivers are the names of all drivers that there are programs of, the local one first. Those that do not answer are left out.
func (s *Service) Drivers(ctx context.Context) []string { return s.drivers.names(ctx) }

func (f drivers) names(ctx context.Context) []string {
	out := []string{local}
	for _, d := range f.present(ctx) {
		out = append(out, d.Name)
	}
	return out
}

// present are the drivers that answer. As a rule there is none, which costs a look into some folders that are not there.
func (f drivers) present(ctx context.Context) []driver {
	names := f.Names()
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	found := make([]driver, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { found[i], _ = f.find(ctx, name) })
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(d driver) bool { return d.Plugin == nil })
}

// owner is the driver that has a volume which is not known here: it was made by another machine, or by hand.
func (f drivers) owner(ctx context.Context, name string) (driver, *kept) {
	for _, d := range f.present(ctx) {
		if k, err := d.get(ctx, name); err == nil && k != nil {
			return d, k
		}
	}
	return driver{}, nil
}

// shown is a driver's volume as the API shows it.
func (k *kept) shown(driver, scope string) volume.Volume {
	v := volume.Volume{Name: k.Name, Driver: driver, Mountpoint: k.Mountpoint, Scope: scope, Labels: map[string]string{}, Status: k.Status}
	if !k.CreatedAt.IsZero() {
		v.CreatedAt = k.CreatedAt.Format(time.RFC3339)
	}
	return v
}

// conceive checks the options of a volume to be, and has its driver make it, which one that has it already does not mind.
func (d *definition) conceive(ctx context.Context, f drivers) error {
	if d.Driver == "" {
		_, err := parseOptions(d.Options)
		return err
	}
	by, err := f.find(ctx, d.Driver)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf(`error looking up volume plugin %s: plugin "%s" not found: there are the drivers %s: %w`, d.Driver, d.Driver, strings.Join(f.names(ctx), ", "), errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("error looking up volume plugin %s: %w", d.Driver, err)
	}
	if err := by.call(ctx, "Create", request{Name: d.Name, Opts: d.Options}, nil); err != nil {
		return err
	}
	if d.Scope == "" {
		d.Scope = by.scope(ctx)
	}
	return nil
}

// forgetLost forgets a volume that nobody uses here and that its driver has lost.
func forgetLost(ctx context.Context, s *Service, name string) error {
	s.mu.Lock()
	e := s.all[name]
	asked := e != nil && e.Driver != "" && len(e.refs) == 0 && !e.going
	s.mu.Unlock()
	if !asked {
		return nil
	}
	by, err := s.drivers.find(ctx, e.Driver)
	if err != nil {
		return nil // who makes it anew is told
	}
	if k, err := by.get(ctx, name); err != nil || k != nil {
		return nil
	}
	gone, err := s.takeOut(ctx, name)
	if err != nil {
		return err
	}
	return removeTree(gone)
}

// others are the volumes that drivers have and nobody has used here.
func others(ctx context.Context, s *Service, filters map[string]map[string]bool) ([]volume.Volume, error) {
	found := s.drivers.present(ctx)
	if len(found) == 0 {
		return nil, nil
	}
	keep, err := compile(filters, listFilters)
	if err != nil {
		return nil, err
	}
	var out []volume.Volume
	for _, d := range found {
		limited, cancel := context.WithTimeout(ctx, askLimit)
		list, err := d.list(limited)
		cancel()
		if err != nil {
			s.log(err)
			continue
		}
		s.mu.Lock()
		for _, k := range list {
			e := &entry{definition: definition{Name: k.Name, Driver: d.Name}}
			if s.all[k.Name] == nil && keep(e) {
				out = append(out, k.shown(d.Name, local))
			}
		}
		s.mu.Unlock()
	}
	return out, nil
}

// use notes a user. The caller holds mount.
func (e *entry) use(id string) {
	if e.users == nil {
		e.users = map[string]struct{}{}
	}
	e.users[id] = struct{}{}
}

// mountFor has the driver mount a volume for somebody and binds what it has mounted on the volume's data.
func mountFor(ctx context.Context, s *Service, e *entry, id string) error {
	e.mount.Lock()
	defer e.mount.Unlock()
	if _, ok := e.users[id]; ok && isThere(s, e) {
		return nil
	}
	d, err := s.drivers.await(ctx, e.Driver)
	if err != nil {
		return err
	}
	at, err := d.mount(ctx, e.Name, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	e.path = at
	s.mu.Unlock()
	if !isThere(s, e) { // what is there else was mounted by one that has gone
		if err = unmount(s.data(e.Name)); err == nil {
			err = (&source{bind: true, recursive: true, device: at}).mountOn(ctx, s.data(e.Name))
		}
	}
	if err != nil {
		return errors.Join(err, d.call(ctx, "Unmount", request{Name: e.Name, ID: id}, nil))
	}
	e.use(id)
	return nil
}

// isThere says that the volume's data is what its driver has mounted.
func isThere(s *Service, e *entry) bool {
	s.mu.Lock()
	at := e.path
	s.mu.Unlock()
	a, err := os.Stat(at)
	if err != nil {
		return false
	}
	b, err := os.Stat(s.data(e.Name))
	return err == nil && os.SameFile(a, b)
}

// unmountFor takes back mountFor.
func unmountFor(ctx context.Context, s *Service, e *entry, id string) {
	e.mount.Lock()
	defer e.mount.Unlock()
	if _, ok := e.users[id]; !ok {
		return
	}
	delete(e.users, id)
	if len(e.users) == 0 {
		if err := unmount(s.data(e.Name)); err != nil {
			s.log(fmt.Errorf("volume %s is not used any more but stays mounted: %w", e.Name, err))
		}
	}
	limited, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("it has not answered within %s", answerLimit))
	defer cancel()
	d, err := s.drivers.find(limited, e.Driver)
	if err == nil {
		err = d.call(limited, "Unmount", request{Name: e.Name, ID: id}, nil)
	}
	if err != nil {
		s.log(fmt.Errorf("unmount volume %s: %w", e.Name, err))
	}
}

// Idle says that a container which refers to the volume has ended: its driver, where it has one, unmounts what it has mounted for it.
func (s *Service) Idle(ctx context.Context, name, containerID string) {
	s.mu.Lock()
	e := s.all[name]
	s.mu.Unlock()
	if e != nil && e.Driver != "" {
		unmountFor(ctx, s, e, containerID)
	}
}

// Borrow sees to it that the files of a volume that somebody refers to are there until giveBack is called, though nobody runs who has it.
func (s *Service) Borrow(ctx context.Context, name string) (giveBack func(), err error) {
	s.mu.Lock()
	e := s.all[name]
	s.mu.Unlock()
	if e == nil || e.Driver == "" {
		return func() {}, nil
	}
	id := randomName(16)
	if err := mountFor(ctx, s, e, id); err != nil {
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	return func() { unmountFor(context.WithoutCancel(ctx), s, e, id) }, nil
}

// stays ends the removal of a volume that is there still.
func stays(s *Service, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.all[name]; e != nil {
		e.going = false
	}
}

// removeAtDriver has the driver remove a volume that nobody uses, and nobody gets to use until takeOut or stays. With force one that it cannot remove is forgotten here all the same.
func removeAtDriver(ctx context.Context, s *Service, name string, force bool) error {
	s.mu.Lock()
	e := s.all[name]
	if e == nil || e.Driver == "" || e.damaged != nil {
		s.mu.Unlock()
		return nil
	}
	_, err := seen(access.ScopeOf(ctx), e, e.inUse())
	if err == nil && e.going {
		err = fmt.Errorf("volume %s is being removed: %w", name, errdefs.ErrConflict)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	e.going = true
	s.mu.Unlock()
	d, err := s.drivers.find(ctx, e.Driver)
	if err == nil {
		err = d.call(ctx, "Remove", request{Name: name}, nil)
	}
	if err != nil && !force {
		return fmt.Errorf("remove %s: %w: with force it is forgotten here, whatever its driver does", name, err)
	}
	return nil
}
