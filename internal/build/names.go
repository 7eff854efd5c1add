package build

import (
	"context"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/buildkit/snapshot"

	"wherry.dev/wherry/internal/image"
	localsnapshot "wherry.dev/wherry/internal/snapshot"
)

// chainNames calls layers by their chain IDs, as package image does: BuildKit has a name of its own for what it finds by a chain ID, since
// in other stores layers may stand there that nobody has verified. Here all are.
type chainNames struct {
	snapshots.Snapshotter
	dates string  // "": as they are
	made  *uppers // is told of writable ones
}

func chainName(key string) string {
	if chain, ok := snapshot.ParseLayerSnapshotID(key); ok {
		return chain.String()
	}
	return key
}

func (c *chainNames) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return c.Snapshotter.Stat(ctx, chainName(key))
}

func (c *chainNames) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	info.Name = chainName(info.Name)
	return c.Snapshotter.Update(ctx, info, fields...)
}

func (c *chainNames) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return c.Snapshotter.Usage(ctx, chainName(key))
}

func (c *chainNames) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := c.Snapshotter.Mounts(ctx, chainName(key))
	if err == nil {
		c.made.note(mounts)
	}
	return mounts, err
}

func (c *chainNames) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	opts = append(opts, withLabel(localsnapshot.MayStayDirectory, "yes"))
	if c.dates != "" {
		opts = append(opts, withLabel(localsnapshot.Dated, c.dates))
	}
	mounts, err := c.Snapshotter.Prepare(ctx, chainName(key), chainName(parent), opts...)
	if err == nil {
		c.made.note(mounts)
	}
	return mounts, err
}

func (c *chainNames) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return c.Snapshotter.View(ctx, chainName(key), chainName(parent), opts...)
}

func (c *chainNames) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return c.Snapshotter.Commit(ctx, chainName(name), chainName(key), opts...)
}

func (c *chainNames) Remove(ctx context.Context, key string) error {
	return c.Snapshotter.Remove(ctx, chainName(key))
}

func withLabel(key, value string) snapshots.Opt {
	return func(i *snapshots.Info) error {
		if i.Labels == nil {
			i.Labels = map[string]string{}
		}
		i.Labels[key] = value
		return nil
	}
}

// chainLeases hold layers by those names, and are marked as builds': what they hold outlasts the engine.
type chainLeases struct{ leases.Manager }

func (c *chainLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return c.Manager.Create(ctx, append(opts, leases.WithLabel(image.LeasePurpose, image.ForBuilds))...)
}

func (c *chainLeases) AddResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	r.ID = chainName(r.ID)
	return c.Manager.AddResource(ctx, l, r)
}

func (c *chainLeases) DeleteResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	r.ID = chainName(r.ID)
	return c.Manager.DeleteResource(ctx, l, r)
}
