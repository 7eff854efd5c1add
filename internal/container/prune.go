package container

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/spec"
)

// pruneAtOnce bounds how many containers are removed at a time: each waits for the disk.
const pruneAtOnce = 16

// Prune removes all containers that have ended or were never started. Filters: until, label, label!.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (*container.PruneReport, error) {
	matches, err := pruneFilter(filters)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.SetLimit(pruneAtOnce)
	sizes := map[string]int64{} // of what was removed
	var mu sync.Mutex           // guards sizes
	all := s.index.all()
	for _, c := range all {
		if ctx.Err() != nil {
			break
		}
		r := c.record()
		if !access.ScopeOf(ctx).Sees(r.Owner) {
			continue
		}
		if r.Status != Created && r.Status != Exited && r.Status != Dead || !matches(r) || r.Status == Created && c.expected() {
			continue
		}
		g.Go(func() error {
			size := layerSize(c.dir)
			err := life{s, c}.remove(ctx, RemoveOptions{})
			switch {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				sizes[c.id] = size
			case !errdefs.IsConflict(err): // else it has been started meanwhile
				s.log(err)
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	report := &container.PruneReport{}
	for _, c := range all {
		if size, gone := sizes[c.id]; gone {
			report.ContainersDeleted = append(report.ContainersDeleted, c.id)
			report.SpaceReclaimed += uint64(size)
		}
	}
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	s.o.Events.Publish(events.ContainerEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return report, nil
}

// expected says that somebody waits for what the container will do: a client's run is between its create and its start.
func (c *Container) expected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.readers) > 0 || c.audience.waited()
}

func pruneFilter(filters map[string]map[string]bool) (func(*Record) bool, error) {
	known := []string{"until", "label", "label!"}
	var until time.Time
	for name, values := range filters {
		switch name {
		case "until":
			if len(values) > 1 {
				return nil, invalid("more than one until filter specified")
			}
			for v := range values {
				t, err := untilTime(v)
				if err != nil {
					return nil, err
				}
				until = t
			}
		case "label", "label!":
		default:
			return nil, invalid("invalid filter '%s': %s", name, spec.Suggest(name, known))
		}
	}
	return func(r *Record) bool {
		if !until.IsZero() && !r.Created.Before(until) {
			return false
		}
		for want := range filters["label"] {
			if !hasLabel(r, want) {
				return false
			}
		}
		for unwanted := range filters["label!"] {
			if hasLabel(r, unwanted) {
				return false
			}
		}
		return true
	}, nil
}

// hasLabel takes KEY or KEY=VALUE.
func hasLabel(r *Record, text string) bool {
	key, value, exact := strings.Cut(text, "=")
	have, ok := r.Config.Labels[key]
	return ok && (!exact || have == value)
}

// layerSize is what a writable layer takes on the disk, links not followed and counted once.
func layerSize(dir string) (size int64) {
	upper, _ := layerDirs(dir)
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(upper, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		size += fi.Size()
		return nil
	})
	return size
}
