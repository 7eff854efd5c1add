package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/build"
	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/disk"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/files"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/metrics"
	"wherry.dev/wherry/internal/monitor"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/plugin"
	"wherry.dev/wherry/internal/secret"
	"wherry.dev/wherry/internal/snapshot"
	"wherry.dev/wherry/internal/systemd"
	"wherry.dev/wherry/internal/threads"
	"wherry.dev/wherry/internal/trust"
	"wherry.dev/wherry/internal/version"
	"wherry.dev/wherry/internal/volume"
)

// grace is how long requests may go on after SIGTERM.
const grace = 3 * time.Second

// spareThreads are for many requests at once while somebody has filled the machine's table of processes: a thread is one of them. Where
// the engine itself may have few, it keeps few.
const spareThreads = 48

// enoughFiles is how many files an engine has to be able to open: some fifty are its own, and each container that runs takes a few.
const enoughFiles = 1024

// fewFiles tells where the engine's limit, which its shims have, too, is so low that few containers start, or none.
func fewFiles(log *slog.Logger, most uint64) {
	if most < enoughFiles {
		log.Warn(fmt.Sprintf("the engine may open %d files, with which few containers can run, or none: "+container.MoreFiles+" to %d or more", most, enoughFiles))
	}
}

// mayOpen is how many files the engine may open.
func mayOpen() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return enoughFiles
	}
	return limit.Max
}

// run is the engine's life: directories, lock, sockets, services, requests, and the way back.
func run(ctx context.Context, o options, log *slog.Logger) (err error) {
	began := time.Now()
	if err := underInit(o.oar); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("wherryd needs root, since it makes mounts, network links and control groups: run it with sudo, or as a system service")
	}
	fewFiles(log, mayOpen())
	bounded := func() (over func()) { return bound(ctx, endLimit, log, func() { os.Exit(1) }) }
	over := bounded()
	defer func() { over() }()
	for _, dir := range []string{o.root, o.state} {
		lock, err := prepare(dir)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	listeners, err := o.listen(log)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	id, err := engineID(o.root)
	if err != nil {
		return err
	}
	leave, err := o.placeGroups(ctx, id, log)
	if err != nil {
		return err
	}
	defer leave()
	defer runtime.KeepAlive(make([]byte, headroom))
	services, shut, err := wire(ctx, o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shut()) }()
	hosts := addresses(listeners)
	o.warn(log)
	stopMetrics, err := o.serveMetrics(context.WithoutCancel(ctx), services.Metrics)
	if err != nil {
		return err
	}
	defer stopMetrics()
	server := docker.New(services, docker.About{
		ID: id, Root: o.root, State: o.state, Hosts: hosts, CgroupParent: o.cgroupParent, Insecure: o.insecure, Started: began,
		Access: o.access, AuditReads: o.set.Audit.Reads, Debug: o.level <= slog.LevelDebug, Containers: o.set.Containers,
	}, log)
	defer o.reread(rulesFor(server, services.Audit), log)()
	log.Info("ready", "version", version.Version, "hosts", strings.Join(hosts, " "), "root", o.root, "took", time.Since(began).Round(time.Microsecond))
	notifyReady()
	threads.Calm()
	go threads.Reserve(min(spareThreads, cgroup.ProcessesLeft()/8)) // ends by itself, within milliseconds
	err = serve(ctx, server, listeners, log)
	if lasting := context.WithoutCancel(ctx); hostStops(lasting) {
		log.Info("the host is being shut down: containers are stopped")
		over() // which takes as long as their programs want
		container.Halt(lasting, services.Containers)
		over = bounded()
	}
	return err
}

// hostStops says whether the engine ends because the host does. Containers would be killed by then, whatever their stop signal, and without networks.
func hostStops(ctx context.Context) bool {
	if !systemd.Running() {
		return false
	}
	conn, err := systemd.Open(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	stopping, err := conn.Stopping(ctx)
	return err == nil && stopping
}

// What the heap may grow by until it is collected: little, as the engine idles most of its life; more while it builds, where half of the time
// would go into collecting.
const (
	idleGrowth = 50
	busyGrowth = 400
)

// spender has memory spent while something is built.
type spender struct {
	mu     sync.Mutex
	builds int // under way
}

// spend is called when a build begins, and the function that it returns when it is over.
func (s *spender) spend() (idle func()) {
	s.count(1, busyGrowth)
	return sync.OnceFunc(func() { s.count(-1, idleGrowth) })
}

func (s *spender) count(more, growth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.builds == 0
	s.builds += more
	if (first || s.builds == 0) && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
}

// headroom is memory that counts for the collector and is never touched, so it takes none: the heap of an engine with few containers is so
// small that a half of it would be collected at every other start, at the cost of a start's tenth.
const headroom = 16 << 20

// frugal has memory given back early. Both can be set from outside.
func frugal() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(idleGrowth)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(1 << 30)
	}
}

// wire opens the services in the order in which they rest on each other; shut closes them the other way round.
func wire(ctx context.Context, o options, log *slog.Logger) (s docker.Services, shut func() error, err error) {
	var closers []func() error
	shut = func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, shut())
		}
	}()
	// Containers outlive the engine; what it does for them is ended by Close, not by the signal.
	ctx = context.WithoutCancel(ctx)
	s.Events = event.New()
	if s.Audit, err = o.openAudit(log); err != nil {
		return s, shut, err
	}
	if s.Audit != nil {
		closers = append(closers, s.Audit.Close)
	}
	if s.Volumes, err = volume.Open(volume.Options{Root: filepath.Join(o.root, "volumes"), Events: s.Events, Log: func(err error) { log.Warn(err.Error()) }, Drivers: plugin.Docker()}); err != nil {
		return s, shut, fmt.Errorf("open volumes: %w", err)
	}
	closers = append(closers, s.Volumes.Close)
	for kind, into := range map[secret.Kind]**secret.Service{secret.Secret: &s.Secrets, secret.Config: &s.Configs} {
		if *into, err = secret.Open(filepath.Join(o.root, string(kind)+"s"), kind, s.Events, func(err error) { log.Warn(err.Error()) }); err != nil {
			return s, shut, err
		}
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		s.Images, err = image.Open(ctx, image.Options{Root: o.root, Oar: o.oar, InsecureRegistries: o.insecure, DropBlobs: !o.set.Store.KeepBlobs, Events: s.Events,
			Layers: snapshot.Format(o.set.Store.Layers), Mounts: filepath.Join(o.state, "layers"),
			Trust: trust.New(trust.Options{Policy: o.set.Engine.Policy, Helper: o.set.Engine.Verify, Empty: filepath.Join(o.root, "empty")}),
			Log:   func(err error) { log.Warn(err.Error()) }})
		return err
	})
	g.Go(func() (err error) {
		s.Networks, err = network.Open(ctx, network.Options{
			Root: o.root, State: o.state, Events: s.Events, Log: func(err error) { log.Warn(err.Error()) }, Publish: o.set.Network.Publish, Pools: o.set.Network.Pools,
			Defaults:  network.Defaults{Options: o.set.Network.Options, IPv6: o.set.Network.IPv6, Bridge: o.set.Network.Bridge, Range: o.set.Network.Range},
			Kept:      container.KeptSockets(o.state),
			Resolvers: network.Resolvers{Servers: o.set.Network.DNS, Search: o.set.Network.DNSSearch, Options: o.set.Network.DNSOptions},
		})
		return err
	})
	err = g.Wait()
	if s.Images != nil {
		closers = append(closers, s.Images.Close)
	}
	if s.Networks != nil {
		closers = append(closers, s.Networks.Close)
	}
	if err != nil {
		return s, shut, err
	}
	timings := &metrics.Timings{}
	var stopTraces func() error
	if s.Tracer, stopTraces, err = o.openTraces(ctx, log); err != nil {
		return s, shut, err
	}
	closers = append(closers, stopTraces)
	s.Containers, err = container.Open(ctx, container.Options{
		Root: o.root, State: o.state, Oar: o.oar, CgroupParent: o.cgroupParent, ShimGroup: o.shimGroup, Socket: o.socket(),
		Images: s.Images, Networks: s.Networks, Volumes: s.Volumes, Secrets: s.Secrets, Configs: s.Configs, Events: s.Events, Settings: o.set.Containers,
		Log: func(err error) { log.Warn(err.Error()) },
		Trace: func(id, step string, took time.Duration) {
			timings.Step(step, took)
			s.Tracer.Step(id, step, took)
			log.Debug("start", "container", id, "step", step, "took", took)
		},
	})
	if err != nil {
		return s, shut, fmt.Errorf("open containers: %w", err)
	}
	closers = append(closers, s.Containers.Close)
	if err := keepTemporary(o.root); err != nil {
		return s, shut, fmt.Errorf("empty the engine's directory of temporary files: %w", err)
	}
	builder, err := build.New(ctx, build.Options{Root: o.root, State: o.state, Images: s.Images, Containers: s.Containers, Networks: s.Networks, Events: s.Events,
		Settings: o.set.Builds, CDI: o.set.Containers.CDISpecDirs, Insecure: o.insecure, Log: func(err error) { log.Warn(err.Error()) }, Busy: new(spender).spend})
	if err != nil {
		return s, shut, err
	}
	s.Builder = builder
	closers = append(closers, builder.Close)
	s.Cleaner = image.NewCleaner(s.Images, o.set.CleanUp, log)
	s.Cleaner.Start(ctx)
	closers = append(closers, s.Cleaner.Close)
	s.Files = files.New(s.Containers, s.Images, s.Volumes, s.Events)
	s.Monitor = monitor.New(s.Containers, s.Events)
	s.Disk = &disk.Service{Root: o.root, Images: s.Images, Containers: s.Containers, Volumes: s.Volumes, Files: s.Files, Cache: builder.Usage}
	s.Metrics = newMetrics(s, timings)
	return s, shut, nil
}

// serve answers on all listeners until ctx ends, and then lets requests finish for a while.
func serve(ctx context.Context, server *docker.Server, listeners []net.Listener, log *slog.Logger) error {
	requests, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return server.Serve(requests, l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		log.Info("closing")
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err := server.Close(limit)
		cut(errors.New("the engine has closed"))
		return err
	})
	return g.Wait()
}

// engineID is 32 hex digits that are made once and kept in root.
func engineID(root string) (string, error) {
	path := filepath.Join(root, "engine-id")
	if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) == 32 {
		return strings.TrimSpace(string(b)), nil
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	id := hex.EncodeToString(raw[:])
	if err := os.WriteFile(path+".new", []byte(id+"\n"), 0o600); err != nil {
		return "", err
	}
	return id, os.Rename(path+".new", path)
}
