package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	containerdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/util/db"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// historyStore keeps what was said while images were made (buildx history), apart from the images: it may be lost, they may not.
type historyStore struct {
	db      db.DB
	content content.Store
	leases  leases.Manager
	collect func(context.Context) (gc.Stats, error)
}

func openHistory(ctx context.Context, d *databases) (*historyStore, error) {
	if err := os.MkdirAll(d.path(historyDir), 0o700); err != nil {
		return nil, err
	}
	blobs, err := local.NewStore(d.path(historyDir))
	if err != nil {
		return nil, err
	}
	opened, err := d.open(historyDir + "/" + metadataFile)
	if err != nil {
		return nil, fmt.Errorf("open what builds have said: %w", err)
	}
	m := containerdmetadata.NewDB(opened, blobs, nil)
	if err := m.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open what builds have said: %w", err), opened.Close())
	}
	return &historyStore{opened, m.ContentStore(), containerdmetadata.NewLeaseManager(m), m.GarbageCollect}, nil
}

// Close closes its database.
func (h *historyStore) Close() error { return h.db.Close() }

// isHistory says whether a call is about it: BuildKit has a namespace for that.
func isHistory(ctx context.Context) bool {
	ns, _ := namespaces.Namespace(ctx)
	return strings.HasSuffix(ns, "_history")
}

// historyContent is the engine's blobs, and those of the history where they are asked for.
type historyContent struct {
	content.Store
	h *historyStore
}

func (c historyContent) of(ctx context.Context) content.Store {
	if isHistory(ctx) {
		return c.h.content
	}
	return c.Store
}

func (c historyContent) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return c.of(ctx).Info(ctx, d)
}

func (c historyContent) Update(ctx context.Context, i content.Info, fields ...string) (content.Info, error) {
	return c.of(ctx).Update(ctx, i, fields...)
}

func (c historyContent) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	return c.of(ctx).Walk(ctx, fn, filters...)
}

func (c historyContent) Delete(ctx context.Context, d digest.Digest) error {
	return c.of(ctx).Delete(ctx, d)
}

func (c historyContent) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	return c.of(ctx).ReaderAt(ctx, d)
}

func (c historyContent) Status(ctx context.Context, ref string) (content.Status, error) {
	return c.of(ctx).Status(ctx, ref)
}

func (c historyContent) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return c.of(ctx).ListStatuses(ctx, filters...)
}

func (c historyContent) Abort(ctx context.Context, ref string) error {
	return c.of(ctx).Abort(ctx, ref)
}

func (c historyContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return c.of(ctx).Writer(ctx, opts...)
}

// historyLeases are the engine's leases, and those of the history where they are asked for.
type historyLeases struct {
	leases.Manager
	h *historyStore
}

func (l historyLeases) of(ctx context.Context) leases.Manager {
	if isHistory(ctx) {
		return l.h.leases
	}
	return l.Manager
}

func (l historyLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return l.of(ctx).Create(ctx, opts...)
}

func (l historyLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	return l.of(ctx).Delete(ctx, lease, opts...)
}

func (l historyLeases) List(ctx context.Context, filters ...string) ([]leases.Lease, error) {
	return l.of(ctx).List(ctx, filters...)
}

func (l historyLeases) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.of(ctx).AddResource(ctx, lease, r)
}

func (l historyLeases) DeleteResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.of(ctx).DeleteResource(ctx, lease, r)
}

func (l historyLeases) ListResources(ctx context.Context, lease leases.Lease) ([]leases.Resource, error) {
	return l.of(ctx).ListResources(ctx, lease)
}
