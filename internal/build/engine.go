package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/version"
)

// metadataFile is there once anything was built.
const metadataFile = "metadata.db"

// engine is BuildKit at work.
type engine struct {
	control  *control.Controller
	sessions *session.Manager
	worker   *builderWorker
	grpc     *grpc.Server
	stop     context.CancelCauseFunc
	closers
}

// errClosing is why a build ends when the engine does.
var errClosing = errors.New("the engine is closing")

// open puts BuildKit together.
func (b *Builder) open(ctx context.Context) (e *engine, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	e = &engine{stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
			stop(err)
		}
	}()
	if e.sessions, err = session.NewManager(); err != nil {
		return e, err
	}
	if e.worker, err = b.newWorker(ctx, e); err != nil {
		return e, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(e.worker); err != nil {
		return e, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(b.root(), "cache.db"))
	if err != nil {
		return e, fmt.Errorf("open the results of builds: %w", err)
	}
	history, err := boltutil.SafeOpen(filepath.Join(b.root(), "history.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return e, errors.Join(fmt.Errorf("open the history of builds: %w", err), cache.Close())
	}
	hosts := b.o.registryHosts(ctx)
	e.control, err = control.NewController(control.Opt{
		SessionManager: e.sessions, WorkerController: workers, Frontends: newFrontends(workers),
		CacheManager: solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(workers)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(e.sessions, hosts), "local": localcache.ResolveCacheExporterFunc(e.sessions),
			"inline": inline.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(e.sessions, e.worker.ContentStore(), hosts), "local": localcache.ResolveCacheImporterFunc(e.sessions),
		},
		Entitlements: []string{"network.host"},
		HistoryDB:    history, CacheStore: cache, LeaseManager: e.worker.LeaseManager(), ContentStore: e.worker.ContentStore(),
		GarbageCollect: e.worker.GarbageCollect, GracefulStop: ctx.Done(),
	})
	if err != nil {
		return e, errors.Join(err, history.Close(), cache.Close())
	}
	e.closers = closers{e.control.Close} // which closes the worker, too
	e.grpc = grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	e.control.Register(e.grpc)
	e.closers = append(e.closers, func() error { e.grpc.Stop(); return nil }, func() error { e.stop(errClosing); return nil })
	return e, nil
}

// maxMessage is the most that a message of BuildKit's protocol may have.
const maxMessage = 16 << 20

func newFrontends(workers *worker.Controller) map[string]frontend.Frontend {
	own := forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)
	return map[string]frontend.Frontend{"dockerfile.v0": own, "gateway.v0": imageFrontend{own}}
}

// newWorker fills BuildKit's worker by hand.
func (b *Builder) newWorker(ctx context.Context, e *engine) (*builderWorker, error) {
	ground := image.GroundOf(b.o.Images)
	md, err := metadata.NewStore(filepath.Join(b.root(), metadataFile))
	if err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	e.closers = append(e.closers, md.Close)
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
