package image

import (
	"context"
	"fmt"
	"io"
	"slices"
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

// sending brings manifests and what is below them into a repository, for pushes and copies. What is not here comes from a registry, and only
// what the other has not, nor can have lent from a neighbour.
type sending struct {
	s       *Service
	o       *TransferOptions // Auth is for the destination
	dest    ref.Reference
	to      *registry.Pusher
	from    func(context.Context, ocispec.Descriptor) (*pull, error) // where a manifest that is not here, or its parts, come from
	lenders func(digest.Digest) []string                             // repositories that may have a blob

	mu   sync.Mutex // guards what follows
	seen map[digest.Digest]bool
	back bool // blobs were brought back for it, and dropped again
}

// sendTo prepares to send into a repository what is in the store.
func sendTo(ctx context.Context, s *Service, c *registry.Client, o *TransferOptions) (*sending, error) {
	to, err := c.Pusher(ctx)
	if err != nil {
		return nil, err
	}
	to.Waiting = func(d ocispec.Descriptor, wait time.Duration, err error) {
		o.say(short(d), "Retrying in %s: %s", wait, err)
	}
	here := &pull{s: s}
	return &sending{s: s, o: o, dest: c.Ref, to: to, lenders: origins{s.store}.lenders(ctx, c.Ref), seen: map[digest.Digest]bool{},
		from: func(context.Context, ocispec.Descriptor) (*pull, error) { return here, nil }}, nil
}

// send brings all that stands below target into r's repository, and target under r's tag.
func send(ctx context.Context, s *Service, r ref.Reference, target ocispec.Descriptor, o *TransferOptions) error {
	t, err := sendTo(ctx, s, s.registries.Client(ctx, r, o.Auth), o)
	if err != nil {
		return err
	}
	err = t.tree(ctx, target, r.Tag, 0)
	if t.back {
		_ = s.sweep(context.WithoutCancel(ctx)) // else the next one does
	}
	if err != nil {
		return err
	}
	return origins{s.store}.note(ctx, r, target)
}

// tree sends what stands below a manifest or index, and then itself: a registry takes none whose parts it has not.
func (t *sending) tree(ctx context.Context, d ocispec.Descriptor, tag string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("index %s is nested too deep: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	if tag == "" {
		if !t.first(d.Digest) {
			return nil
		}
		if there, err := t.to.Has(ctx, d.Digest); err != nil || there {
			return err
		}
	}
	from, err := t.from(ctx, d)
	if err != nil {
		return err
	}
	if err := from.manifestHere(ctx, d); err != nil {
		return err
	}
	content, err := t.s.small(ctx, d)
	if err != nil {
		return err
	}
	children, err := t.s.children(ctx, d)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	g, beside := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, c := range children {
		switch {
		case isManifest(c):
			err = t.tree(ctx, c, "", depth+1)
		case images.IsNonDistributable(c.MediaType): // it comes from elsewhere, and may not be here
		case t.first(c.Digest):
			g.Go(func() error { return t.blob(beside, from, c) })
		}
		if err != nil {
			break
		}
	}
	if sent := g.Wait(); err == nil {
		err = sent
	}
	if err != nil {
		return err
	}
	return t.to.Manifest(ctx, d, content, tag)
}

// first says whether a part has not been seen to yet.
func (t *sending) first(d digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.seen[d]
	t.seen[d] = true
	return !seen
}

func (t *sending) blob(ctx context.Context, from *pull, d ocispec.Descriptor) error {
	told := !images.IsConfigType(d.MediaType)
	say := func(format string, args ...any) {
		if told {
			t.o.say(short(d), format, args...)
		}
	}
	r, err := t.open(ctx, from, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	defer r.Close()
	say("Preparing")
	up := registry.Upload{Descriptor: d, Content: r, From: func() []string { return t.lendersOf(from, d.Digest) }}
	if told && t.o.Progress != nil {
		last := int64(0)
		up.Sent = func(have int64) {
			if have-last >= 512<<10 || have < last {
				last = have
				t.o.Progress(Progress{ID: short(d), Status: "Pushing", Current: have, Total: d.Size})
			}
		}
	}
	unlock, err := t.s.transfers.lock(ctx, t.dest.Name()+"@"+d.Digest.String()) // who comes second finds it there
	if err != nil {
		return err
	}
	how, err := t.to.Blob(ctx, up)
	unlock()
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

// lendersOf names who may lend a blob: where it would come from, if that is at the same registry, before all others.
func (t *sending) lendersOf(from *pull, d digest.Digest) []string {
	list := t.lenders(d)
	if from.fetcher == nil || from.ref.Domain != t.dest.Domain || from.ref.Path == t.dest.Path || slices.Contains(list, from.ref.Path) {
		return list
	}
	return append([]string{from.ref.Path}, list...)
}

type readerAtCloser interface {
	io.ReaderAt
	io.Closer
}

// open opens a blob that is here, or one that is fetched when it is first read: what the other side has already is not even fetched.
func (t *sending) open(ctx context.Context, from *pull, d ocispec.Descriptor) (readerAtCloser, error) {
	if from.fetcher != nil {
		return lazily(ctx, t.s, d, func(ctx context.Context) error { return from.blob(ctx, d) }), nil
	}
	r, err := t.s.content.ReaderAt(ctx, d)
	if errdefs.IsNotFound(err) && t.s.dropped.has(d.Digest) {
		t.mu.Lock()
		t.back = true
		t.mu.Unlock()
		return lazily(ctx, t.s, d, func(ctx context.Context) error { return restore(ctx, t.s, d, login{t.dest.Domain, t.o.Auth}) }), nil
	}
	return r, err
}

// manifestHere sees to it that a manifest or index is in the store.
func (p *pull) manifestHere(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > maxJSON {
		return fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	return p.here(ctx, d)
}

// here fetches content that is not in the store.
func (p *pull) here(ctx context.Context, d ocispec.Descriptor) error {
	if p.fetcher != nil {
		return p.blob(ctx, d)
	}
	if !p.s.here(ctx, d) {
		return fmt.Errorf("%s is not here, and it is not known where it comes from: pull it first: %w", d.Digest, errdefs.ErrNotFound)
	}
	return nil
}
