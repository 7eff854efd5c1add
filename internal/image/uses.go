package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/ref"
)

// uses remember when each image was last used: pulled, made or loaded, and by containers that are created, started, or that something is
// executed in. It hears of that by events, beside the work, and writes it down now and then: what a crash loses is a few minutes of it.
type uses struct {
	path string

	mu    sync.Mutex // guards what follows
	last  map[digest.Digest]time.Time
	dirty bool
}

func openUses(root string) *uses {
	u := &uses{path: filepath.Join(root, "images.used"), last: map[digest.Digest]time.Time{}}
	_ = os.Remove(u.path + ".new") // a write that was cut short
	if b, err := os.ReadFile(u.path); err == nil && json.Unmarshal(b, &u.last) != nil {
		u.last = map[digest.Digest]time.Time{} // what names say of their making stands in for it
	}
	return u
}

func (u *uses) note(id digest.Digest, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at.After(u.last[id]) {
		u.last[id], u.dirty = at.Truncate(time.Second), true
	}
}

// of is an image's last use; before one is known, the time when it got its newest name.
func (u *uses) of(e *entry) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at := u.last[e.target.Digest]; at.After(e.updated) {
		return at
	}
	return e.updated
}

// save writes down what is new, and forgets images that are not there any more.
func (u *uses) save(here map[digest.Digest]bool) error {
	u.mu.Lock()
	for id := range u.last {
		if here != nil && !here[id] {
			delete(u.last, id)
			u.dirty = true
		}
	}
	dirty := u.dirty
	u.dirty = false
	b, err := json.Marshal(u.last)
	u.mu.Unlock()
	if !dirty || err != nil {
		return err
	}
	if err := replaceFile(u.path, b); err != nil {
		u.mu.Lock()
		u.dirty = true // the next one tries again
		u.mu.Unlock()
		return fmt.Errorf("write when images were used: %w", err)
	}
	return nil
}

// imagesOf are the images that a container is made of and that it mounts.
func (c *claims) imagesOf(container string) []digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []digest.Digest
	for key, u := range c.of {
		if owner(key) == container {
			out = append(out, u.id)
		}
	}
	return out
}

// usedBy finds the images that an event says the use of; there are none in other events.
func (c *Cleaner) usedBy(ctx context.Context, m events.Message) []digest.Digest {
	switch m.Type {
	case events.ContainerEventType:
		switch m.Action {
		case events.ActionCreate, events.ActionStart, events.ActionDie:
		default:
			if !strings.HasPrefix(string(m.Action), string(events.ActionExecStart)) {
				return nil
			}
		}
		return c.s.claims.imagesOf(m.Actor.ID)
	case events.ImageEventType:
		switch m.Action {
		case events.ActionPull, events.ActionLoad, events.ActionImport, events.ActionTag, events.ActionPush, events.ActionSave:
		default:
			return nil
		}
		if id := digest.Digest(m.Actor.ID); id.Validate() == nil {
			return []digest.Digest{id}
		}
		r, err := ref.Parse(m.Actor.ID)
		if err != nil {
			return nil
		}
		var img images.Image
		if img, err = c.s.images.Get(in(ctx), r.String()); err == nil {
			return []digest.Digest{img.Target.Digest}
		}
	}
	return nil
}

// follow hears events until ctx ends; fn is called after each use of an image.
func (c *Cleaner) follow(ctx context.Context, fn func(events.Message)) {
	for ctx.Err() == nil {
		err := c.s.events.Subscribe(ctx, time.Time{}, time.Time{}, func(m events.Message) error {
			used := c.usedBy(ctx, m)
			for _, id := range used {
				c.s.uses.note(id, time.Unix(m.Time, 0))
			}
			if len(used) > 0 {
				fn(m)
			}
			return nil
		})
		if err == nil {
			return
		} // else it fell behind: uses are lost to it, which costs little
	}
}
