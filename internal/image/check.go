package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/mend"
	"wherry.dev/wherry/internal/snapshot"
)

// Damage is one part of the store that is not as it should be.
type Damage struct {
	Kind   string   // "blob", "layer", "image" or "container"
	ID     string   // digest, chain id or name
	What   string   // in a sentence without its subject
	Paths  []string `json:",omitempty"` // of a layer: what differs, the first few
	Users  []string // images and containers that need it
	Mended bool
	Why    string `json:",omitempty"` // it could not be mended
}

// CheckOptions of Check; all functions may be nil.
type CheckOptions struct {
	Repair     bool
	Quick      bool // leave out the files of unpacked layers
	Containers func(context.Context) (map[string][]string, error)
	Auth       func(host string) *registrytypes.AuthConfig
	Progress   func(what string, done, total int64)
	Damage     func(Damage)
}

// CheckReport is what Check found.
type CheckReport struct {
	Blobs, Layers, Images int64 // that were looked at
	Bytes                 int64 // of blobs
	Unverified            int64 // layers whose files cannot be held against anything, since their blob is not here
	Damaged, Mended       int64
}

// Check reads the whole store: each blob is held against its digest and size, each unpacked layer against its blob's tar, names and containers
// against what they need. One damaged part hides no other. With Repair, blobs are fetched again from where images say that they came from,
// layers get what they lack from their tar, and blobs that were damaged are kept in <root>/damaged. Everything goes on meanwhile.
func Check(ctx context.Context, s *Service, o CheckOptions) (CheckReport, error) {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return CheckReport{}, err
	}
	defer done()
	unlock, err := s.unpacking.lock(ctx, "check") // two would meet in their scratch
	if err != nil {
		return CheckReport{}, err
	}
	defer unlock()
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Damage == nil {
		o.Damage = func(Damage) {}
	}
	c := &check{s: s, o: o, bad: map[digest.Digest]bool{}, seenLayers: map[string]bool{}}
	scratch := filepath.Join(s.root, scratchDir)
	defer os.RemoveAll(scratch)
	for _, step := range []func(context.Context) error{c.names, c.blobs, c.layers, c.database, c.containers} {
		if err = step(ctx); err != nil {
			break
		}
	}
	if o.Repair && c.report.Mended > 0 {
		s.forgetLayers()
	}
	return c.report, err
}

// scratchDir holds the copy of a layer while it is compared; what a crash leaves of it goes at the next start.
const scratchDir = "checking"

// check is one under way.
type check struct {
	s      *Service
	o      CheckOptions
	report CheckReport

	bad          map[digest.Digest]bool // blobs that are damaged, or not here
	users        map[digest.Digest][]string
	repositories map[digest.Digest][]string // references by which a blob may be fetched
	wanted       map[digest.Digest]ocispec.Descriptor
	seenLayers   map[string]bool
	full         error // the disk does not take a layer a second time
}

func (c *check) tell(d Damage) {
	c.report.Damaged++
	if d.Mended {
		c.report.Mended++
	}
	slices.Sort(d.Users)
	d.Users = slices.Compact(d.Users)
	c.o.Damage(d)
}

// names learns who needs which blob, from the top: a manifest that is damaged hides what is below it, until it is fetched again.
func (c *check) names(ctx context.Context) error {
	for range maxDepth + 1 {
		if err := c.learn(ctx); err != nil {
			return err
		}
		mended := c.report.Mended
		for _, d := range c.wanted {
			if isManifest(d) {
				c.blob(ctx, d)
			}
		}
		if c.report.Mended == mended || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}

func (c *check) learn(ctx context.Context) error {
	c.wanted, c.users, c.repositories = map[digest.Digest]ocispec.Descriptor{}, map[digest.Digest][]string{}, map[digest.Digest][]string{}
	list, err := c.s.images.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	c.report.Images = int64(len(list))
	for _, img := range list {
		c.need(ctx, img, img.Target, map[digest.Digest]bool{})
	}
	return nil
}

func (c *check) need(ctx context.Context, img images.Image, d ocispec.Descriptor, seen map[digest.Digest]bool) {
	if seen[d.Digest] || len(seen) > maxManifests {
		return
	}
	seen[d.Digest] = true
	c.wanted[d.Digest] = d
	c.users[d.Digest] = append(c.users[d.Digest], familiar(img.Name))
	if !isFullID(img.Name) {
		c.repositories[d.Digest] = append(c.repositories[d.Digest], img.Name)
	}
	children, err := c.s.children(ctx, d)
	if err != nil {
		return // it is damaged, which is found when it is verified
	}
	isHere := func(p ocispec.Descriptor) bool { return c.s.here(ctx, p) }
	leftOut := d.Digest != img.Target.Digest && (!slices.ContainsFunc(children, isHere) || listedOnly(ctx, c.s, d, children))
	for _, child := range children {
		if images.IsNonDistributable(child.MediaType) || (leftOut || images.IsIndexType(d.MediaType)) && !isHere(child) {
			continue // of an index, platforms may be left out
		}
		c.need(ctx, img, child, seen)
	}
}

// blobs looks at all that is here, and for all that is needed.
func (c *check) blobs(ctx context.Context) error {
	sizes := map[digest.Digest]int64{}
	if err := c.s.content.Walk(ctx, func(i content.Info) error { sizes[i.Digest] = i.Size; return nil }); err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for id, d := range c.wanted {
		if _, ok := sizes[id]; !ok && !c.s.dropped.has(id) {
			sizes[id] = d.Size
		}
	}
	var total, done int64
	for _, size := range sizes {
		total += size
	}
	for id, size := range sizes {
		c.o.Progress("blobs", done, total)
		done += size
		c.report.Blobs++
		c.report.Bytes += size
		d, ok := c.wanted[id]
		if !ok {
			d = ocispec.Descriptor{Digest: id, Size: size}
		}
		c.blob(ctx, d)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// blob verifies one, once, and fetches it again.
func (c *check) blob(ctx context.Context, d ocispec.Descriptor) {
	if _, again := c.bad[d.Digest]; again {
		return
	}
	err := c.s.verifyOnDisk(ctx, d)
	c.bad[d.Digest] = err != nil
	if err == nil || ctx.Err() != nil {
		return
	}
	if c.users[d.Digest] == nil && !c.s.here(ctx, d) {
		return // it has just been collected
	}
	damage := Damage{Kind: "blob", ID: d.Digest.String(), What: damageText(err), Users: c.users[d.Digest]}
	if c.o.Repair {
		if err := c.refetch(ctx, d); err != nil {
			damage.Why = err.Error()
		} else {
			damage.Mended, c.bad[d.Digest] = true, false
		}
	}
	c.tell(damage)
}

func damageText(err error) string {
	switch {
	case errdefs.IsNotFound(err):
		return "is missing"
	case errors.Is(err, errdefs.ErrDataLoss):
		return "is damaged: " + strings.TrimSuffix(err.Error(), ": "+errdefs.ErrDataLoss.Error())
	}
	return "cannot be read: " + err.Error()
}

// layers looks at each unpacked layer, the lowest first.
func (c *check) layers(ctx context.Context) error {
	if c.o.Quick {
		return nil
	}
	for _, d := range c.manifests() {
		m, diffs, err := c.s.checkImage(ctx, d)
		if err != nil {
			continue // what is damaged was told above
		}
		for i := range diffs {
			chain := chainID(diffs[:i+1])
			if c.seenLayers[chain] {
				continue
			}
			c.seenLayers[chain] = true
			c.o.Progress("layers", c.report.Layers, 0)
			c.layer(ctx, chain, layerParts{m.Layers[i], diffs[:i+1]}, c.users[d.Digest])
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case c.full != nil:
				return fmt.Errorf("unpacked layers are looked at by unpacking each once more, and the disk takes no more: make room, or leave them out (--quick): %w", c.full)
			}
		}
	}
	return nil
}

func (c *check) manifests() (list []ocispec.Descriptor) {
	for _, d := range c.wanted {
		if images.IsManifestType(d.MediaType) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return list
}

// layerParts are what a layer is made of: its blob, and its and the lower ones' content.
type layerParts struct {
	blob  ocispec.Descriptor
	diffs []digest.Digest
}

// layer holds one against its tar.
func (c *check) layer(ctx context.Context, chain string, parts layerParts, users []string) {
	if _, err := c.s.snaps.Stat(ctx, chain); err != nil {
		return // it is unpacked when somebody needs it
	}
	if err := c.s.hold(ctx, chain); err != nil {
		return
	}
	c.report.Layers++
	damage := Damage{Kind: "layer", ID: chain, Users: users}
	place, err := c.stored(ctx, chain)
	if takesNoMore(err) {
		c.full = err
		return
	}
	if err != nil {
		damage.What = "cannot be found: " + err.Error()
		c.tell(damage)
		return
	}
	lost := readable(ctx, place)
	tar := !c.bad[parts.blob.Digest] && c.s.here(ctx, parts.blob)
	if lost != nil && !tar && c.o.Repair && c.s.dropped.has(parts.blob.Digest) {
		if err := restore(ctx, c.s, parts.blob, login{}); err == nil {
			defer func() { _, _ = dropUnheld(context.WithoutCancel(ctx), c.s, parts.blob.Digest) }()
			tar = true
		} else {
			damage.Why = err.Error()
		}
	}
	switch {
	case ctx.Err() != nil:
	case tar && snapshot.IsImage(place):
		c.image(ctx, place, parts, damage)
	case tar && (lost == nil || c.o.Repair):
		c.directory(ctx, place, parts, damage)
	case lost != nil:
		damage.What = "has lost its files: " + lost.Error()
		c.tell(damage)
	case c.s.dropped.remade(parts.blob.Digest):
		c.remade(ctx, chain, parts, damage)
	default:
		c.report.Unverified++
	}
}

// stored is where a layer lies on the disk, mounted or not, there or not.
func (c *check) stored(ctx context.Context, chain string) (string, error) {
	key := "check " + chain
	view := func() ([]mount.Mount, error) {
		return c.s.snaps.View(ctx, key, chain, snapshots.WithLabels(map[string]string{snapshot.AsStored: "yes"}))
	}
	mounts, err := view()
	if errdefs.IsAlreadyExists(err) { // of a check that was cut off
		if err = c.s.snaps.Remove(ctx, key); err == nil {
			mounts, err = view()
		}
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = c.s.snaps.Remove(context.WithoutCancel(ctx), key) }()
	if len(mounts) != 1 || mounts[0].Type != snapshot.StoredMount {
		return "", fmt.Errorf("mounts %v are not understood", mounts)
	}
	return mounts[0].Source, nil
}

// readable looks at what can be known of a layer without its tar.
func readable(ctx context.Context, place string) error {
	if snapshot.IsImage(place) {
		return snapshot.CheckImage(ctx, place)
	}
	_, err := os.Stat(place)
	return err
}

// below are the places of the layers below one, topmost first.
func (c *check) below(ctx context.Context, diffs []digest.Digest) ([]string, error) {
	last := len(diffs) - 1
	if last == 0 {
		return nil, nil
	}
	places, err := c.s.where(ctx, digest.Digest(chainID(diffs[:last])))
	if err != nil {
		return nil, fmt.Errorf("find the layers below: %w", err)
	}
	return places, nil
}

// directory holds a layer's directory against the one that its tar makes. In a repair it gets what it lacks, all of it where it is gone.
func (c *check) directory(ctx context.Context, place string, parts layerParts, damage Damage) {
	if _, err := os.Lstat(place); os.IsNotExist(err) {
		if err := os.MkdirAll(place, 0o755); err != nil {
			damage.What, damage.Why = "has lost its files", err.Error()
			c.tell(damage)
			return
		}
	}
	n := 0
	err := c.compare(ctx, place, parts, func(d mend.Difference) {
		if n++; n <= 20 {
			damage.Paths = append(damage.Paths, d.Path+": "+d.What)
		}
	})
	if err != nil && ctx.Err() != nil || err == nil && n == 0 {
		return
	}
	if takesNoMore(err) {
		c.full = err
		return
	}
	damage.What = fmt.Sprintf("has %d files that are not as its tar says", n)
	if err != nil {
		damage.What, damage.Why = "cannot be verified", err.Error()
	}
	damage.Mended = err == nil && c.o.Repair
	c.tell(damage)
}

// compare unpacks a layer a second time, beside the first.
func (c *check) compare(ctx context.Context, place string, parts layerParts, tell func(mend.Difference)) error {
	below, err := c.below(ctx, parts.diffs)
	if err != nil {
		return err
	}
	scratch := filepath.Join(c.s.root, scratchDir)
	if err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	copied := filepath.Join(scratch, "layer")
	if err := os.Mkdir(copied, 0o755); err != nil {
		return err
	}
	dir, err := fslayer.NewDir(copied, fslayer.DirOptions{Base: len(parts.diffs) == 1})
	if err != nil {
		return err
	}
	from, err := stored{c.s.store.blobs}.open(ctx, parts.blob)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	sums, err := fslayer.Unpack(ctx, from, dir)
	if want := parts.diffs[len(parts.diffs)-1]; err == nil && sums.Diff != want {
		err = fmt.Errorf("its tar is %s, the config says %s: %w", sums.Diff, want, errdefs.ErrDataLoss)
	}
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	if err := dir.Finish(); err != nil {
		return err
	}
	if err := fslayer.Inherit(dir, below); err != nil {
		return err
	}
	return mend.Tree(ctx, copied, place, mend.Options{Mend: c.o.Repair, Tell: tell})
}

// database looks for layers that are noted and not there, whose image nobody has any more.
func (c *check) database(ctx context.Context) error {
	var chains []string
	err := c.s.snaps.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted && !c.seenLayers[i.Name] {
			chains = append(chains, i.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, chain := range chains {
		switch _, err := c.s.where(ctx, digest.Digest(chain)); {
		case takesNoMore(err): // which says nothing of the layer
			return err
		case err != nil && !errdefs.IsNotFound(err):
			c.tell(Damage{Kind: "layer", ID: chain, What: "is noted and cannot be found: " + err.Error()})
		}
	}
	return nil
}

// containers looks whether all layers that containers were made of are there.
func (c *check) containers(ctx context.Context) error {
	if c.o.Containers == nil {
		return nil
	}
	all, err := c.o.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for name, lower := range all {
		if _, err := c.s.mounts.Here(lower); err != nil {
			c.tell(Damage{Kind: "container", ID: name, What: "stands on a layer that is not there: " + err.Error(), Users: []string{name},
				Why: "remove it and make it anew from its image"})
		}
	}
	return nil
}

// holdBlob keeps a blob that is fetched again while the check lasts.
func (c *check) holdBlob(ctx context.Context, d digest.Digest) {
	if id, ok := leases.FromContext(ctx); ok {
		_ = c.s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"})
	}
}
