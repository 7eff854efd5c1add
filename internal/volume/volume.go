// Package volume keeps named volumes: directories that outlive containers.
//
// A Service owns <root>/volumes: <name>/opts.json says what a volume is, <name>/_data holds what it contains, with ids as seen inside
// (0…65535): it is id-mapped into each container that mounts it. Who uses a volume is kept in memory and told again by the containers at
// each start. All methods are safe for many goroutines; lists read what is in memory.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/event"
)

// anonymousLabel marks volumes that nobody named, as Docker does.
const anonymousLabel = "com.docker.volume.anonymous"

// Service owns the volumes below one directory.
type Service struct {
	root   string
	events *event.Bus
	log    func(error)

	mu      sync.Mutex // guards what follows
	volumes map[string]*entry
}

// entry is one volume.
type entry struct {
	definition

	op      sync.Mutex      // one mount, unmount or removal at a time
	users   map[string]bool // ids of containers; guarded by Service.mu
	mounted bool            // its driver options are mounted on _data; guarded by op
	gone    bool            // guarded by op
}

// Open reads the volumes below root. What is damaged is set aside and told to log (nil: nobody); the rest works.
func Open(root string, ev *event.Bus, log func(error)) (*Service, error) {
	s := &Service{root: root, events: ev, log: log, volumes: map[string]*entry{}}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of volumes: %w", err)
	}
	list, damaged, err := readDefinitions(root)
	if err != nil {
		return nil, fmt.Errorf("read the volumes: %w", err)
	}
	for _, err := range damaged {
		if log != nil {
			log(err)
		}
	}
	for _, d := range list {
		s.volumes[d.Name] = &entry{definition: d, users: map[string]bool{}, mounted: d.hasMount() && isMountpoint(dataDir(root, d.Name))}
	}
	return s, nil
}

// Close leaves everything as it is: running containers keep their volumes.
func (s *Service) Close() error { return nil }

// Create returns the existing volume when name is taken by one with the same driver. An empty name gets 64 random hex digits and the
// label com.docker.volume.anonymous.
func (s *Service) Create(ctx context.Context, r volume.CreateRequest) (*volume.Volume, error) {
	d, err := newDefinition(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if e := s.volumes[d.Name]; e != nil {
		defer s.mu.Unlock()
		if len(r.DriverOpts) > 0 && !maps.Equal(r.DriverOpts, e.Options) {
			return nil, fmt.Errorf("volume %s is there already, with other options: remove it or choose another name: %w", d.Name, errdefs.ErrConflict)
		}
		return s.show(e), nil
	}
	e := &entry{definition: d, users: map[string]bool{}}
	e.op.Lock()
	defer e.op.Unlock()
	s.volumes[d.Name] = e
	s.mu.Unlock()
	if err := d.write(s.root); err != nil {
		s.mu.Lock()
		delete(s.volumes, d.Name)
		s.mu.Unlock()
		e.gone = true
		return nil, fmt.Errorf("make volume %s: %w", d.Name, err)
	}
	s.publish(events.ActionCreate, d.Name, "driver", d.Driver)
	return s.show(e), nil
}

func newDefinition(r volume.CreateRequest) (definition, error) {
	d := definition{Name: r.Name, Driver: "local", Labels: maps.Clone(r.Labels), Options: maps.Clone(r.DriverOpts), CreatedAt: time.Now().UTC()}
	if r.Driver != "" && r.Driver != "local" {
		return d, fmt.Errorf("create %s: volume driver %q is not there: this engine has local only: %w", r.Name, r.Driver, errdefs.ErrNotFound)
	}
	if d.Name == "" {
		var b [32]byte
		_, _ = rand.Read(b[:])
		d.Name = hex.EncodeToString(b[:])
		if d.Labels == nil {
			d.Labels = map[string]string{}
		}
		d.Labels[anonymousLabel] = ""
	}
	if !validName(d.Name) {
		return d, fmt.Errorf(`create %s: "%s" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path: %w`,
			d.Name, d.Name, errdefs.ErrInvalidArgument)
	}
	return d, d.checkOptions()
}

// validName keeps names from being paths: a letter or digit, then letters, digits, "_", "." and "-".
func validName(name string) bool {
	if len(name) < 2 || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

// Inspect shows one volume.
func (s *Service) Inspect(ctx context.Context, name string) (*volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.volumes[name]
	if e == nil {
		return nil, noSuchVolume(name)
	}
	return s.show(e), nil
}

func noSuchVolume(name string) error {
	return fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
}

// show is a volume in the API's shape. s.mu is held.
func (s *Service) show(e *entry) *volume.Volume {
	v := &volume.Volume{Name: e.Name, Driver: e.Driver, Mountpoint: dataDir(s.root, e.Name), CreatedAt: e.CreatedAt.Format(time.RFC3339),
		Labels: maps.Clone(e.Labels), Options: maps.Clone(e.Options), Scope: "local"}
	return v
}

// Users are the ids of the containers that refer to a volume, sorted.
func (s *Service) Users(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.volumes[name]
	if e == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(e.users))
}

// Remove refuses with errdefs.ErrFailedPrecondition (409) while a container refers to the volume. With force a volume that is not there
// is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	e, err := s.lock(name)
	if err != nil {
		if force && errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	defer e.op.Unlock()
	if users := s.Users(name); len(users) > 0 {
		return fmt.Errorf("remove %s: volume is in use - [%s]: remove the containers first: %w", name, strings.Join(users, ", "), errdefs.ErrFailedPrecondition)
	}
	return s.removeNow(e)
}

// lock finds a volume and holds its op.
func (s *Service) lock(name string) (*entry, error) {
	s.mu.Lock()
	e := s.volumes[name]
	s.mu.Unlock()
	if e == nil {
		return nil, noSuchVolume(name)
	}
	e.op.Lock()
	if e.gone {
		e.op.Unlock()
		return nil, noSuchVolume(name)
	}
	return e, nil
}

// removeNow takes the definition away first: what is no longer listed may then go in pieces. e.op is held.
func (s *Service) removeNow(e *entry) error {
	if err := e.unmount(s.root); err != nil {
		return err
	}
	aside := filepath.Join(s.root, e.Name+removedSuffix)
	if err := os.Rename(filepath.Join(s.root, e.Name), aside); err != nil {
		return fmt.Errorf("remove volume %s: %w", e.Name, err)
	}
	e.gone = true
	s.mu.Lock()
	delete(s.volumes, e.Name)
	s.mu.Unlock()
	s.publish(events.ActionDestroy, e.Name, "driver", e.Driver)
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove the data of volume %s: %w", e.Name, err)
	}
	return nil
}

// Acquire notes that a container refers to the volume and returns its data directory, and whether it is empty (then the caller copies the
// image's content up on first use). A volume that is not there is made. References live in memory: containers are re-acquired at start.
func (s *Service) Acquire(ctx context.Context, name, containerID string) (dir string, fresh bool, err error) {
	e, err := s.lock(name)
	for errdefs.IsNotFound(err) { // again where somebody removes it in between
		if _, err := s.Create(ctx, volume.CreateRequest{Name: name}); err != nil {
			return "", false, err
		}
		e, err = s.lock(name)
	}
	if err != nil {
		return "", false, err
	}
	defer e.op.Unlock()
	if err := e.mount(s.root); err != nil {
		return "", false, err
	}
	s.mu.Lock()
	first := !e.users[containerID]
	e.users[containerID] = true
	s.mu.Unlock()
	dir = dataDir(s.root, name)
	if first {
		s.publish(events.ActionMount, name, "driver", e.Driver, "container", containerID, "destination", dir)
	}
	fresh, err = empty(dir)
	return dir, fresh, err
}

// Release takes a reference back. Unknown ones are fine.
func (s *Service) Release(ctx context.Context, name, containerID string) {
	e, err := s.lock(name)
	if err != nil {
		return
	}
	defer e.op.Unlock()
	s.mu.Lock()
	had := e.users[containerID]
	delete(e.users, containerID)
	left := len(e.users)
	s.mu.Unlock()
	if !had {
		return
	}
	s.publish(events.ActionUnmount, name, "driver", e.Driver, "container", containerID)
	if left == 0 {
		if err := e.unmount(s.root); err != nil && s.log != nil {
			s.log(err)
		}
	}
}

func (s *Service) publish(a events.Action, name string, pairs ...string) {
	attributes := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		attributes[pairs[i]] = pairs[i+1]
	}
	s.events.Publish(events.VolumeEventType, a, name, attributes)
}
