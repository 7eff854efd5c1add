package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/ref"
)

// pins are the names and ids of images that neither clean-up nor prune removes. A pinned name may come to mean another image; what it means
// is what stays. They are a file of their own, <root>/images.pins, so that they outlive a damaged database.
type pins struct {
	path string

	mu   sync.Mutex // guards what follows
	list []string   // full references and digests, sorted
}

func openPins(root string) (*pins, error) {
	p := &pins{path: filepath.Join(root, "images.pins")}
	b, err := os.ReadFile(p.path)
	if os.IsNotExist(err) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pinned images: %w", err)
	}
	if err := json.Unmarshal(b, &p.list); err != nil {
		return p, fmt.Errorf("read pinned images: %s: %w", p.path, err)
	}
	return p, nil
}

// change pins names, or takes their pins away; it is on disk on return.
func (p *pins) change(pin bool, names ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(p.list), func(n string) bool { return slices.Contains(names, n) })
	if pin {
		list = append(list, names...)
	}
	slices.Sort(list)
	if list = slices.Compact(list); slices.Equal(list, p.list) {
		return nil
	}
	b, err := json.Marshal(list)
	if err == nil {
		err = replaceFile(p.path, b)
	}
	if err != nil {
		return fmt.Errorf("write pinned images: %w", err)
	}
	p.list = list
	return nil
}

func (p *pins) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

// hold says that one of an image's names, or its id, is pinned.
func (p *pins) hold(e *entry) bool {
	for _, pinned := range p.all() {
		if pinned == e.target.Digest.String() || slices.Contains(e.names, pinned) {
			return true
		}
	}
	return false
}

// Pins are the pinned names and ids, as people write them.
func Pins(s *Service) []string {
	out := []string{}
	for _, n := range s.pins.all() {
		out = append(out, familiar(n))
	}
	return out
}

// Pin keeps an image from clean-up and prune, by the name or id that it was found by; with pin false it ends that, whichever was
// pinned. A name that no image has any more can still be unpinned.
func Pin(ctx context.Context, s *Service, name string, pin bool) error {
	s.naming.Lock() // what is pinned now is not being removed
	defer s.naming.Unlock()
	img, err := s.find(in(ctx), name)
	if err != nil && (pin || !errdefs.IsNotFound(err)) {
		return err
	}
	var names []string
	if r, err := ref.Parse(name); err == nil && !isFullID(name) && (!pin || img.Name == r.String()) {
		names = append(names, r.String())
	}
	if img.Target.Digest != "" && (!pin || names == nil) {
		names = append(names, img.Target.Digest.String())
	}
	if !pin && !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(s.pins.all(), n) }) {
		return fmt.Errorf("image %s is not pinned: %w", name, errdefs.ErrNotFound)
	}
	return s.pins.change(pin, names...)
}

// matchesAny holds an image's names against patterns in which * stands for anything, slashes too.
func (e *entry) matchesAny(patterns []string) bool {
	tags, digests := e.tagsAndDigests()
	for _, p := range patterns {
		for _, name := range append(append(tags, digests...), e.names...) {
			if wild(p, name) || wild(p, familiar(name)) {
				return true
			}
			if r, err := ref.Parse(name); err == nil && (wild(p, r.FamiliarName()) || wild(p, r.Name())) {
				return true
			}
		}
	}
	return false
}

func wild(pattern, name string) bool {
	// path.Match knows no * across slashes: to it, a name without slashes is one element.
	ok, err := path.Match(flat(pattern), flat(name))
	return ok && err == nil
}

func flat(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '/' {
			b[i] = 1
		}
	}
	return string(b)
}
