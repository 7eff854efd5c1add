package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/room"
)

// Progress is one line of Docker's JSON progress stream.
type Progress struct {
	ID, Status     string
	Current, Total int64
	Aux            any
}

// TransferOptions of Pull and Push.
type TransferOptions struct {
	Platform  *ocispec.Platform
	Platforms []ocispec.Platform // Pull and Load: these; Load without any takes all that there are
	AllTags   bool

	AnySole      bool                      // Pull: an image that is in no index is taken whatever platform it is for
	AllPlatforms bool                      // Pull: all that the index names, and what else it does
	Auth         *registrytypes.AuthConfig // what the client sent for the reference's registry; nil: anonymous
	Progress     func(Progress)            // may be called from several goroutines; nil is fine
}

func (o *TransferOptions) say(id, format string, args ...any) {
	if o.Progress != nil {
		o.Progress(Progress{ID: id, Status: fmt.Sprintf(format, args...)})
	}
}

// Pull brings an image here and unpacks it: layers are downloaded beside each other, and unpacked as they arrive. What stopped half-way is
// taken up where it stopped, by a later Pull too.
func (s *Service) Pull(ctx context.Context, name string, o TransferOptions) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if r.Name() == "docker.io/library/scratch" {
		return fmt.Errorf("'scratch' is a reserved name: in FROM lines it stands for no image at all: %w", errdefs.ErrInvalidArgument)
	}
	if isHello(name) && s.builtIn.stands(in(ctx)) {
		img, err := s.lookup(in(ctx), name)
		if err == nil {
			o.say("", "Digest: %s", img.Target.Digest)
			o.say("", "Status: %s is built into this engine: nothing was pulled", r.Familiar())
		}
		return err
	}
	c := s.registries.Client(ctx, r, o.Auth)
	if o.AllTags {
		return s.pullAllTags(ctx, c, o)
	}
	err = s.pullOnce(ctx, c, o)
	if room.Lacks(err) && s.makeRoom != nil && s.makeRoom(ctx) {
		o.say("", "The disk was full; images that were not used for long have been removed")
		err = s.pullOnce(ctx, c, o)
	}
	if err == nil {
		compactAfter(ctx, s, o)
	}
	return err
}

// compactAfter drops what can be had again by now, where that is asked for. What was pulled or pushed is so, whatever becomes of that.
func compactAfter(ctx context.Context, s *Service, o TransferOptions) {
	if !s.dropBlobs {
		return
	}
	c, err := Compact(ctx, s)
	switch {
	case err != nil:
		o.say("", "Layers that are to be kept unpacked only (store.keep-blobs) could not be dropped: %v", err)
	case c.Freed > 0:
		o.say("", "Layers are kept unpacked only (store.keep-blobs): %d MB were freed", c.Freed/1e6)
	}
}

// KeepOneForm does so after an image was made here. It may take as long as that.
func KeepOneForm(ctx context.Context, s *Service) { compactAfter(ctx, s, TransferOptions{}) }

func (s *Service) pullOnce(ctx context.Context, c *registry.Client, o TransferOptions) error {
	why := "pull " + c.Ref.String()
	held, done, err := s.leaseFor(ctx, why)
	if err != nil {
		return err
	}
	if err = s.pullOne(held, c, o); err == nil {
		err = s.endEarlier(held, why)
	}
	done()
	if room.Lacks(err) {
		err = errors.Join(err, s.sweep(context.WithoutCancel(ctx))) // what is half here needs its room more than its resumption
	}
	return err
}

func (s *Service) pullOne(ctx context.Context, c *registry.Client, o TransferOptions) error {
	r := c.Ref
	target, err := c.Resolve(ctx)
	if err != nil {
		return registry.Explain("pull "+r.Familiar(), r.Domain, err)
	}
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return registry.Explain("pull "+r.Familiar(), r.Domain, err)
	}
	o.say(tagOrDigest(r), "Pulling from %s", r.FamiliarRepository())
	p := &pull{s: s, o: o, ref: r, fetcher: fetcher, client: c}
	if err := p.wanted(ctx, target); err != nil {
		switch {
		case isRefusal(err):
			return err
		case room.Lacks(err):
			return fmt.Errorf("pull %s: %w", r.Familiar(), s.explainFull(err))
		case errdefs.IsNotFound(err):
			return fmt.Errorf("pull %s: the registry has the image, but not all of its parts: %w", r.Familiar(), err)
		}
		return registry.Explain("pull "+r.Familiar(), r.Domain, err)
	}
	return p.finish(ctx, target)
}

func tagOrDigest(r ref.Reference) string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// pull is one under way.
type pull struct {
	s       *Service
	o       TransferOptions
	ref     ref.Reference
	fetcher *registry.Fetcher
	client  *registry.Client
}

// run fetches a platform's config and layers.
func (p *pull) run(ctx context.Context, manifest ocispec.Descriptor) error {
	m, err := p.s.manifest(ctx, manifest)
	if err != nil {
		return err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return fmt.Errorf("%s is of type %q, not a container image: %w", manifest.Digest, m.Config.MediaType, errdefs.ErrInvalidArgument)
	}
	if err := p.blob(ctx, m.Config); err != nil {
		return err
	}
	if err := p.fits(ctx, m.Config); err != nil {
		return err
	}
	return p.layers(ctx, manifest, m.Layers)
}

// fits holds the config's platform against what is wanted before layers are fetched: a manifest without an index says it only there.
func (p *pull) fits(ctx context.Context, config ocispec.Descriptor) error {
	var c ocispec.Image
	if err := p.s.readJSON(ctx, config, &c); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	has := platforms.Normalize(c.Platform)
	if p.o.Platform != nil && !p.o.AnySole && !matcher(p.o.Platform).Match(has) {
		return fmt.Errorf("there is only %s, and %s is asked for: %w", platforms.Format(has), platforms.Format(*p.o.Platform), errNoPlatform)
	}
	if p.o.Platform == nil && !matcher(nil).Match(has) {
		p.o.say("", "The image is made for %s, and this machine is %s: it cannot run here", platforms.Format(has), platforms.Format(platforms.DefaultSpec()))
	}
	return nil
}

// manifest fetches an index or manifest and chooses the platform's.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	if strings.HasPrefix(d.MediaType, "application/vnd.docker.distribution.manifest.v1") {
		return d, firstSchema(d)
	}
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return d, fmt.Errorf("%s is of type %q, not a container image: %w", d.Digest, d.MediaType, errdefs.ErrInvalidArgument)
	}
	if depth > 3 {
		return d, fmt.Errorf("index %s is nested too deep: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	if err := p.small(ctx, d); err != nil {
		return d, err
	}
	if images.IsManifestType(d.MediaType) {
		return d, nil
	}
	children, err := p.s.index(ctx, d)
	if err != nil {
		return d, err
	}
	want := matcher(p.o.Platform)
	var best *ocispec.Descriptor
	var have []string
	for i, c := range children {
		if c.Platform == nil || c.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		have = append(have, platforms.Format(*c.Platform))
		if want.Match(*c.Platform) && (best == nil || want.Less(*c.Platform, *best.Platform)) {
			best = &children[i]
		}
	}
	if best == nil {
		spec := platforms.DefaultSpec()
		if p.o.Platform != nil {
			spec = *p.o.Platform
		}
		return d, fmt.Errorf("no matching manifest for %s in the manifest list entries, which are for %s: %w", platforms.Format(spec), someOf(have), errNoPlatform)
	}
	return p.manifest(ctx, *best, depth+1)
}

// firstSchema says what to do about images that were pushed before 2016.
func firstSchema(d ocispec.Descriptor) error {
	return fmt.Errorf("manifest %s is of Docker's first schema, which is not supported: push the image anew with a current tool: %w", d.Digest, errdefs.ErrInvalidArgument)
}

// someOf names platforms of an image, of which a registry may name any number.
func someOf(list []string) string {
	const most = 30
	switch n := len(list); {
	case n == 0:
		return "no platform that is named"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), n-most)
	}
	return strings.Join(list, ", ")
}

// errNoPlatform is a not-found of a kind that a person can do something about.
var errNoPlatform = fmt.Errorf("choose another with --platform, or another tag: %w", errdefs.ErrInvalidArgument)

// mostDownloads is how many layers of an image are on their way at a time.
const mostDownloads = 4

// layers downloads all layers, some at a time, and unpacks each while it comes.
func (p *pull) layers(ctx context.Context, manifest ocispec.Descriptor, layers []ocispec.Descriptor) error {
	a := p.expect(ctx, manifest, layers)
	defer a.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := p.s.unpack(ctx, manifest, a)
		return err
	})
	room := make(chan struct{}, mostDownloads)
	for _, one := range a.inOrder {
		g.Go(func() error {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			err := p.layer(ctx, one)
			one.end(err)
			return err
		})
	}
	return g.Wait()
}

func short(d ocispec.Descriptor) string { return fmt.Sprintf("%.12s", d.Digest.Encoded()) }

func (p *pull) layer(ctx context.Context, one *arrival) error {
	if err := checkLayer(ctx, one.layer); err != nil {
		return err
	}
	if one.unpacked {
		return nil
	}
	if one.old {
		return p.blobInto(ctx, one, one.layer)
	}
	stop := p.report(ctx, one)
	err := p.blobInto(ctx, one, one.layer)
	stop()
	if err == nil {
		p.o.say(short(one.layer), "Download complete")
	}
	return err
}

// report tells how far a download is, until stop is called.
func (p *pull) report(ctx context.Context, one *arrival) (stop func()) {
	if p.o.Progress == nil {
		return func() {}
	}
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Add(1)
	go func() {
		defer ended.Done()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			if n := one.come(); n > 0 {
				p.o.Progress(Progress{ID: short(one.layer), Status: "Downloading", Current: n, Total: one.layer.Size})
			}
		}
	}()
	return func() { close(done); ended.Wait() }
}

// finish names the image.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) error {
	old, err := p.s.images.Get(ctx, p.ref.String())
	fresh := err != nil || old.Target.Digest != target.Digest
	// Before it has its name: from then on it can be run.
	if err := (provenance{p.s.store}).from(ctx, p.ref, target); err != nil {
		return err
	}
	if err := p.s.name(ctx, p.ref.String(), target, labelPulled); err != nil {
		return err
	}
	if err := (origins{p.s.store}).note(ctx, p.ref, target); err != nil {
		return err
	}
	p.o.say("", "Digest: %s", target.Digest)
	if err == nil && fresh {
		p.o.say("", "%s was %s%s", p.ref.Familiar(), old.Target.Digest, stillUsed(p.s.counts()[old.Target.Digest]))
	}
	if fresh {
		p.o.say("", "Status: Downloaded newer image for %s", p.ref.Familiar())
	} else {
		p.o.say("", "Status: Image is up to date for %s", p.ref.Familiar())
	}
	tell(ctx, p.s, target, happening{events.ActionPull, p.ref.Familiar(), p.ref.FamiliarName()})
	return nil
}

// stillUsed says how many containers go on with an image whose name has moved on.
func stillUsed(containers int64) string {
	switch containers {
	case 0:
		return ""
	case 1:
		return ", which 1 container goes on with"
	}
	return fmt.Sprintf(", which %d containers go on with", containers)
}

func (s *Service) pullAllTags(ctx context.Context, c *registry.Client, o TransferOptions) error {
	r := c.Ref
	tags, err := c.Tags(ctx)
	if err != nil {
		return registry.Explain("pull "+r.Familiar(), r.Domain, err)
	}
	o.AllTags = false
	r.Digest = ""
	for _, tag := range tags {
		r.Tag = tag
		if err := s.Pull(ctx, r.String(), o); err != nil {
			return err
		}
	}
	return nil
}
