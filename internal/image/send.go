package image

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// uploads is how many layers are sent at a time.
const uploads = 5

// sending is a push under way.
type sending struct {
	s       *Service
	o       *TransferOptions
	domain  string // of the registry, which the login is for
	to      *registry.Pusher
	lenders func(digest.Digest) []string // repositories that may have a blob

	mu   sync.Mutex // guards what follows
	seen map[digest.Digest]bool
	back bool // blobs were brought back for it, and dropped again
}

// send brings all that stands below target into r's repository, and target under r's tag.
func send(ctx context.Context, s *Service, r ref.Reference, target ocispec.Descriptor, o *TransferOptions) error {
	to, err := s.registries.Client(ctx, r, o.Auth).Pusher(ctx)
	if err != nil {
		return err
	}
	to.Waiting = func(d ocispec.Descriptor, wait time.Duration, err error) {
		o.say(short(d), "Retrying in %s: %s", wait, err)
	}
	t := &sending{s: s, o: o, domain: r.Domain, to: to, lenders: origins{s.store}.lenders(ctx, r), seen: map[digest.Digest]bool{}}
	err = t.tree(ctx, target, r.Tag)
	if t.back {
		_ = s.sweep(context.WithoutCancel(ctx)) // else the next one does
	}
	if err != nil {
		return err
	}
	return origins{s.store}.note(ctx, r, target)
}

// tree sends what stands below a manifest or index, and then itself: a registry takes none whose parts it has not.
func (t *sending) tree(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if tag == "" {
		if there, err := t.to.Has(ctx, d.Digest); err != nil || there {
			return err
		}
	}
	content, err := t.s.small(ctx, d)
	if err != nil {
		return err
	}
	children, err := images.Children(ctx, t.s.content, d)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	g, beside := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, c := range children {
		switch {
		case images.IsManifestType(c.MediaType) || images.IsIndexType(c.MediaType):
			if err := t.tree(ctx, c, ""); err != nil {
				return err
			}
		case images.IsNonDistributable(c.MediaType): // it comes from elsewhere, and may not be here
		case t.first(c.Digest):
			g.Go(func() error { return t.blob(beside, c) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return t.to.Manifest(ctx, d, content, tag)
}

// first says whether a blob has not been seen to yet.
func (t *sending) first(d digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.seen[d]
	t.seen[d] = true
	return !seen
}

func (t *sending) blob(ctx context.Context, d ocispec.Descriptor) error {
	layer := images.IsLayerType(d.MediaType)
	say := func(format string, args ...any) {
		if layer {
			t.o.say(short(d), format, args...)
		}
	}
	var r interface {
		io.ReaderAt
		io.Closer
	}
	r, err := t.s.content.ReaderAt(ctx, d)
	if errdefs.IsNotFound(err) && t.s.dropped.has(d.Digest) {
		r, err = lazily(ctx, t.s, d, login{t.domain, t.o.Auth}), nil
		t.mu.Lock()
		t.back = true
		t.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	defer r.Close()
	say("Preparing")
	up := registry.Upload{Descriptor: d, Content: r, From: func() []string { return t.lenders(d.Digest) }}
	if layer && t.o.Progress != nil {
		told := int64(0)
		up.Sent = func(have int64) {
			if have-told >= 512<<10 || have < told {
				told = have
				t.o.Progress(Progress{ID: short(d), Status: "Pushing", Current: have, Total: d.Size})
			}
		}
	}
	how, err := t.to.Blob(ctx, up)
	switch {
	case err != nil:
		return err
	case how.Existed:
		say("Layer already exists")
	case how.Mounted != "":
		say("Mounted from %s", how.Mounted)
	default:
		say("Pushed")
	}
	return nil
}
