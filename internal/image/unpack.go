package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/snapshot"
)

// feed is where layers' bytes come from. They may still be on their way.
type feed interface {
	// open waits until a layer can be read from its beginning.
	open(ctx context.Context, layer ocispec.Descriptor) (stream, error)
	// whole waits until a layer's blob is here and verified; its error says why it is not to come.
	whole(ctx context.Context, layer ocispec.Descriptor) error
	// unpacked hears of a layer that is in its place.
	unpacked(layer ocispec.Descriptor)
}

// stream is a layer's bytes. After an error, spoiled says that others came first, and that a stream that is opened anew has the right ones.
type stream interface {
	io.ReadCloser
	spoiled() bool
}

// stored feeds layers whose blobs are here.
type stored struct{ *blobs }

func (s stored) open(ctx context.Context, layer ocispec.Descriptor) (stream, error) {
	blob, err := s.content.ReaderAt(ctx, layer)
	if err != nil {
		return nil, err
	}
	return storedBlob{io.NewSectionReader(blob, 0, blob.Size()), blob}, nil
}

func (s stored) whole(context.Context, ocispec.Descriptor) error { return nil }
func (s stored) unpacked(ocispec.Descriptor)                     {}

type storedBlob struct {
	io.Reader
	io.Closer
}

func (storedBlob) spoiled() bool { return false }

// mostUnpacking is how many layers of an image are unpacked at a time: as many as may be on their way, and some for those that are here.
const mostUnpacking = 6

// unpacking is one image's. Its layers are unpacked beside each other, each into a snapshot without a parent, and committed in their order:
// only then are they put upon each other.
type unpacking struct {
	l     *layers
	from  feed
	parts []*part
	room  chan struct{}
}

// part is one layer of it.
type part struct {
	layer         ocispec.Descriptor
	diff          digest.Digest
	chain, parent string
	done          chan struct{} // closed when what follows is set
	sink          sink          // nil: the layer was here
	unlock        func()        // others may wait for this layer
	tooMany       bool          // files for an image: it becomes a directory
}

func (p *part) key() string { return unpackPrefix + p.chain }

func (l *layers) newUnpacking(from feed, list []ocispec.Descriptor, diffs []digest.Digest) *unpacking {
	u := &unpacking{l: l, from: from, room: make(chan struct{}, mostUnpacking)}
	if from == nil {
		u.from = stored{l.st.blobs}
	}
	parent := ""
	for i := range diffs {
		chain := chainID(diffs[:i+1])
		u.parts = append(u.parts, &part{layer: list[i], diff: diffs[i], chain: chain, parent: parent, done: make(chan struct{}), unlock: func() {}})
		parent = chain
	}
	return u
}

// run unpacks what is not here, and says where the layers are, topmost first, if it knows. What was committed before an error stays.
func (u *unpacking) run(ctx context.Context) (places []string, err error) {
	g, within := errgroup.WithContext(ctx)
	for _, p := range u.parts {
		g.Go(func() error {
			err := u.unpack(within, p)
			var not *notCome
			if err == nil || errors.As(err, &not) {
				return err
			}
			return fmt.Errorf("unpack layer %s: %w", p.layer.Digest, err)
		})
	}
	g.Go(func() (err error) {
		places, err = u.commitAll(within)
		return err
	})
	err = g.Wait()
	for _, p := range u.parts {
		if p.sink != nil {
			u.giveUp(ctx, p)
		}
		p.unlock()
	}
	return places, u.l.st.explainFull(err)
}

func (u *unpacking) giveUp(ctx context.Context, p *part) {
	_ = p.sink.Close()
	_ = u.l.st.snaps.Remove(context.WithoutCancel(ctx), p.key())
}

// unpack brings one layer into a snapshot, unless it is here or another brings it.
func (u *unpacking) unpack(ctx context.Context, p *part) error {
	if err := checkLayer(ctx, p.layer); err != nil {
		return err
	}
	unlock, err := u.l.unpacking.lock(ctx, p.chain)
	if err != nil {
		return err
	}
	p.unlock = sync.OnceFunc(unlock)
	here, err := u.l.st.holdLayer(ctx, p.chain)
	if err != nil {
		return err
	}
	if here {
		p.unlock()
		close(p.done)
		return nil
	}
	select {
	case u.room <- struct{}{}:
		defer func() { <-u.room }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	again, err := u.try(ctx, p)
	for n := 0; again && n < 2; n++ {
		again, err = u.try(ctx, p)
	}
	if err == nil {
		close(p.done)
	}
	return err
}

// try unpacks a layer from its beginning. again: what came was not its content, but now it is here; or it is to take another form.
func (u *unpacking) try(ctx context.Context, p *part) (again bool, err error) {
	from, err := u.from.open(ctx, p.layer)
	if err != nil {
		return false, err
	}
	defer from.Close()
	if p.sink, err = u.prepare(ctx, p); err != nil {
		return false, err
	}
	got, err := u.l.memory.Unpack(ctx, from, func(ctx context.Context) error { return u.from.whole(ctx, p.layer) }, p.sink)
	if err == nil && got.Diff != p.diff {
		err = fmt.Errorf("its content is %s, the config says %s: %w", got.Diff, p.diff, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = p.sink.Finish()
	}
	if err != nil && (ctx.Err() != nil || room.Lacks(err)) {
		return false, err
	}
	came := u.from.whole(ctx, p.layer)
	switch {
	case came != nil:
		return false, &notCome{came}
	case err == nil:
		return false, nil
	}
	u.giveUp(ctx, p)
	p.sink = nil
	if from.spoiled() {
		return true, err
	}
	if errors.Is(err, snapshot.ErrTooMany) && !p.tooMany {
		p.tooMany = true
		return true, err
	}
	return false, u.l.blame(ctx, p.layer, err)
}

// notCome is the error by which a layer did not come: what its unpacking met was a consequence.
type notCome struct{ error }

func (n *notCome) Unwrap() error { return n.error }

// isReadOnly says that the store's file system takes nothing more, as the kernel has it after errors of the disk.
func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

func takesNoMore(err error) bool { return room.Lacks(err) || isReadOnly(err) }

func (u *unpacking) prepare(ctx context.Context, p *part) (sink, error) {
	snaps := u.l.st.snaps
	form := "any"
	if p.tooMany {
		form = snapshot.AsDirectory
	}
	forUnpacking := snapshots.WithLabels(map[string]string{snapshot.ForUnpacking: form})
	mounts, err := snaps.Prepare(ctx, p.key(), "", forUnpacking)
	if errdefs.IsAlreadyExists(err) {
		// Left half-made by an earlier life.
		if err := snaps.Remove(ctx, p.key()); err != nil {
			return nil, err
		}
		mounts, err = snaps.Prepare(ctx, p.key(), "", forUnpacking)
	}
	if err != nil {
		return nil, err
	}
	s, err := u.l.st.sinkFor(mounts, fslayer.DirOptions{Base: p.parent == ""})
	if err != nil {
		_ = snaps.Remove(context.WithoutCancel(ctx), p.key())
	}
	return s, err
}

// commitAll puts layers upon each other in their order, as they are there. Layers that are there at the same time are synced together.
func (u *unpacking) commitAll(ctx context.Context) (below []string, err error) {
	for i := 0; i < len(u.parts); {
		select {
		case <-u.parts[i].done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		n := 1
		for i+n < len(u.parts) && u.parts[i+n].isDone() {
			n++
		}
		if below, err = u.commit(ctx, u.parts[i:i+n], below); err != nil {
			return nil, err
		}
		i += n
	}
	return below, nil
}

func (p *part) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// commit names layers that follow each other: data → sync → name. below are the layers below, topmost first; nil: they have to be asked for.
func (u *unpacking) commit(ctx context.Context, parts []*part, below []string) ([]string, error) {
	var settled []*part
	flush := func() error {
		if len(settled) > 0 {
			if err := settled[len(settled)-1].sink.Sync(); err != nil {
				return err
			}
		}
		for _, p := range settled {
			if err := u.name(ctx, p); err != nil {
				return err
			}
		}
		settled = nil
		return nil
	}
	for _, p := range parts {
		if p.sink == nil {
			below = nil
			u.from.unpacked(p.layer)
			continue
		}
		if below == nil && p.parent != "" {
			if err := flush(); err != nil {
				return nil, err
			}
			var err error
			if below, err = u.l.where(ctx, digest.Digest(p.parent)); err != nil {
				return nil, err
			}
		}
		if err := p.sink.Settle(below); err != nil {
			return nil, fmt.Errorf("unpack layer %s: %w", p.layer.Digest, err)
		}
		settled = append(settled, p)
		if place := p.sink.Place(); place != "" {
			below = slices.Insert(slices.Clone(below), 0, place)
		} else {
			below = nil
		}
	}
	return below, flush()
}

// name commits a layer whose data is on the disk.
func (u *unpacking) name(ctx context.Context, p *part) error {
	if err := errors.Join(p.sink.Measure(ctx), p.sink.Close()); err != nil {
		return err
	}
	var opts []snapshots.Opt
	if p.parent != "" {
		opts = append(opts, snapshots.WithParent(p.parent))
	}
	err := u.l.st.snaps.Commit(ctx, p.chain, p.key(), opts...)
	if errdefs.IsAlreadyExists(err) {
		err = u.l.st.snaps.Remove(ctx, p.key())
	}
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", p.layer.Digest, err)
	}
	p.sink = nil
	p.unlock()
	u.from.unpacked(p.layer)
	return nil
}

// blame tells a layer that came damaged from one that was damaged here: the latter is dropped, so that a pull brings it anew.
func (l *layers) blame(ctx context.Context, layer ocispec.Descriptor, err error) error {
	if l.st.verify(ctx, layer) == nil {
		return err
	}
	if dropped := l.st.discard(context.WithoutCancel(ctx), layer.Digest); dropped != nil {
		return errors.Join(err, dropped)
	}
	return fmt.Errorf("its file on this disk was damaged and is dropped: pull or load the image again: %w", err)
}

// maxLayers is what an overlay can have (fs/overlayfs, OVL_MAX_STACK).
const maxLayers = 500

// checkImage holds a manifest's layers against what the config says of them.
func (l *layers) checkImage(ctx context.Context, manifest ocispec.Descriptor) (ocispec.Manifest, []digest.Digest, error) {
	m, err := l.st.manifest(ctx, manifest)
	if err != nil {
		return m, nil, err
	}
	diffs, err := images.RootFS(ctx, l.st.content, m.Config)
	if err != nil {
		return m, nil, fmt.Errorf("read the layers of %s: %w", manifest.Digest, err)
	}
	if len(diffs) != len(m.Layers) {
		return m, nil, fmt.Errorf("image %s has %d layers, its config names %d: %w", manifest.Digest, len(m.Layers), len(diffs), errdefs.ErrInvalidArgument)
	}
	if len(diffs) > maxLayers {
		return m, nil, fmt.Errorf("image %s has %d layers, %d are the most that the kernel puts upon each other: %w", manifest.Digest, len(diffs), maxLayers, errdefs.ErrInvalidArgument)
	}
	for _, d := range diffs {
		if err := d.Validate(); err != nil {
			return m, nil, fmt.Errorf("config of %s names layer %q: %w: %w", manifest.Digest, d, err, errdefs.ErrInvalidArgument)
		}
	}
	return m, diffs, nil
}
