package image

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TreeLayer is one layer on those below it. Images that begin with the same layers share it.
type TreeLayer struct {
	ID         string        // of the chain: this layer and all below it
	Parent     string        `json:",omitempty"` // the chain below
	DiffID     digest.Digest // of its content
	Blob       digest.Digest // as it came
	CreatedBy  string        `json:",omitempty"`
	Size       int64         // unpacked, in blocks of the disk; 0 where it is not unpacked
	BlobSize   int64         // as it came; 0 where it is not here
	Images     []TreeImage   // those whose topmost layer it is
	SharedWith int           // how many images have it, anywhere
}

// TreeImage is an image of one platform.
type TreeImage struct {
	ID         digest.Digest
	Names      []string
	Platform   string   `json:",omitempty"` // where the image has several
	Containers []string // those made of it
}

// Tree lists the layers of all images, each once, parents first.
func Tree(ctx context.Context, s *Service) ([]TreeLayer, error) {
	ctx = in(ctx)
	list, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	t := layerTree{s: s, at: map[string]*TreeLayer{}}
	for _, e := range list {
		platforms, err := s.manifests(ctx, e.target)
		if err != nil {
			continue // it is damaged, which `store check` says
		}
		for _, d := range platforms {
			t.add(ctx, e, d, len(platforms) > 1)
		}
	}
	out := make([]TreeLayer, 0, len(t.order))
	for _, l := range t.order {
		out = append(out, *l)
	}
	return out, nil
}

type layerTree struct {
	s     *Service
	at    map[string]*TreeLayer
	order []*TreeLayer
}

func (t *layerTree) add(ctx context.Context, e *entry, d ocispec.Descriptor, several bool) {
	m, err := t.s.manifest(ctx, d)
	if err != nil {
		return
	}
	var config ocispec.Image
	if err := t.s.readJSON(ctx, m.Config, &config); err != nil || len(config.RootFS.DiffIDs) != len(m.Layers) {
		return
	}
	var steps []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			steps = append(steps, strings.Join(strings.Fields(h.CreatedBy), " "))
		}
	}
	parent := ""
	var top *TreeLayer
	for i, diff := range config.RootFS.DiffIDs {
		chain := chainID(config.RootFS.DiffIDs[:i+1])
		l := t.at[chain]
		if l == nil {
			l = &TreeLayer{ID: chain, Parent: parent, DiffID: diff, Images: []TreeImage{}}
			t.at[chain], t.order = l, append(t.order, l)
			if u, err := t.s.snaps.Usage(ctx, chain); err == nil {
				l.Size = u.Size
			}
		}
		if info, err := t.s.content.Info(ctx, m.Layers[i].Digest); l.Blob == "" || err == nil && l.BlobSize == 0 {
			l.Blob, l.BlobSize = m.Layers[i].Digest, info.Size
		}
		if l.CreatedBy == "" && i < len(steps) {
			l.CreatedBy = steps[i]
		}
		l.SharedWith++
		parent, top = chain, l
	}
	if top == nil {
		return
	}
	one := TreeImage{ID: e.target.Digest, Names: shownNames(e), Containers: t.s.usersOf(d.Digest)}
	slices.Sort(one.Containers)
	if several && d.Platform != nil {
		one.Platform = platformName(*d.Platform)
	}
	top.Images = append(top.Images, one)
}

func platformName(p ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}
