package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"wherry.dev/wherry/internal/event"
)

const (
	namespace   = "wherry"
	snapshotter = "overlayfs"
)

// Options of Open.
type Options struct {
	Root               string // content/, snapshots/, and the metadata database lie here
	Oar                string // the built-in image "hello" is made from this binary
	Events             *event.Bus
	InsecureRegistries []string // hosts that are spoken to over plain HTTP; loopback addresses always may be
}

// Service owns the image store. Safe for many goroutines.
type Service struct {
	o       Options
	bolt    *bolt.DB
	db      *metadata.DB
	content content.Store
	snaps   snapshots.Snapshotter
	images  images.Store
	leases  leases.Manager
	applier diff.Applier

	unpacking keyedLock // by chain id: one unpacks, others wait

	mu       sync.Mutex // guards what follows
	resolved map[resolvedKey]*Image
	lowers   map[digest.Digest][]string // by chain id
	users    map[string]use             // by container
}

type resolvedKey struct {
	target   digest.Digest
	platform string
}

// use is a container's claim on an image.
type use struct{ id, manifest digest.Digest }

// Open opens the store below o.Root, or makes one.
func Open(ctx context.Context, o Options) (*Service, error) {
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, err
	}
	contents, err := local.NewStore(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, fmt.Errorf("open the content store: %w", err)
	}
	snaps, err := overlay.NewSnapshotter(filepath.Join(o.Root, "snapshots"))
	if err != nil {
		return nil, fmt.Errorf("open the layers: %w", err)
	}
	path := filepath.Join(o.Root, "images.db")
	b, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 5 * time.Second, NoFreelistSync: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db := metadata.NewDB(b, contents, map[string]snapshots.Snapshotter{snapshotter: snaps})
	if err := db.Init(ctx); err != nil {
		b.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	s := &Service{o: o, bolt: b, db: db, content: db.ContentStore(), snaps: db.Snapshotter(snapshotter), images: metadata.NewImageStore(db),
		leases: metadata.NewLeaseManager(db), resolved: map[resolvedKey]*Image{}, lowers: map[digest.Digest][]string{}, users: map[string]use{}}
	s.applier = apply.NewFileSystemApplier(s.content)
	return s, s.dropOldLeases(in(ctx))
}

// Close closes the store. Nothing may be using it.
func (s *Service) Close() error {
	if err := s.snaps.Close(); err != nil {
		return err
	}
	return s.bolt.Close()
}

// in puts a context into the store's namespace.
func in(ctx context.Context) context.Context { return namespaces.WithNamespace(ctx, namespace) }

// dropOldLeases gives up what operations of an earlier life held.
func (s *Service) dropOldLeases(ctx context.Context) error {
	list, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range list {
		if time.Since(l.CreatedAt) > 24*time.Hour {
			_ = s.leases.Delete(ctx, l)
		}
	}
	return nil
}

// lease keeps what an operation makes from being collected until done is called.
func (s *Service) lease(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx = in(ctx)
	l, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return nil, nil, fmt.Errorf("make a lease: %w", err)
	}
	after := context.WithoutCancel(ctx)
	return leases.WithLease(ctx, l.ID), func() { _ = s.leases.Delete(after, l) }, nil
}

// collect frees what nothing refers to.
func (s *Service) collect(ctx context.Context) error {
	if _, err := s.db.GarbageCollect(in(ctx)); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// keyedLock lets one goroutine at a time work on a key.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

func (k *keyedLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		busy, ok := k.held[key]
		if !ok {
			if k.held == nil {
				k.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			k.held[key] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
