package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// held is what operations hold, so that it is not collected while they last.
type held struct {
	leases leases.Manager
	snaps  snapshots.Snapshotter
	keep   func() (release func() error) // the directories of what is committed
	opened time.Time

	dropping sync.Mutex // one looks at who holds content, and drops it; or holds it
}

// unpackPrefix begins the keys of layers that are being unpacked.
const unpackPrefix = "unpack "

// dropHalfMade takes away layers that an earlier life was unpacking: whoever goes on begins such a layer anew.
func (s *held) dropHalfMade(ctx context.Context) error {
	var keys []string
	err := s.snaps.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if strings.HasPrefix(i.Name, unpackPrefix) {
			keys = append(keys, i.Name)
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, key := range keys {
		if err := s.snaps.Remove(ctx, key); err != nil {
			return fmt.Errorf("drop a layer that is half unpacked: %w", err)
		}
	}
	return nil
}

// dropLeases gives up what operations of an earlier life hold, when they began longer ago than that. At a start a day is left for taking up a
// download where it stopped; who prunes wants the room. What has no purpose is never taken up.
func (s *held) dropLeases(ctx context.Context, older time.Duration) (dropped bool, err error) {
	list, err := s.leases.List(ctx)
	if err != nil {
		return false, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range list {
		why := l.Labels[LeasePurpose]
		if why == ForBuilds || !l.CreatedAt.Before(s.opened) || why != "" && time.Since(l.CreatedAt) < older {
			continue
		}
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return dropped, fmt.Errorf("give up lease %s: %w", l.ID, err)
		}
		dropped = true
	}
	return dropped, nil
}

// lease keeps what an operation makes from being collected until done is called. One that ctx has already does.
func (s *held) lease(ctx context.Context) (_ context.Context, done func(), err error) {
	if _, ok := leases.FromContext(ctx); ok {
		return in(ctx), func() {}, nil
	}
	return s.leaseFor(ctx, "")
}

// LeasePurpose is the label of leases that says what they are for.
const LeasePurpose = "dev.wherry/purpose"

// longestLease is when leases of operations end by themselves.
const longestLease = 24 * time.Hour

// leaseFor makes a lease that endEarlier finds.
func (s *held) leaseFor(ctx context.Context, why string) (_ context.Context, done func(), err error) {
	ctx = in(ctx)
	opts := []leases.Opt{leases.WithRandomID(), leases.WithExpiration(longestLease)}
	if why != "" {
		opts = append(opts, leases.WithLabel(LeasePurpose, why))
	}
	l, err := s.leases.Create(ctx, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("make a lease: %w", err)
	}
	after := context.WithoutCancel(ctx)
	return leases.WithLease(ctx, l.ID), func() { _ = s.leases.Delete(after, l) }, nil
}

// ForBuilds is the purpose of leases that hold the build cache, which outlasts the engine.
const ForBuilds = "builds"

// endEarlier gives up what earlier lives held for something that is done now.
func (s *held) endEarlier(ctx context.Context, why string) error {
	list, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range list {
		if l.Labels[LeasePurpose] == why && l.CreatedAt.Before(s.opened) {
			if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("end a lease: %w", err)
			}
		}
	}
	return nil
}

// hold keeps a layer that is here already from being collected while the operation lasts.
func (s *held) hold(ctx context.Context, chain string) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	if err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: chain, Type: "snapshots/" + snapshotter}); err != nil {
		return fmt.Errorf("hold layer %s: %w", chain, err)
	}
	return nil
}

// holdLayer holds a layer if it is here. A lease on one that is not would outlive an operation that is cut off.
func (s *held) holdLayer(ctx context.Context, chain string) (here bool, err error) {
	if _, err := s.snaps.Stat(ctx, chain); err != nil {
		return false, nil
	}
	if err := s.hold(ctx, chain); err != nil {
		return false, err
	}
	_, err = s.snaps.Stat(ctx, chain) // it may have been collected a moment ago
	return err == nil, nil
}

// holdContent keeps content from being dropped by a compaction while the operation lasts. Who holds it looks whether it is there afterwards.
func (s *store) holdContent(ctx context.Context, ids []digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok || len(ids) == 0 {
		return nil
	}
	s.dropping.Lock()
	defer s.dropping.Unlock()
	for _, d := range ids {
		if err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"}); err != nil {
			return fmt.Errorf("hold layers: %w", err)
		}
	}
	return nil
}

// othersHold says that an operation which is not ctx's holds content.
func (s *held) othersHold(ctx context.Context, d digest.Digest) (bool, error) {
	own, _ := leases.FromContext(ctx)
	list, err := s.leases.List(ctx)
	if err != nil {
		return false, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range list {
		if l.ID == own {
			continue
		}
		held, err := s.leases.ListResources(ctx, l)
		if err != nil && !errdefs.IsNotFound(err) { // it has ended
			return false, fmt.Errorf("list what lease %s holds: %w", l.ID, err)
		}
		if slices.Contains(held, leases.Resource{ID: d.String(), Type: "content"}) {
			return true, nil
		}
	}
	return false, nil
}

// cacheParts are the blobs and layers that the build cache holds, named as Service.parts names them, with the record of the cache that has each
// (one of them, where several do).
func (s *held) cacheParts(ctx context.Context) (map[string]string, error) {
	list, err := s.leases.List(ctx, fmt.Sprintf("labels.%q==%s", LeasePurpose, ForBuilds))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	parts := map[string]string{}
	for _, l := range list {
		held, err := s.leases.ListResources(ctx, l)
		if err != nil && !errdefs.IsNotFound(err) { // it has ended
			return nil, fmt.Errorf("list what lease %s holds: %w", l.ID, err)
		}
		for _, r := range held {
			if r.Type == "content" {
				parts[r.ID] = l.ID
			} else {
				parts[layerPart+r.ID] = l.ID
			}
		}
	}
	return parts, nil
}
