package build

import (
	"context"
	"fmt"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	dockerbuild "github.com/moby/moby/api/types/build"

	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/archive"
)

// Usage lists the build cache. Where nothing was ever built, nothing is started for the question.
func (b *Builder) Usage(ctx context.Context) ([]dockerbuild.CacheRecord, error) {
	if !b.used() {
		return nil, nil
	}
	e, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := e.control.DiskUsage(ctx, &controlapi.DiskUsageRequest{})
	if err != nil {
		return nil, fmt.Errorf("look at the build cache: %w", err)
	}
	out := make([]dockerbuild.CacheRecord, 0, len(resp.Record))
	for _, r := range resp.Record {
		c := dockerbuild.CacheRecord{ID: r.ID, Parents: r.Parents, Type: r.RecordType, Description: r.Description, InUse: r.InUse, Shared: r.Shared, Size: r.Size,
			CreatedAt: r.CreatedAt.AsTime(), UsageCount: int(r.UsageCount)}
		if r.LastUsedAt != nil {
			at := r.LastUsedAt.AsTime()
			c.LastUsedAt = &at
		}
		out = append(out, c)
	}
	return out, nil
}

// Prune removes what is not used of the build cache.
func (b *Builder) Prune(ctx context.Context, q docker.PruneRequest) (dockerbuild.CachePruneReport, error) {
	report := dockerbuild.CachePruneReport{CachesDeleted: []string{}}
	if !b.used() {
		return report, nil
	}
	e, err := b.start(ctx)
	if err != nil {
		return report, err
	}
	req := &controlapi.PruneRequest{Filter: q.Filters, All: q.All, KeepDuration: int64(q.Older), ReservedSpace: q.Reserved, MaxUsedSpace: q.Max, MinFreeSpace: q.MinFree}
	err = e.control.Prune(req, &pruneStream{ctx: func() context.Context { return ctx }, send: func(r *controlapi.UsageRecord) {
		report.CachesDeleted = append(report.CachesDeleted, r.ID)
		report.SpaceReclaimed += uint64(max(r.Size, 0))
	}})
	if err != nil {
		return report, fmt.Errorf("prune the build cache: %w", err)
	}
	return report, nil
}

// policy is what goes from the cache by itself, after builds: what nobody has used for long, and the oldest of what is too much.
func (o *Options) policy() []client.PruneInfo {
	whole := int64(0)
	if space, err := archive.Capacity(o.Root); err == nil {
		whole = space.Bytes
	}
	most := o.Settings.CacheMax.Of(whole)
	return []client.PruneInfo{
		{KeepDuration: time.Duration(o.Settings.CacheAge)},
		{MaxUsedSpace: most},
		{All: true, MaxUsedSpace: most},
	}
}
