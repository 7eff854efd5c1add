package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// claims remember which container uses which image: in memory, since containers claim theirs again at start. A container claims by its id
// the image that it is made of, and by its id, an @ and a place those that it mounts.
type claims struct {
	mu    sync.Mutex // guards what follows
	of    map[string]use
	going map[use]int // how many removals of an image are under way, or of one platform of it
}

// use is a container's claim on a platform of an image.
type use struct{ id, manifest digest.Digest }

func (c *claims) take(container string, u use) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.going[use{id: u.id}]+c.going[u] > 0 {
		return fmt.Errorf("No such image: %s: it is being removed: %w", u.id, errdefs.ErrNotFound) //nolint:staticcheck // words by which clients pull it again
	}
	c.of[container] = u
	return nil
}

func (c *claims) drop(container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.of {
		if key == container || strings.HasPrefix(key, container+"@") {
			delete(c.of, key)
		}
	}
}

// owner is the container whose claim it is.
func owner(key string) string {
	id, _, _ := strings.Cut(key, "@")
	return id
}

// userLocked names one that uses an image, or a platform of it when there is a manifest.
func (c *claims) userLocked(of use) string {
	for container, u := range c.of {
		if u.id == of.id && (of.manifest == "" || u.manifest == of.manifest) {
			return owner(container)
		}
	}
	return ""
}

// usersOf names the containers that use one platform's manifest.
func (c *claims) usersOf(manifest digest.Digest) []string {
	return c.users(func(u use) bool { return u.manifest == manifest })
}

func (c *claims) users(is func(use) bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []string{}
	for container, u := range c.of {
		if is(u) && !slices.Contains(out, owner(container)) {
			out = append(out, owner(container))
		}
	}
	return out
}

// usersAndMounts are the containers that are made of an image, and whether one mounts it.
func (c *claims) usersAndMounts(id digest.Digest) (users []string, mounted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, u := range c.of {
		switch {
		case u.id != id:
		case owner(key) == key:
			users = append(users, key)
		default:
			mounted = true
		}
	}
	return users, mounted
}

// counts is how many containers use each image.
func (c *claims) counts() map[digest.Digest]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[digest.Digest]int64{}
	seen := map[use]bool{}
	for container, u := range c.of {
		if one := (use{u.id, digest.Digest(owner(container))}); !seen[one] {
			seen[one] = true
			out[u.id]++
		}
	}
	return out
}

// beginRemoval sees to it that nobody uses an image, or a platform of it when there is a manifest, until done is called. When somebody does
// already, it names the container.
func (c *claims) beginRemoval(of use) (done func(), user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if user := c.userLocked(of); user != "" {
		return func() {}, user
	}
	c.going[of]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.going[of]--; c.going[of] == 0 {
			delete(c.going, of)
		}
	}, ""
}

// Acquire notes that a container uses an image: its layers are neither removed nor collected. In memory; re-acquired at start. An image
// that is not here any more is errdefs.ErrNotFound. What Resolve said of the layers before may be of an earlier pull: ask again, by id.
func (s *Service) Acquire(ctx context.Context, id digest.Digest, manifest digest.Digest, containerID string) error {
	if err := s.take(containerID, use{id, manifest}); err != nil {
		return err
	}
	// Its record is what counts: a pull that is under way may have its manifest here again. From now on the record stays.
	if _, err := s.byID(in(ctx), id.String()); err != nil {
		s.drop(containerID)
		return fmt.Errorf("No such image: %s: it has been removed: %w", id, err) //nolint:staticcheck // words by which clients pull it again
	}
	return nil
}

// Release takes a container's claim back.
func (s *Service) Release(_ context.Context, containerID string) { s.claims.drop(containerID) }
