package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/version"
)

// engine is BuildKit at work.
type engine struct {
	control  *control.Controller
	sessions *session.Manager
	worker   *builderWorker
	data     *databases
	history  *historyStore
	busy     func() (idle func())
	settings settings.Builds
	grpc     *grpc.Server
	stop     context.CancelCauseFunc
	closers
}

// errClosing is why a build ends when the engine does.
var errClosing = errors.New("the engine is closing")

// open puts BuildKit together.
func (b *Builder) open(ctx context.Context) (e *engine, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	e = &engine{stop: stop, busy: b.o.Busy, settings: b.o.Settings}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
			stop(err)
		}
	}()
	if e.sessions, err = session.NewManager(); err != nil {
		return e, err
	}
	if err := b.openData(ctx, e); err != nil {
		return e, err
	}
	if e.worker, err = b.newWorker(ctx, e); err != nil {
		return e, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(e.worker); err != nil {
		return e, err
	}
	cache, err := bboltcachestorage.NewStore(e.data.path(cacheFile))
	if err != nil {
		return e, fmt.Errorf("open the results of builds: %w", err)
	}
	history, err := e.data.open(historyFile)
	if err != nil {
		return e, errors.Join(fmt.Errorf("open the history of builds: %w", err), cache.Close())
	}
	frontends, err := newFrontends(workers, b.o.Settings)
	if err != nil {
		return e, errors.Join(err, history.Close(), cache.Close())
	}
	hosts, ground := b.o.registryHosts(ctx), image.GroundOf(b.o.Images)
	spans, traced, stopTraces := traces(ctx)
	e.control, err = control.NewController(control.Opt{
		SessionManager: e.sessions, WorkerController: workers, Frontends: frontends,
		CacheManager: solver.NewCacheManager(ctx, "local", touchedKeys{cache, e.data}, worker.NewCacheResultStorage(workers)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(e.sessions, hosts), "local": localcache.ResolveCacheExporterFunc(e.sessions),
			"inline": inline.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": importFromRegistry(e.sessions, e.worker.ContentStore(), hosts), "local": importFromClient(e.sessions),
		},
		Entitlements: b.o.Settings.Entitlements,
		HistoryDB:    history, CacheStore: cache, LeaseManager: leaseutil.WithNamespace(historyLeases{&chainLeases{ground.Leases}, e.history}, ground.Namespace),
		ContentStore: containerdsnapshot.NewContentStore(historyContent{ground.Content, e.history}, ground.Namespace),
		GarbageCollect: func(ctx context.Context) error {
			_, err := e.history.collect(ctx)
			return errors.Join(err, e.worker.GarbageCollect(ctx))
		},
		GracefulStop: ctx.Done(), TraceCollector: spans,
	})
	if err != nil {
		return e, errors.Join(err, history.Close(), cache.Close())
	}
	e.closers = append(closers{e.data.close, e.history.Close, e.control.Close, stopTraces}, e.data.stop) // control closes the worker, and with it all that was opened
	e.grpc = grpc.NewServer(traced, grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, e.whileBuilding), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	e.control.Register(e.grpc)
	e.closers = append(e.closers, func() error { e.grpc.Stop(); return nil }, func() error { e.stop(errClosing); return nil })
	return e, nil
}

// openData opens the databases that are the engine's own.
func (b *Builder) openData(ctx context.Context, e *engine) (err error) {
	if e.data, err = openDatabases(b.root(), b.o.Log); err != nil {
		return fmt.Errorf("open the databases of builds: %w", err)
	}
	e.data.hold = image.GroundOf(b.o.Images).Hold
	if e.history, err = openHistory(ctx, e.data); err != nil {
		return err
	}
	e.closers = append(e.closers, e.history.Close)
	return nil
}

// building is called when a build begins, and the function that it returns when it is over.
func (e *engine) building() (end func(), err error) {
	written, err := e.data.begin()
	if err != nil {
		return nil, err
	}
	idle := e.busy()
	return func() { written(); idle() }, nil
}

// whileBuilding goes about builds of clients that speak BuildKit's protocol.
func (e *engine) whileBuilding(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = explainScanner(explainRights(err, e.settings), req) }()
	if info.FullMethod != controlapi.Control_Solve_FullMethodName {
		return next(ctx, req)
	}
	end, err := e.building()
	if err != nil {
		return nil, err
	}
	defer end()
	return next(ctx, req)
}

// maxMessage is the most that a message of BuildKit's protocol may have.
const maxMessage = 16 << 20

func newFrontends(workers *worker.Controller, s settings.Builds) (map[string]frontend.Frontend, error) {
	own := explained{forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build), s}
	others, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	return map[string]frontend.Frontend{"dockerfile.v0": own, "gateway.v0": imageFrontend{own: own, others: explained{others, s}, allowed: s.Frontends == "all"}}, err
}

// newWorker fills BuildKit's worker by hand.
func (b *Builder) newWorker(ctx context.Context, e *engine) (*builderWorker, error) {
	ground := image.GroundOf(b.o.Images)
	md, err := metadata.NewStore(e.data.path(metadataFile))
	if err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	e.data.lazily(md.DB())
	e.closers = append(e.closers, md.Close)
	recorded, err := recordsOf(md)
	if err == nil {
		err = letGo(ctx, ground, recorded)
	}
	if err != nil {
		return nil, err
	}
	id, err := base.ID(b.root())
	if err != nil {
		return nil, err
	}
	store := containerdsnapshot.NewContentStore(ground.Content, ground.Namespace)
	snaps := containerdsnapshot.NewSnapshotter(ground.Snapshotter, &chainNames{ground.Snapshots, b.o.dates(), &b.uppers}, ground.Namespace, nil)
	opt := base.WorkerOpt{
		ID: id, Root: b.root(), MetadataStore: md,
		Labels:          map[string]string{wlabel.Executor: "oci", wlabel.Snapshotter: ground.Snapshotter, wlabel.Network: "bridge"},
		Platforms:       []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		BuildkitVersion: client.BuildkitVersion{Package: "wherry.dev/wherry", Version: version.Version},
		Executor:        newExecutor(b),
		Snapshotter:     snaps, ContentStore: store,
		Applier: apply.NewFileSystemApplier(store), Differ: walking.NewWalkingDiff(store),
		LeaseManager:   leaseutil.WithNamespace(&chainLeases{ground.Leases}, ground.Namespace),
		GCPolicy:       b.o.policy(),
		GarbageCollect: ground.Collect, RegistryHosts: b.o.registryHosts(ctx),
		MountPoolRoot: filepath.Join(b.root(), "mounts"),
	}
	w, err := base.NewWorker(ctx, opt)
	if err != nil {
		return nil, err
	}
	return b.extend(w)
}
