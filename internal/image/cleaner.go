package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/archive"
	"wherry.dev/wherry/internal/settings"
)

// Cleaner removes images that were not used for longest when what is taken of the disk rises above a mark, until it has fallen below a lower
// one. It never takes what a container uses, what is pinned, and what was used a short while ago.
type Cleaner struct {
	s    *Service
	set  settings.CleanUp
	log  *slog.Logger
	stop context.CancelFunc
	done sync.WaitGroup

	mu sync.Mutex // one clean-up at a time
}

// CleanUp says what a clean-up did, or would do.
type CleanUp struct {
	Enabled  bool   // whether it comes by itself
	Measure  string // what the numbers are about
	Capacity int64  // of the file system, in bytes
	Used     int64  // before
	High     int64
	Low      int64
	Removed  []CleanedImage
	Failed   []string
	Kept     map[string]int // how many images stay, by the reason
	Freed    int64
	DryRun   bool
}

// CleanedImage is one that goes.
type CleanedImage struct {
	ID       digest.Digest
	Names    []string
	LastUsed time.Time
	Frees    int64 // what no other image has
}

// CleanUpOptions of CleanUp.
type CleanUpOptions struct {
	DryRun bool
	To     *settings.Amount // remove until no more than this is used, whatever the marks say
}

// NewCleaner makes one; Start has it work by itself.
func NewCleaner(s *Service, set settings.CleanUp, log *slog.Logger) *Cleaner {
	return &Cleaner{s: s, set: set, log: log, stop: func() {}}
}

// Start begins to note uses of images, and to clean up where the settings say so.
func (c *Cleaner) Start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	pulled := make(chan struct{}, 1)
	c.done.Go(func() {
		c.follow(ctx, func(m events.Message) {
			if m.Type == events.ImageEventType {
				select {
				case pulled <- struct{}{}:
				default:
				}
			}
		})
	})
	c.done.Go(func() {
		tick := time.NewTicker(time.Duration(c.set.Every))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-pulled:
			}
			c.once(ctx)
		}
	})
	if c.set.Enabled && c.set.OnFullDisk {
		c.s.makeRoom = func(ctx context.Context) bool {
			low := c.set.Low
			r, err := c.CleanUp(context.WithoutCancel(ctx), CleanUpOptions{To: &low})
			return err == nil && r.Freed > 0
		}
	}
}

// Close ends what Start began.
func (c *Cleaner) Close() error {
	c.stop()
	c.done.Wait()
	return nil
}

func (c *Cleaner) once(ctx context.Context) {
	if c.set.Enabled {
		if _, err := c.CleanUp(ctx, CleanUpOptions{}); err != nil && ctx.Err() == nil {
			c.log.Warn("clean up images", "error", err)
		}
	}
	here := map[digest.Digest]bool{}
	list, err := c.s.images.List(in(ctx))
	for _, img := range list {
		here[img.Target.Digest] = true
	}
	if err == nil {
		err = c.s.uses.save(here)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("note uses of images", "error", err)
	}
}

// CleanUp removes what the marks ask for, or only says what that would be.
func (c *Cleaner) CleanUp(ctx context.Context, o CleanUpOptions) (CleanUp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx = in(ctx)
	out, err := c.measure(ctx, o)
	if err != nil || out.Used <= out.High {
		return out, err
	}
	if !o.DryRun { // what nobody refers to goes first
		if err := c.s.sweep(ctx); err != nil {
			return out, err
		}
	}
	candidates, sizes, err := c.candidates(ctx, &out)
	if err != nil {
		return out, err
	}
	if o.DryRun {
		c.foresee(candidates, sizes, &out)
		return out, nil
	}
	c.remove(ctx, candidates, sizes, &out)
	if len(out.Removed) > 0 {
		c.s.events.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(out.Freed), "reason": "clean-up"})
	}
	if out.Used-out.Freed > out.High {
		c.log.Warn("clean-up cannot free enough", "used", units.HumanSize(float64(out.Used-out.Freed)), "high", units.HumanSize(float64(out.High)), "kept", fmt.Sprint(out.Kept))
	}
	return out, nil
}

// foresee says what remove would do.
func (c *Cleaner) foresee(candidates []*prunable, sizes map[string]int64, out *CleanUp) {
	for _, p := range candidates {
		if out.Used-out.Freed <= out.Low {
			return
		}
		one := p.cleaned(sizes)
		out.Removed, out.Freed = append(out.Removed, one), out.Freed+one.Frees
	}
}

// remove takes images away until enough is free. Each is looked at once more: it may have been used, pinned or named anew just now.
func (c *Cleaner) remove(ctx context.Context, candidates []*prunable, sizes map[string]int64, out *CleanUp) {
	r := &removal{s: c.s}
	defer r.end()
	for _, p := range candidates {
		if out.Used-out.Freed <= out.Low || ctx.Err() != nil {
			break
		}
		gone, err := r.unused(ctx, p.e, func(is *entry) bool { return !c.s.uses.of(is).After(p.used) })
		if err != nil {
			out.Failed = append(out.Failed, err.Error())
		}
		if gone {
			one := p.cleaned(sizes)
			out.Removed, out.Freed = append(out.Removed, one), out.Freed+one.Frees
		}
	}
	if !r.went {
		return
	}
	if err := r.sweep(ctx); err != nil {
		out.Failed, out.Freed = append(out.Failed, err.Error()), 0
	}
	for _, one := range out.Removed {
		c.log.Info("cleaned up an image", "image", one.Names, "id", one.ID, "last_used", one.LastUsed, "freed", units.HumanSize(float64(one.Frees)))
	}
}

// measure holds what is used against the marks.
func (c *Cleaner) measure(ctx context.Context, o CleanUpOptions) (CleanUp, error) {
	out := CleanUp{Enabled: c.set.Enabled, Measure: c.set.Measure, DryRun: o.DryRun, Kept: map[string]int{}, Removed: []CleanedImage{}}
	space, err := archive.Capacity(c.s.root)
	if err != nil {
		return out, err
	}
	out.Capacity, out.Used = space.Bytes, space.Bytes-space.Free
	if c.set.Measure == "store" {
		if out.Used, err = c.s.taken(ctx); err != nil {
			return out, err
		}
	}
	out.High, out.Low = c.set.High.Of(space.Bytes), c.set.Low.Of(space.Bytes)
	if o.To != nil {
		out.Low = o.To.Of(space.Bytes)
		out.High = out.Low
	}
	return out, nil
}

// prunable is an image that may go.
type prunable struct {
	e     *entry
	used  time.Time
	parts map[string]int64
	times map[string]int // of all images: how many have a part
}

// release counts what is free when the image goes.
func (p *prunable) release(sizes map[string]int64) (n int64) {
	for part := range p.parts {
		if p.times[part]--; p.times[part] == 0 {
			n += sizes[part]
		}
	}
	return n
}

// cleaned describes an image that goes.
func (p *prunable) cleaned(sizes map[string]int64) CleanedImage {
	return CleanedImage{ID: p.e.target.Digest, Names: shownNames(p.e), LastUsed: p.used, Frees: p.release(sizes)}
}

// candidates are the images that may go, those that were not used for longest first.
func (c *Cleaner) candidates(ctx context.Context, out *CleanUp) ([]*prunable, map[string]int64, error) {
	sizes, _, err := c.s.space(ctx)
	if err != nil && !errors.Is(err, errLeftovers) {
		return nil, nil, err
	}
	list, err := c.s.entries(ctx)
	if err != nil {
		return nil, nil, err
	}
	users := c.s.counts()
	times := map[string]int{}
	var may []*prunable
	for _, e := range list {
		p := &prunable{e: e, used: c.s.uses.of(e), parts: c.s.parts(ctx, e.target), times: times}
		for part := range p.parts {
			times[part]++
		}
		switch {
		case users[e.target.Digest] > 0:
			out.Kept["used by containers"]++
		case c.s.pins.hold(e) || e.matchesAny(c.set.Keep):
			out.Kept["pinned"]++
		case time.Since(p.used) < time.Duration(c.set.MinAge):
			out.Kept["used in the last "+c.set.MinAge.String()]++
		default:
			may = append(may, p)
		}
	}
	slices.SortStableFunc(may, func(a, b *prunable) int { return a.used.Compare(b.used) })
	return may, maps.Clone(sizes), nil
}

// shownNames are an image's tags, or else what it is known by.
func shownNames(e *entry) []string {
	tags, digests := e.tagsAndDigests()
	if len(tags) > 0 {
		return tags
	}
	return digests
}
