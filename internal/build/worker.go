package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	imageexporter "github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	httpsource "github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker/base"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/ref"
)

// builderWorker is BuildKit's worker with the engine's images.
type builderWorker struct {
	*base.Worker
	images *imageSource
	b      *Builder
	writer *imageexporter.ImageWriter
}

// extend puts the engine's own sources and exporters over BuildKit's.
func (b *Builder) extend(w *base.Worker) (*builderWorker, error) {
	src := &imageSource{Source: w.ImageSource, images: b.o.Images}
	w.SourceManager.Register(src)
	hs, err := httpsource.NewSource(httpsource.Opt{CacheAccessor: w.CacheMgr, Transport: &b.contexts})
	if err != nil {
		return nil, err
	}
	w.SourceManager.Register(hs)
	w.HTTPSource = hs
	writer, err := imageexporter.NewImageWriter(imageexporter.WriterOpt{Snapshotter: w.Snapshotter, ContentStore: w.WorkerOpt.ContentStore, Applier: w.Applier, Differ: w.Differ})
	return &builderWorker{Worker: w, images: src, b: b, writer: writer}, err
}

// gatewayLabel is where clients look for the address that host-gateway means.
const gatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// Labels are what clients are told of the worker.
func (w *builderWorker) Labels() map[string]string {
	out := maps.Clone(w.Worker.Labels())
	if a := network.HostGateway(w.b.o.Networks); a.IsValid() {
		out[gatewayLabel] = a.String()
	}
	return out
}

// CDIManager knows the devices that are described now; nil: there can be none.
func (w *builderWorker) CDIManager() *cdidevices.Manager { return w.b.devices() }

func (b *Builder) devices() *cdidevices.Manager {
	cache := b.o.CDI.Cache()
	if cache == nil {
		return nil
	}
	return cdidevices.NewManager(cache, nil)
}

// mobyExporter is what clients of Docker call the image store.
const mobyExporter = "moby"

// Exporter finds where a result goes.
func (w *builderWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	switch name {
	case client.ExporterImage, mobyExporter:
	case client.ExporterOCI, client.ExporterDocker:
		inner, err := w.Worker.Exporter(name, sm)
		return &datedExporter{Exporter: inner, b: w.b}, err
	default:
		return w.Worker.Exporter(name, sm)
	}
	inner, err := imageexporter.New(imageexporter.Opt{SessionManager: sm, ImageWriter: w.writer, RegistryHosts: w.RegistryHosts, LeaseManager: w.LeaseManager()})
	return &storeExporter{Exporter: inner, w: w, sm: sm}, err
}

// storeExporter brings results into the image store, and to registries, by package image.
type storeExporter struct {
	exporter.Exporter
	w  *builderWorker
	sm *session.Manager
}

// outcome is one result on its way into the store.
type outcome struct {
	exporter.ExporterInstance
	e     *storeExporter
	id    int
	attrs map[string]string
	names []string
	asked bool // the name is what the Dockerfile's frontend says
	push  bool
	store bool
	pack  bool
}

// own are attributes that are seen to here.
type own struct{ push, store bool }

func (o *own) take(attrs map[string]string) error {
	o.store = true
	for key, to := range map[exptypes.ImageExporterOptKey]*bool{exptypes.OptKeyPush: &o.push, exptypes.OptKeyStore: &o.store} {
		v, ok := attrs[string(key)]
		if !ok {
			continue
		}
		delete(attrs, string(key))
		*to = true
		if v == "" {
			continue
		}
		var err error
		if *to, err = strconv.ParseBool(v); err != nil {
			return errors.New(string(key) + "=" + v + ": it is true or false")
		}
	}
	for _, key := range []exptypes.ImageExporterOptKey{exptypes.OptKeyUnpack, exptypes.OptKeyDanglingPrefix, exptypes.OptKeyDanglingEmptyOnly, exptypes.OptKeyNameCanonical} {
		delete(attrs, string(key))
	}
	return nil
}

// Resolve reads the attributes.
func (e *storeExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	attrs = maps.Clone(attrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	o := &outcome{e: e}
	var mine own
	if err := mine.take(attrs); err != nil {
		return nil, err
	}
	o.push, o.store = mine.push, mine.store
	byDigest, _ := strconv.ParseBool(attrs[string(exptypes.OptKeyPushByDigest)])
	if byDigest || attrs[string(exptypes.OptKeyInsecure)] != "" {
		attrs[string(exptypes.OptKeyPush)], o.push = strconv.FormatBool(o.push), false // by BuildKit's own client
	}
	name := attrs[string(exptypes.OptKeyName)]
	if o.asked = name == "*"; !o.asked && !byDigest { // by digest there is no tag, and no name here
		names, err := fullNames(name)
		if err != nil {
			return nil, err
		}
		o.names = names
		if attrs[string(exptypes.OptKeyName)] = strings.Join(names, ","); len(names) == 0 {
			delete(attrs, string(exptypes.OptKeyName))
		}
	}
	attrs, o.pack = packed(attrs)
	inner, err := e.Exporter.Resolve(ctx, id, attrs)
	o.ExporterInstance, o.id, o.attrs = inner, id, attrs
	return o, err
}

// fullNames turns a list of names into full ones.
func fullNames(list string) ([]string, error) {
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		r, err := ref.Parse(name)
		if err != nil {
			return nil, err
		}
		out = append(out, r.String())
	}
	return out, nil
}

// Export writes the image, and then keeps and sends it.
func (o *outcome) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (_ map[string]string, _ exporter.FinalizeFunc, _ exporter.DescriptorReference, err error) {
	if err := extract(ctx, src, session.NewGroup(info.SessionID)); err != nil {
		return nil, nil, nil, err
	}
	if o.pack {
		if err := pack(ctx, src, session.NewGroup(info.SessionID)); err != nil {
			return nil, nil, nil, err
		}
	}
	inner := o.ExporterInstance
	date := o.attrs[string(exptypes.OptKeySourceDateEpoch)]
	if date == "" && o.e.w.b.o.dates() != "" {
		date = madeAt(src)
		attrs := maps.Clone(o.attrs)
		attrs[string(exptypes.OptKeySourceDateEpoch)] = date
		if inner, err = o.e.Exporter.Resolve(ctx, o.id, attrs); err != nil {
			return nil, nil, nil, err
		}
	}
	resp, finalize, desc, err := inner.Export(ctx, madeThen(src, date), info)
	if err != nil {
		return resp, finalize, desc, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, desc.Release())
		}
	}()
	names := o.names
	if o.asked {
		if names, err = fullNames(string(src.Metadata["image.name"])); err != nil {
			return nil, nil, nil, err
		}
	}
	built := image.Built{Target: desc.Descriptor(), Names: names}
	if built.Layers, err = layersOf(ctx, src); err != nil {
		return nil, nil, nil, err
	}
	if o.store {
		step := "naming to " + strings.Join(names, ", ")
		if len(names) == 0 {
			step = "keeping it without a name"
		}
		done := progress.OneOff(ctx, step)
		if err := done(image.Keep(ctx, o.e.w.b.o.Images, built)); err != nil {
			return nil, nil, nil, err
		}
		if _, ok := resp[exptypes.ExporterImageConfigDigestKey]; ok {
			resp[exptypes.ExporterImageConfigDigestKey] = desc.Descriptor().Digest.String() // what clients show as the id, which is this here
		}
	}
	if !o.push || len(names) == 0 {
		return resp, finalize, desc, nil
	}
	send := func(ctx context.Context) error {
		for _, name := range names {
			if err := o.send(ctx, name, built, info.SessionID); err != nil {
				return err
			}
		}
		return nil
	}
	return resp, send, desc, nil
}

// extract has all layers here, also those that an imported cache has only named.
func extract(ctx context.Context, src *exporter.Source, g session.Group) error {
	refs := slices.Collect(maps.Values(src.Refs))
	if src.Ref != nil {
		refs = append(refs, src.Ref)
	}
	for _, r := range refs {
		if r == nil {
			continue
		}
		if err := r.Extract(ctx, g); err != nil {
			return fmt.Errorf("fetch the layers of the result: %w", err)
		}
	}
	return nil
}

// send pushes the image, with the client's login.
func (o *outcome) send(ctx context.Context, name string, built image.Built, sessionID string) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	a, err := login(ctx, o.e.sm, session.NewGroup(sessionID), r.Domain)
	if err != nil {
		return err
	}
	// In the words that BuildKit has for it, which clients look for.
	done := progress.OneOff(ctx, "pushing layers")
	w, _, _ := progress.NewFromContext(ctx)
	defer w.Close() // which the end of the build waits for
	if err := done(image.Send(ctx, o.e.w.b.o.Images, r, image.SendOptions{Target: built.Target, Auth: a, Progress: pushed(w)})); err != nil {
		return err
	}
	return progress.OneOff(ctx, "pushing manifest for "+name+"@"+built.Target.Digest.String())(nil)
}

// pushed shows how far the layers of a push are.
func pushed(w progress.Writer) func(image.Progress) {
	began := time.Now()
	return func(p image.Progress) {
		if p.ID == "" || p.Total == 0 {
			return
		}
		st := progress.Status{Action: "pushing", Current: int(p.Current), Total: int(p.Total), Started: &began}
		if p.Current >= p.Total {
			now := time.Now()
			st.Completed = &now
		}
		_ = w.Write("pushing "+p.ID, st)
	}
}

// layersOf are the snapshots of a result's layers, by platform.
func layersOf(ctx context.Context, src *exporter.Source) (map[string][]string, error) {
	out := map[string][]string{}
	if src.Ref != nil {
		out[""] = snapshotsOf(ctx, src.Ref)
	}
	if len(src.Refs) == 0 {
		return out, nil
	}
	list, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, err
	}
	for _, p := range list.Platforms {
		if r, ok := src.FindRef(p.ID); ok && r != nil {
			out[image.PlatformKey(p.Platform)] = snapshotsOf(ctx, r)
		}
	}
	return out, nil
}

// snapshotsOf are the snapshots of a chain of layers, the lowest first.
func snapshotsOf(ctx context.Context, r cache.ImmutableRef) []string {
	chain := r.LayerChain()
	defer func() { _ = chain.Release(context.WithoutCancel(ctx)) }()
	keys := make([]string, 0, len(chain))
	for _, l := range chain {
		key := l.GetString("cache.snapshot") // of BuildKit's cache package, which has no word for it outside
		if key == "" {
			key = l.ID()
		}
		keys = append(keys, chainName(key))
	}
	return keys
}
