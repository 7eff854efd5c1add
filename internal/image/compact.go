package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// dropped are the blobs of layers that are kept unpacked only, each with the repositories that have it. It is a file of its own,
// <root>/images.dropped, which is on disk before a blob goes. What no repository has is made again.
type dropped struct {
	path string
	made *remakes

	mu sync.Mutex // guards what follows
	of map[digest.Digest][]string
}

func openDropped(root string) (*dropped, error) {
	d := &dropped{path: filepath.Join(root, "images.dropped"), of: map[digest.Digest][]string{}}
	var damaged error
	d.made, damaged = openRemakes(root)
	b, err := os.ReadFile(d.path)
	if os.IsNotExist(err) {
		return d, damaged
	}
	if err == nil {
		err = json.Unmarshal(b, &d.of)
	}
	if err != nil {
		d.of = map[digest.Digest][]string{}
		return d, errors.Join(damaged, fmt.Errorf("read which layers are kept unpacked only: %w", err))
	}
	return d, damaged
}

// has says that a blob can be had again.
func (d *dropped) has(id digest.Digest) bool { return len(d.from(id)) > 0 || d.remade(id) }

// remade says that it is made again.
func (d *dropped) remade(id digest.Digest) bool {
	if d == nil {
		return false
	}
	way, _ := d.made.way(id)
	return way != ""
}

// from are the repositories that a blob can be had from.
func (d *dropped) from(id digest.Digest) []string {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of[id]
}

// add notes more of them, and forgets blobs for which needed says no.
func (d *dropped) add(more map[digest.Digest][]string, needed func(digest.Digest) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	of := maps.Clone(d.of)
	maps.DeleteFunc(of, func(id digest.Digest, _ []string) bool { return !needed(id) })
	for id, repos := range more {
		all := append(slices.Clone(of[id]), repos...)
		slices.Sort(all)
		of[id] = slices.Compact(all)
	}
	b, err := json.Marshal(of)
	if err == nil {
		err = replaceFile(d.path, b)
	}
	if err != nil {
		return fmt.Errorf("note which layers are kept unpacked only: %w", err)
	}
	d.of = of
	return nil
}

// Compacted says what Compact did.
type Compacted struct {
	Layers int   // whose blobs went
	Freed  int64 // bytes
	Kept   int   // layers that neither a registry has nor can be made again, that are not unpacked, or that something under way needs
}

// Compact drops the blobs of layers that are unpacked, where a registry has them which the image was pulled from or pushed to, or where they can
// be made again from what they are unpacked to. What needs such a blob later has it again, byte for byte.
func Compact(ctx context.Context, s *Service) (Compacted, error) {
	ctx = in(ctx)
	unlock, err := s.transfers.lock(ctx, "compaction")
	if err != nil {
		return Compacted{}, err
	}
	defer unlock()
	c, err := survey(ctx, s)
	if err != nil {
		return Compacted{}, err
	}
	return c.finish(ctx)
}

// survey looks at all images.
func survey(ctx context.Context, s *Service) (*compaction, error) {
	c := &compaction{s: s, drop: map[digest.Digest][]string{}, keep: map[digest.Digest]bool{}, all: map[digest.Digest]bool{}, at: map[digest.Digest]standing{}}
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	for _, img := range list {
		if err := c.look(ctx, img); err != nil {
			return nil, err
		}
	}
	return c, nil
}

type compaction struct {
	s         *Service
	drop      map[digest.Digest][]string // which repositories have a layer
	keep, all map[digest.Digest]bool
	at        map[digest.Digest]standing
}

// look notes which of an image's layers may go, and which it needs.
func (c *compaction) look(ctx context.Context, img images.Image) error {
	repo := ""
	if r, err := ref.Parse(img.Name); err == nil && (img.Labels[labelPulled] != "" || img.Labels[labelPushed] != "") {
		repo = r.Name()
	}
	return c.s.walk(ctx, img.Target, func(d ocispec.Descriptor) error {
		if !c.s.here(ctx, d) {
			return errBelow
		}
		if !images.IsManifestType(d.MediaType) {
			return nil
		}
		m, diffs, err := c.s.checkImage(ctx, d)
		if err != nil { // an artifact, or damaged: it keeps what it has
			if m, err = c.s.manifest(ctx, d); err == nil {
				for _, l := range m.Layers {
					c.keep[l.Digest] = true
				}
			}
			return errBelow
		}
		for i, l := range m.Layers {
			c.all[l.Digest] = true
			chain := chainID(diffs[:i+1])
			if _, err := c.s.snaps.Stat(ctx, chain); err != nil {
				c.keep[l.Digest] = true
				continue
			}
			c.at[l.Digest] = standing{l, chain}
			if repo != "" && !images.IsNonDistributable(l.MediaType) { // no registry is sent such a layer
				c.drop[l.Digest] = append(c.drop[l.Digest], repo)
			}
		}
		return errBelow
	})
}

func (c *compaction) finish(ctx context.Context) (out Compacted, err error) {
	maps.DeleteFunc(c.drop, func(id digest.Digest, _ []string) bool { return c.keep[id] })
	needed := func(id digest.Digest) bool { return c.all[id] }
	if err := errors.Join(c.s.dropped.add(c.drop, needed), c.s.dropped.made.keep(needed)); err != nil {
		return out, err
	}
	for id := range c.all {
		info, err := c.s.content.Info(ctx, id)
		if err != nil {
			continue
		}
		gone, err := c.one(ctx, id)
		if err != nil {
			return out, err
		}
		if !gone {
			out.Kept++
			continue
		}
		out.Layers, out.Freed = out.Layers+1, out.Freed+info.Size
	}
	if out.Layers == 0 {
		return out, nil
	}
	return out, c.s.sweep(ctx)
}

// one drops a layer's blob, where it can be had again.
func (c *compaction) one(ctx context.Context, id digest.Digest) (gone bool, err error) {
	if c.keep[id] {
		return false, nil
	}
	if c.drop[id] == nil {
		if again, err := remember(ctx, c.s, c.at[id]); err != nil || !again {
			return false, err
		}
	}
	return dropUnheld(ctx, c.s, id)
}

// dropUnheld drops a layer's blob, unless an operation other than ctx's holds it or fetches it: then it stays for the next compaction.
func dropUnheld(ctx context.Context, s *Service, id digest.Digest) (gone bool, err error) {
	unlock, free := s.transfers.try(id.String())
	if !free {
		return false, nil
	}
	defer unlock()
	s.dropping.Lock()
	defer s.dropping.Unlock()
	held, err := s.othersHold(ctx, id)
	if err == nil && !held {
		err = unlessMissing(s.content.Delete(ctx, id))
	}
	if err != nil {
		return false, fmt.Errorf("drop layer %s: %w", id, err)
	}
	return !held, nil
}

// login is for one registry.
type login struct {
	domain string
	auth   *registrytypes.AuthConfig
}

// refetched is a blob that is fetched when it is first read. A dropped layer's is dropped again when it is closed.
type refetched struct {
	io.ReaderAt
	close func() error
}

func (r *refetched) Close() error { return r.close() }

// lazily reads a blob that may not have to be read at all: a registry that has it is sent nothing, and then nothing is fetched.
func lazily(ctx context.Context, s *Service, d ocispec.Descriptor, fetch func(context.Context) error) *refetched {
	var open content.ReaderAt
	var fetching context.Context // holds it
	was := false                 // it has come meanwhile, and is not ours to drop
	end := func() {}
	get := sync.OnceValues(func() (content.ReaderAt, error) {
		held, done, err := s.lease(ctx)
		if err != nil {
			return nil, err
		}
		fetching, end = held, done
		was = s.here(held, d)
		if err = fetch(held); err == nil {
			open, err = s.content.ReaderAt(held, d)
		}
		return open, err
	})
	return &refetched{readerAt(func(b []byte, at int64) (int, error) {
		r, err := get()
		if err != nil {
			return 0, err
		}
		return r.ReadAt(b, at)
	}), func() error {
		defer end()
		if open == nil {
			return nil
		}
		err := open.Close()
		if !was && s.dropped.has(d.Digest) {
			_, dropErr := dropUnheld(context.WithoutCancel(fetching), s, d.Digest)
			err = errors.Join(err, dropErr)
		}
		return err
	}}
}

func unlessMissing(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

type readerAt func(b []byte, at int64) (int, error)

func (f readerAt) ReadAt(b []byte, at int64) (int, error) { return f(b, at) }

// restore makes a dropped layer's blob again, or fetches it from where it came.
func restore(ctx context.Context, s *Service, d ocispec.Descriptor, l login) error {
	failed := fmt.Errorf("layer %s is not kept as it came: %w", d.Digest, errdefs.ErrNotFound)
	if s.dropped.remade(d.Digest) {
		if failed = remake(ctx, s, d); failed == nil {
			return nil
		}
	}
	for _, name := range s.dropped.from(d.Digest) {
		r, err := ref.Parse(name)
		if err != nil {
			continue
		}
		var auth *registrytypes.AuthConfig
		if r.Domain == l.domain {
			auth = l.auth
		}
		var fetcher *registry.Fetcher
		if fetcher, err = s.registries.Client(ctx, r, auth).Fetcher(ctx); err == nil {
			err = (&pull{s: s, ref: r, fetcher: fetcher}).blob(ctx, d)
		}
		if err == nil {
			return nil
		}
		failed = registry.Explain("fetch layer "+d.Digest.String()+" again from "+r.FamiliarName(), r.Domain, err)
	}
	return failed
}

// restoreAll has all dropped layers again that a target names, for the time of a lease; again drops them.
func restoreAll(ctx context.Context, s *Service, target ocispec.Descriptor) (again func(), err error) {
	var came []digest.Digest
	again = func() {
		for _, id := range came {
			_, _ = dropUnheld(context.WithoutCancel(ctx), s, id) // else the next compaction does
		}
		if len(came) > 0 {
			_ = s.sweep(context.WithoutCancel(ctx)) // else the next one does
		}
	}
	if err := holdTree(ctx, s, target); err != nil {
		return again, err
	}
	err = s.walk(ctx, target, func(d ocispec.Descriptor) error {
		switch {
		case s.here(ctx, d):
		case !s.dropped.has(d.Digest):
			return errBelow
		default:
			if err := restore(ctx, s, d, login{}); err != nil {
				return err
			}
			came = append(came, d.Digest)
		}
		return nil
	})
	if err != nil {
		again()
	}
	return again, err
}

// holdTree keeps all that stands below a target for an operation: its manifests and what they name, also the layers that are to come. From
// then on nobody's removing or compacting takes any of it, whatever becomes of its names. An error where it has gone already.
func holdTree(ctx context.Context, s *Service, target ocispec.Descriptor) error {
	if err := s.holdContent(ctx, []digest.Digest{target.Digest}); err != nil {
		return err
	}
	if !s.here(ctx, target) {
		return fmt.Errorf("%s has been removed meanwhile: %w", target.Digest, errdefs.ErrNotFound)
	}
	// What labels keep below the target stays with it; but a platform may be let go of by itself, and a layer be dropped.
	var list []digest.Digest
	err := s.walk(ctx, target, func(d ocispec.Descriptor) error {
		here := s.here(ctx, d)
		if here || images.IsLayerType(d.MediaType) {
			list = append(list, d.Digest)
		}
		if !here {
			return errBelow
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.holdContent(ctx, list)
}

// takeHold finds an image and keeps it for an operation. One whose name is given to another image, or taken away, at that moment is looked
// for once more.
func takeHold(ctx context.Context, s *Service, find func(context.Context) (images.Image, error)) (img images.Image, err error) {
	for range 3 {
		if img, err = find(ctx); err != nil {
			return img, err
		}
		if err = holdTree(ctx, s, img.Target); !errdefs.IsNotFound(err) {
			return img, err
		}
	}
	return img, err
}

// unpackedOnly are the layers of a manifest that are dropped and stand unpacked, held so that they go on to do so: a pull need not fetch them.
func (l *layers) unpackedOnly(ctx context.Context, manifest ocispec.Descriptor) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	m, diffs, err := l.checkImage(ctx, manifest)
	if err != nil {
		return out
	}
	for i, d := range m.Layers {
		if !l.st.dropped.has(d.Digest) || l.st.here(ctx, d) {
			continue
		}
		chain := chainID(diffs[:i+1])
		err := l.st.hold(ctx, chain)
		if err == nil {
			_, err = l.st.snaps.Stat(ctx, chain)
		}
		before, again := out[d.Digest]
		out[d.Digest] = err == nil && (before || !again)
	}
	return out
}
