package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"wherry.dev/wherry/internal/event"
	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/snapshot"
	"wherry.dev/wherry/internal/trust"
)

const (
	namespace   = "wherry"
	snapshotter = "overlayfs" // what stores call it since their layers could only be directories
)

// Options of Open.
type Options struct {
	Root               string // content/, snapshots/, and the metadata database lie here
	Oar                string // the built-in image "hello" is made from this binary
	Events             *event.Bus
	InsecureRegistries []string        // hosts and networks whose certificates are not checked, and that may do without TLS; loopback always may
	DropBlobs          bool            // of layers that a registry has, once they are unpacked
	HostDirs           []string        // where <host>/ca.crt, client certificates or hosts.toml lie; nil: Docker's, containerd's and Wherry's in /etc
	Trust              *trust.Checker  // holds images against the policy; nil: there is none
	Log                func(error)     // hears of damage that was worked round; nil: nobody does
	Layers             snapshot.Format // what layers become; "" is directories
	Mounts             string          // directory where layers that are images are mounted; "" means that none can be
}

// Service keeps images. Safe for many goroutines.
type Service struct {
	*store
	*layers
	*claims
	registries *registry.Pool
	builtIn    *builtIn
	gate       *gate
	events     *event.Bus
	transfers  keyedLock // by blob: one downloads, others wait; by repository and blob: one uploads
	pins       *pins
	uses       *uses
	dropBlobs  bool
	makeRoom   func(context.Context) bool // of the cleaner, once there is one: something was removed from a full disk

	mu       sync.Mutex // guards what follows
	resolved map[resolvedKey]Image
	sweeps   int
}

type resolvedKey struct {
	target   digest.Digest
	platform string
}

// Open opens the store below o.Root, or makes one.
func Open(ctx context.Context, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = func(error) {}
	}
	// The libraries below tell of their steps by a log of their own; what matters comes back as an error.
	if err := log.SetLevel("fatal"); err != nil {
		return nil, err
	}
	st, err := openStore(ctx, o)
	if err != nil {
		return nil, err
	}
	l := &layers{st: st, memory: fslayer.NewMemory(), dirs: map[digest.Digest][]string{}}
	s := &Service{store: st, layers: l, registries: registry.NewPool(registry.Options{Insecure: o.InsecureRegistries, HostDirs: o.HostDirs}),
		claims: &claims{of: map[string]use{}, going: map[use]int{}}, builtIn: &builtIn{l: l, oar: o.Oar}, events: o.Events,
		resolved: map[resolvedKey]Image{}, uses: openUses(o.Root), dropBlobs: o.DropBlobs}
	if st.dropped, err = openDropped(o.Root); err != nil {
		o.Log(err)
	}
	s.gate = &gate{st: st, checker: o.Trust, registries: s.registries, events: o.Events, known: map[passKey]Judgement{}}
	if s.pins, err = openPins(o.Root); err != nil && s.pins == nil {
		return nil, errors.Join(err, s.Close())
	} else if err != nil {
		o.Log(fmt.Errorf("%w: no image is pinned", err))
	}
	return s, nil
}

// Close closes the store. Nothing may be using it.
func (s *Service) Close() error {
	s.registries.Close()
	return errors.Join(s.uses.save(nil), s.close())
}

// store is what lies on disk: content by digest, names, leases, and layers as snapshots.
type store struct {
	*blobs
	*held
	root   string
	bolt   *bolt.DB
	db     *metadata.DB
	snaps  snapshots.Snapshotter
	mounts *snapshot.Mounts
	images images.Store
	kept   int64 // snapshot.ImageOptions.Kept of layers

	naming sync.Mutex // held by who changes names, and goes by what they are
}

func openStore(ctx context.Context, o Options) (*store, error) {
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, err
	}
	contents, err := local.NewStore(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, fmt.Errorf("open the content store: %w", err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(o.Root, scratchDir)), dropHalfArtifactDirs(o.Root)); err != nil {
		return nil, err
	}
	at, restore, err := sound(o.Root, o.Log)
	if err != nil {
		return nil, err
	}
	snaps, err := snapshot.Open(snapshot.Options{Root: at.layers, Mounts: o.Mounts, Format: o.Layers, Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("open the layers: %w", err)
	}
	if err := tidy(ctx, snaps, at.layers); err != nil {
		return nil, errors.Join(fmt.Errorf("tidy %s: %w", at.layers, err), snaps.Close())
	}
	b, err := bolt.Open(at.db, 0o600, &bolt.Options{Timeout: 5 * time.Second, NoFreelistSync: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", at.db, err), snaps.Close())
	}
	db := metadata.NewDB(b, contents, map[string]snapshots.Snapshotter{snapshotter: snaps})
	if err := db.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", at.db, err), b.Close(), snaps.Close())
	}
	light := newLightLeases(db)
	layers := leasedSnapshots{db.Snapshotter(snapshotter), light}
	names := &copiedNames{Store: metadata.NewImageStore(db), path: filepath.Join(o.Root, namesFile)}
	s := &store{root: o.Root, bolt: b, db: db, blobs: &blobs{dir: filepath.Join(o.Root, "content"), backend: contents, content: leasedContent{labelled{db.ContentStore()}, light}}, snaps: layers, mounts: snaps.Images(),
		held:   &held{leases: light, snaps: layers, keep: func() func() error { return snapshot.Hold(snaps) }, opened: time.Now()},
		images: names}
	names.provenance = provenance{s}.of
	if restore {
		if err := s.restore(ctx, o.Log); err != nil {
			return nil, errors.Join(err, s.close())
		}
	} else if err := errors.Join(dropOrphans(in(ctx), s, snaps), names.finish(in(ctx))); err != nil {
		o.Log(err) // it costs room, nothing more
	}
	err = s.dropHalfMade(in(ctx))
	if dropped, e := s.dropLeases(in(ctx), 24*time.Hour); e != nil || dropped {
		err = errors.Join(err, e, s.collect(ctx))
	}
	return s, err
}

// explainFull says what to do about a full disk, once.
func (s *store) explainFull(err error) error {
	if said := (*fullError)(nil); !room.Lacks(err) || errors.As(err, &said) {
		return err
	}
	return &fullError{fmt.Errorf("the disk of %s is full: "+room.Advice+": %w", s.root, err)}
}

// fullError is one that says what to do about a full disk.
type fullError struct{ error }

func (e *fullError) Unwrap() error { return e.error }

// tidy removes the directories of layers whose making was cut off before it was noted: the next ones would meet them.
func tidy(ctx context.Context, snaps snapshots.Snapshotter, dir string) error {
	c, ok := snaps.(snapshots.Cleaner)
	if !ok {
		return nil
	}
	err := c.Cleanup(ctx)
	if !errdefs.IsNotFound(err) {
		return err
	}
	// Not one layer has been noted yet.
	begun, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
	for _, d := range begun {
		err = errors.Join(err, os.RemoveAll(d))
	}
	return err
}

func (s *store) close() error { return errors.Join(s.snaps.Close(), s.bolt.Close()) }

// in puts a context into the store's namespace.
func in(ctx context.Context) context.Context { return namespaces.WithNamespace(ctx, namespace) }

// collect frees what nothing refers to.
func (s *store) collect(ctx context.Context) error {
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

// try locks a key that is free.
func (k *keyedLock) try(key string) (unlock func(), free bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, busy := k.held[key]; busy {
		return nil, false
	}
	return k.take(key), true
}

// take locks a key; the caller holds mu.
func (k *keyedLock) take(key string) (unlock func()) {
	if k.held == nil {
		k.held = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	k.held[key] = mine
	return func() {
		k.mu.Lock()
		delete(k.held, key)
		k.mu.Unlock()
		close(mine)
	}
}

func (k *keyedLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		busy, ok := k.held[key]
		if !ok {
			unlock = k.take(key)
			k.mu.Unlock()
			return unlock, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
