package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/ref"
)

// Progress is one line of Docker's JSON progress stream.
type Progress struct {
	ID, Status     string
	Current, Total int64
	Aux            any
}

// TransferOptions of Pull and Push.
type TransferOptions struct {
	Platform *ocispec.Platform
	AllTags  bool
	Auth     *registry.AuthConfig // what the client sent for the reference's registry; nil: anonymous
	Progress func(Progress)       // may be called from several goroutines; nil is fine
}

func (o *TransferOptions) say(id, format string, args ...any) {
	if o.Progress != nil {
		o.Progress(Progress{ID: id, Status: fmt.Sprintf(format, args...)})
	}
}

// tries is how often a broken download is taken up again where it stopped.
const tries = 5

// Pull brings an image here and unpacks it: layers are downloaded beside each other, and unpacked as they arrive.
func (s *Service) Pull(ctx context.Context, name string, o TransferOptions) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	resolver := s.resolver(ctx, r, o.Auth, nil)
	if o.AllTags {
		return s.pullAllTags(ctx, r, o)
	}
	o.say(tagOrDigest(r), "Pulling from %s", r.FamiliarRepository())
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, target, err := resolver.Resolve(ctx, r.String())
	if err != nil {
		return explain("pull "+r.Familiar(), r.Domain, err)
	}
	fetcher, err := resolver.Fetcher(ctx, r.String())
	if err != nil {
		return explain("pull "+r.Familiar(), r.Domain, err)
	}
	p := &pull{s: s, o: o, ref: r, fetcher: fetcher}
	if err := p.run(ctx, target); err != nil {
		return explain("pull "+r.Familiar(), r.Domain, err)
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
	fetcher remotes.Fetcher
}

// run fetches manifests down to the platform's, then config and layers.
func (p *pull) run(ctx context.Context, target ocispec.Descriptor) error {
	manifest, err := p.manifest(ctx, target)
	if err != nil {
		return err
	}
	m, err := images.Manifest(ctx, p.s.content, manifest, nil)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", manifest.Digest, err)
	}
	if err := p.blob(ctx, m.Config); err != nil {
		return err
	}
	if err := p.checkPlatform(ctx, m.Config); err != nil {
		return err
	}
	return p.layers(ctx, manifest, m.Layers)
}

// manifest fetches an index or manifest and chooses the platform's.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	if d.Size > 8<<20 {
		return d, fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	if err := p.blob(ctx, d); err != nil {
		return d, err
	}
	if images.IsManifestType(d.MediaType) {
		return d, nil
	}
	if !images.IsIndexType(d.MediaType) {
		return d, fmt.Errorf("%s is of type %q, not a container image: %w", d.Digest, d.MediaType, errdefs.ErrInvalidArgument)
	}
	children, err := images.Children(ctx, p.s.content, d)
	if err != nil {
		return d, err
	}
	want := matcher(p.o.Platform)
	var best *ocispec.Descriptor
	for i, c := range children {
		if c.Platform != nil && want.Match(*c.Platform) && (best == nil || want.Less(*c.Platform, *best.Platform)) {
			best = &children[i]
		}
	}
	if best == nil {
		spec := platforms.DefaultSpec()
		if p.o.Platform != nil {
			spec = *p.o.Platform
		}
		return d, fmt.Errorf("no matching manifest for %s in the manifest list entries: %w", platforms.Format(spec), errNoPlatform)
	}
	return p.manifest(ctx, *best)
}

var errNoPlatform = errors.New("the image is not made for this platform: choose another with --platform, or another tag")

// checkPlatform refuses an image of one platform only when another one was asked for by name.
func (p *pull) checkPlatform(ctx context.Context, config ocispec.Descriptor) error {
	if p.o.Platform == nil {
		return nil
	}
	has, err := images.ConfigPlatform(ctx, p.s.content, config)
	if err != nil {
		return err
	}
	if !matcher(p.o.Platform).Match(has) {
		return fmt.Errorf("there is only %s, and %s is asked for: %w", platforms.Format(has), platforms.Format(*p.o.Platform), errNoPlatform)
	}
	return nil
}

// layers downloads all, at most four at a time, and unpacks each when those below it are there.
func (p *pull) layers(ctx context.Context, manifest ocispec.Descriptor, layers []ocispec.Descriptor) error {
	here := map[string]chan struct{}{}
	for _, l := range layers {
		if here[l.Digest.String()] == nil {
			here[l.Digest.String()] = make(chan struct{})
			p.o.say(short(l), "Pulling fs layer")
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(5)
	g.Go(func() error {
		_, err := p.s.unpack(ctx, manifest, func(ctx context.Context, l ocispec.Descriptor) error {
			select {
			case <-here[l.Digest.String()]:
				p.o.say(short(l), "Extracting")
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		return err
	})
	started := map[string]bool{}
	for _, l := range layers {
		key := l.Digest.String()
		if started[key] {
			continue
		}
		started[key] = true
		g.Go(func() error {
			defer close(here[key])
			return p.layer(ctx, l)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for key := range started {
		p.o.say(key[7:19], "Pull complete")
	}
	return nil
}

func short(d ocispec.Descriptor) string { return d.Digest.Encoded()[:12] }

func (p *pull) layer(ctx context.Context, l ocispec.Descriptor) error {
	if len(l.URLs) > 0 {
		l.URLs = nil // a foreign address of the image's making is never asked
	}
	if _, err := p.s.content.Info(ctx, l.Digest); err == nil {
		p.o.say(short(l), "Already exists")
		return nil
	}
	stop := p.report(ctx, l)
	err := p.blob(ctx, l)
	stop()
	if err == nil {
		p.o.say(short(l), "Download complete")
	}
	return err
}

// report tells how far a download is, until stop is called.
func (p *pull) report(ctx context.Context, l ocispec.Descriptor) (stop func()) {
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
			if st, err := p.s.content.Status(ctx, remotes.MakeRefKey(ctx, l)); err == nil {
				p.o.Progress(Progress{ID: short(l), Status: "Downloading", Current: st.Offset, Total: l.Size})
			}
		}
	}()
	return func() { close(done); ended.Wait() }
}

// blob fetches one piece of content, verified by size and digest; a broken connection is taken up where it stopped.
func (p *pull) blob(ctx context.Context, d ocispec.Descriptor) error {
	d.URLs = nil
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		err := remotes.Fetch(ctx, p.s.content, p.fetcher, d)
		if err == nil || errdefs.IsAlreadyExists(err) {
			return p.label(ctx, d)
		}
		if try == tries || !transient(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// transient errors are those that a second try may not see.
func transient(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errdefs.IsUnavailable(err) || isNetwork(err)
}

// label makes content keep its children from being collected, and remember where it came from.
func (p *pull) label(ctx context.Context, d ocispec.Descriptor) error {
	return p.s.labelChildren(ctx, d)
}

func (s *Service) labelChildren(ctx context.Context, d ocispec.Descriptor) error {
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return nil
	}
	_, err := images.SetChildrenLabels(s.content, images.ChildrenHandler(s.content))(ctx, d)
	return err
}

// finish names the image.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) error {
	old, err := p.s.images.Get(ctx, p.ref.String())
	fresh := err != nil || old.Target.Digest != target.Digest
	if err := p.s.name(ctx, p.ref.String(), target); err != nil {
		return err
	}
	p.o.say("", "Digest: %s", target.Digest)
	if fresh {
		p.o.say("", "Status: Downloaded newer image for %s", p.ref.Familiar())
	} else {
		p.o.say("", "Status: Image is up to date for %s", p.ref.Familiar())
	}
	p.s.o.Events.Publish(events.ImageEventType, events.ActionPull, p.ref.Familiar(), map[string]string{"name": p.ref.FamiliarName()})
	return nil
}

// name points a reference at content.
func (s *Service) name(ctx context.Context, name string, target ocispec.Descriptor) error {
	img := images.Image{Name: name, Target: ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}}
	_, err := s.images.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.images.Update(ctx, img, "target")
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	return nil
}

func (s *Service) pullAllTags(ctx context.Context, r ref.Reference, o TransferOptions) error {
	tags, err := s.tags(ctx, r, o.Auth)
	if err != nil {
		return explain("pull "+r.Familiar(), r.Domain, err)
	}
	o.AllTags = false
	for _, tag := range tags {
		r.Tag = tag
		if err := s.Pull(ctx, r.String(), o); err != nil {
			return err
		}
	}
	return nil
}
