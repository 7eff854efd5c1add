// Package compare tells which files differ between two images, without running or keeping either.
//
// Layers that both images begin with are not read: they are the ground, a file system that is looked into by descriptors. Of the layers
// above it, each image's are read once as streams, and what they do to the ground is kept as a tree of names: so much memory as there are
// files in them, up to a limit. Then the two trees are walked side by side. Contents are compared by digest; times and extended attributes
// do not count, as images that were built again have others in all files.
//
// Compare may be called from several goroutines.
package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/rootfs"
)

// maxFiles of the layers that differ; each takes some hundred bytes.
const maxFiles = 250_000

// Image is one of two that are compared.
type Image struct {
	Diffs []digest.Digest // diff IDs of its layers, the lowest first
	Lower []string        // directories of the unpacked layers, topmost first; nil where it is not here
	Open  func(ctx context.Context, i int) (io.ReadCloser, error)
}

// Kind of a Change, in Docker's letters.
type Kind string

// The kinds.
const (
	Added   Kind = "A"
	Changed Kind = "C"
	Deleted Kind = "D"
)

// Change is one path that differs. A directory that is gone stands for all that was in it, with the sum of its files as size.
type Change struct {
	Kind   Kind
	Path   string // absolute; directories end with a slash
	Before int64  // size in bytes; 0 for what is no regular file
	After  int64
}

// Compare calls tell for each difference, in the order of their paths. One of the images has to be here (Lower).
func Compare(ctx context.Context, before, after Image, tell func(Change) error) error {
	shared := 0
	for shared < min(len(before.Diffs), len(after.Diffs)) && before.Diffs[shared] == after.Diffs[shared] {
		shared++
	}
	lower := before.Lower
	if lower == nil {
		lower = after.Lower
	}
	if len(lower) < shared || len(lower) != len(before.Diffs) && len(lower) != len(after.Diffs) {
		shared = 0 // the directories are not one for each layer
	}
	c := &comparison{tell: tell}
	if shared > 0 {
		ground := rootfs.Rootfs{Lower: lower[len(lower)-shared:]}
		root, err := ground.Mount(nil)
		if err != nil {
			return fmt.Errorf("look into the layers that both images have: %w", err)
		}
		defer root.Close()
		c.root = root
	}
	left := maxFiles
	old, err := read(ctx, before, shared, &left)
	if err != nil {
		return err
	}
	young, err := read(ctx, after, shared, &left)
	if err != nil {
		return err
	}
	return c.directory(ctx, place{ground: c.root, old: old, young: young})
}

// read makes a tree of what an image's layers above the ground do to it.
func read(ctx context.Context, img Image, from int, left *int) (*node, error) {
	tree := &node{}
	if from == 0 {
		tree.opaque = true
	}
	for i := from; i < len(img.Diffs); i++ {
		r, err := img.Open(ctx, i)
		if err != nil {
			return nil, err
		}
		one := &sink{root: &node{}, left: left}
		sums, err := layer.Unpack(ctx, r, one)
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", img.Diffs[i], err)
		}
		if sums.Diff != img.Diffs[i] {
			return nil, fmt.Errorf("layer %s holds other content, %s: %w", img.Diffs[i], sums.Diff, errdefs.ErrDataLoss)
		}
		delete(one.root.children, layer.Links)
		tree.merge(one.root)
	}
	return tree, nil
}

// comparison is one walk.
type comparison struct {
	root *os.File
	tell func(Change) error
}

// place is a directory that both images have. old and young are nil where the layers of that image leave it alone.
type place struct {
	ground     *os.File // nil: neither has anything of it from there
	old, young *node
	path       string // "" is the root
	depth      int
}

var errDeep = errors.New("directories are nested too deep to be compared")

func (c *comparison) directory(ctx context.Context, p place) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if p.depth > 500 {
		return fmt.Errorf("%s: %w: %w", p.path, errDeep, errdefs.ErrInvalidArgument)
	}
	names := map[string]bool{}
	for name := range p.old.below() {
		names[name] = true
	}
	for name := range p.young.below() {
		names[name] = true
	}
	if p.ground != nil && p.old.hidesGround() != p.young.hidesGround() {
		list, err := readNames(p.ground)
		if err != nil {
			return err
		}
		for _, name := range list {
			names[name] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		if err := c.entry(ctx, p, name); err != nil {
			return err
		}
	}
	return nil
}

// entry compares what both have under a name.
func (c *comparison) entry(ctx context.Context, p place, name string) error {
	ground, err := lookup(p.ground, name)
	if err != nil {
		return err
	}
	before, after := p.old.state(name, ground), p.young.state(name, ground)
	path := p.path + "/" + name
	switch {
	case before == nil && after == nil:
		return nil
	case before == nil:
		if err := c.tell(Change{Kind: Added, Path: shown(path, after), After: after.size}); err != nil {
			return err
		}
	case after == nil:
		size, err := c.sum(ctx, p, name, before)
		if err != nil {
			return err
		}
		return c.tell(Change{Kind: Deleted, Path: shown(path, before), Before: size})
	default:
		same, err := before.same(after, p.ground, name)
		if err != nil {
			return err
		}
		if !same {
			if err := c.tell(Change{Kind: Changed, Path: shown(path, after), Before: before.size, After: after.size}); err != nil {
				return err
			}
		}
	}
	if !after.isDir() && !(before != nil && before.isDir()) {
		return nil
	}
	next, err := p.into(name, before, after)
	if err != nil {
		return err
	}
	defer next.close()
	return c.directory(ctx, next)
}

func shown(path string, s *state) string {
	if s.isDir() {
		return path + "/"
	}
	return path
}

// into is the directory below, which one of the two images may not have.
func (p place) into(name string, before, after *state) (place, error) {
	next := place{old: p.old.child(name), young: p.young.child(name), path: p.path + "/" + name, depth: p.depth + 1}
	if before == nil || !before.isDir() {
		next.old = hidden()
	}
	if after == nil || !after.isDir() {
		next.young = hidden()
	}
	if p.old.hidesGround() {
		next.old = next.old.hiding()
	}
	if p.young.hidesGround() {
		next.young = next.young.hiding()
	}
	if p.ground == nil || next.old.hidesGround() && next.young.hidesGround() {
		return next, nil
	}
	dir, err := openDir(p.ground, name)
	next.ground = dir
	return next, err
}

func (p place) close() {
	if p.ground != nil {
		p.ground.Close()
	}
}

// sum is the size of the files that the old image has at and below a name.
func (c *comparison) sum(ctx context.Context, p place, name string, s *state) (int64, error) {
	if !s.isDir() {
		return s.size, nil
	}
	total := int64(0)
	counting := comparison{tell: func(ch Change) error { total += ch.Before; return nil }}
	next, err := p.into(name, s, nil)
	if err != nil {
		return 0, err
	}
	defer next.close()
	return total, counting.directory(ctx, next)
}
