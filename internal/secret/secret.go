// Package secret keeps values that containers are given and nobody else sees: secrets, and configs, which are the same but may be read again.
//
// On disk one is two files in <root>/secrets (or <root>/configs): <id>.data, the value as it came, 0600, and <id>.json, which says what it
// is. The value is whole and synced before the other file is there, and goes after it. A value is read when a container starts; it is never
// kept in memory, and no error names it. References are in memory: whoever uses one claims it again when the engine starts. A Service is
// safe for many goroutines.
package secret

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/event"
)

// Kind is what a Service keeps.
type Kind string

// The two that there are. Configs are shown to those who inspect them.
const (
	Secret Kind = "secret"
	Config Kind = "config"
)

// Largest is what a value may have, as in Docker's and Podman's stores.
const Largest = 512_000

// Item is what is known of a secret without its value.
type Item struct {
	ID        string
	CreatedAt time.Time
	UpdatedAt time.Time
	Spec      Spec
}

// Spec is what it was made with. Data is of configs only, and only when one is inspected.
type Spec struct {
	Name   string
	Labels map[string]string
	Data   []byte `json:",omitempty"`
}

// Service owns a directory of values.
type Service struct {
	dir    string
	kind   Kind
	events *event.Bus

	changing sync.Mutex // held while the disk is written to: one at a time

	mu   sync.Mutex // guards what follows; never held while the disk is asked
	all  map[string]*Item
	refs map[string]map[string]struct{} // containers by id of a secret
}

// Open reads what is kept below dir. What is damaged is told to log (nil: nobody) and left where it is; halves that an engine left that was
// killed meanwhile go.
func Open(dir string, kind Kind, bus *event.Bus, log func(error)) (*Service, error) {
	s := &Service{dir: dir, kind: kind, events: bus, all: map[string]*Item{}, refs: map[string]map[string]struct{}{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of %ss: %w", kind, err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the directory of %ss: %w", kind, err)
	}
	for _, e := range list {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		item, err := readItem(filepath.Join(dir, e.Name()))
		if err == nil && item.ID != id {
			err = errors.New("it is another one's")
		}
		if err != nil {
			if log != nil {
				log(fmt.Errorf("the %s in %s cannot be read, remove both files to be rid of it: %w", kind, filepath.Join(dir, e.Name()), err))
			}
			continue
		}
		s.all[id] = item
	}
	for _, e := range list {
		id, ok := strings.CutSuffix(e.Name(), ".data")
		if _, err := os.Stat(filepath.Join(dir, id+".json")); ok && errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), ".new-") {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return s, nil
}

func readItem(path string) (*Item, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var i Item
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, err
	}
	return &i, nil
}

// checkName keeps names to what can stand in a path, a flag's value and a line of a table.
func checkName(kind Kind, name string) error {
	ok := name != "" && len(name) <= 253
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("invalid %s name %q: letters and digits, and after the first also . _ -; 253 at most: %w", kind, name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// CreateOptions of Create. Replace puts a new value in the place of an earlier one of the name; containers see it when they start next.
type CreateOptions struct {
	Name    string
	Labels  map[string]string
	Replace bool
}

// Create keeps a value, and returns when it is on the disk.
func (s *Service) Create(ctx context.Context, o CreateOptions, value io.Reader) (string, error) {
	if err := checkName(s.kind, o.Name); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(value, Largest+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the value of %s %s: %w", s.kind, o.Name, err)
	case len(data) == 0:
		return "", fmt.Errorf("the %s %s has no value: it cannot be empty: %w", s.kind, o.Name, errdefs.ErrInvalidArgument)
	case len(data) > Largest:
		return "", fmt.Errorf("the %s %s is larger than %d bytes: mount it from a volume: %w", s.kind, o.Name, Largest, errdefs.ErrInvalidArgument)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	now := time.Now().UTC()
	item := &Item{ID: newID(), CreatedAt: now, UpdatedAt: now, Spec: Spec{Name: o.Name, Labels: maps.Clone(o.Labels)}}
	action := events.ActionCreate
	if old := s.named(o.Name); old != nil {
		if !o.Replace {
			return "", fmt.Errorf("%s %s: the name is in use: remove it first, or replace it (--replace): %w", s.kind, o.Name, errdefs.ErrAlreadyExists)
		}
		item.ID, item.CreatedAt, action = old.ID, old.CreatedAt, events.ActionUpdate
	}
	if err := s.write(item, data); err != nil {
		return "", fmt.Errorf("keep the %s %s: %w", s.kind, o.Name, err)
	}
	s.mu.Lock()
	s.all[item.ID] = item
	s.mu.Unlock()
	s.publish(action, item)
	return item.ID, nil
}

// write has the value on the disk before anything says that it is there.
func (s *Service) write(i *Item, data []byte) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	if err := s.put(i.ID+".data", data); err != nil {
		return err
	}
	return s.put(i.ID+".json", text)
}

func (s *Service) put(name string, b []byte) error {
	f, err := os.CreateTemp(s.dir, ".new-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return s.sync()
}

func (s *Service) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// newID is as long as Docker's and Podman's: 25 digits.
func newID() string {
	var raw [13]byte
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])[:25]
}

func (s *Service) publish(action events.Action, i *Item) {
	if s.events != nil {
		s.events.Publish(events.Type(s.kind), action, i.ID, map[string]string{"name": i.Spec.Name})
	}
}

// named finds one by its name.
func (s *Service) named(name string) *Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.all {
		if i.Spec.Name == name {
			return i
		}
	}
	return nil
}

// find takes a name, an id, or the beginning of one id.
func (s *Service) find(name string) (*Item, error) {
	if i := s.named(name); i != nil {
		return i, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*Item
	for id, i := range s.all {
		if id == name {
			return i, nil
		}
		if name != "" && strings.HasPrefix(id, name) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no such %s: %s: %w", s.kind, name, errdefs.ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%s: several %ss begin so: give more of the id: %w", name, s.kind, errdefs.ErrInvalidArgument)
}

// Inspect tells what is known of one: of a config, also its value.
func (s *Service) Inspect(name string) (Item, error) {
	i, err := s.find(name)
	if err != nil {
		return Item{}, err
	}
	out := shown(i)
	if s.kind == Config {
		out.Spec.Data, err = s.Value(i.ID)
	}
	return out, err
}

func shown(i *Item) Item {
	out := *i
	out.Spec.Labels = maps.Clone(i.Spec.Labels)
	if out.Spec.Labels == nil {
		out.Spec.Labels = map[string]string{}
	}
	return out
}

// List gives all that meet the filters, by name. There are id, label and name.
func (s *Service) List(filters map[string]map[string]bool) ([]Item, error) {
	for name := range filters {
		if !slices.Contains([]string{"id", "label", "name"}, name) {
			return nil, fmt.Errorf("invalid filter '%s': there are id, label and name: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Item{}
	for _, i := range s.all {
		if meets(i, filters) {
			out = append(out, shown(i))
		}
	}
	slices.SortFunc(out, func(a, b Item) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return out, nil
}

func meets(i *Item, filters map[string]map[string]bool) bool {
	for v := range filters["label"] {
		key, want, has := strings.Cut(v, "=")
		if got, ok := i.Spec.Labels[key]; !ok || has && got != want {
			return false
		}
	}
	any := func(values map[string]bool, of string) bool {
		for v := range values {
			if strings.HasPrefix(of, v) {
				return true
			}
		}
		return len(values) == 0
	}
	return any(filters["id"], i.ID) && any(filters["name"], i.Spec.Name)
}

// Value reads it. The caller writes it nowhere that lasts.
func (s *Service) Value(id string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, id+".data"))
	if err != nil {
		return nil, fmt.Errorf("read the value of a %s: %w", s.kind, err)
	}
	return b, nil
}

// Acquire notes that a container uses one, and gives its id.
func (s *Service) Acquire(name, container string) (string, error) {
	for range 2 {
		i, err := s.find(name)
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		if s.all[i.ID] != nil { // it may have gone since
			if s.refs[i.ID] == nil {
				s.refs[i.ID] = map[string]struct{}{}
			}
			s.refs[i.ID][container] = struct{}{}
			s.mu.Unlock()
			return i.ID, nil
		}
		s.mu.Unlock()
	}
	return "", fmt.Errorf("no such %s: %s: %w", s.kind, name, errdefs.ErrNotFound)
}

// Release takes all claims of a container back.
func (s *Service) Release(container string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, users := range s.refs {
		delete(users, container)
		if len(users) == 0 {
			delete(s.refs, id)
		}
	}
}

// Remove deletes one that no container uses.
func (s *Service) Remove(name string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	i, err := s.find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	users := slices.Sorted(maps.Keys(s.refs[i.ID]))
	if len(users) == 0 {
		delete(s.all, i.ID)
	}
	s.mu.Unlock()
	if len(users) > 0 {
		for n := range users {
			users[n] = users[n][:min(12, len(users[n]))]
		}
		return fmt.Errorf("remove %s %s: it is in use by container %s: remove that first: %w", s.kind, i.Spec.Name, strings.Join(users, ", "), errdefs.ErrConflict)
	}
	err = os.Remove(filepath.Join(s.dir, i.ID+".json"))
	if err == nil {
		err = s.sync()
	}
	if err == nil {
		err = os.Remove(filepath.Join(s.dir, i.ID+".data"))
	}
	if err != nil {
		return fmt.Errorf("remove %s %s: %w", s.kind, i.Spec.Name, err)
	}
	s.publish(events.ActionRemove, i)
	return nil
}
