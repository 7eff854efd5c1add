package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layerPart begins the name of a part that is an unpacked layer; its chain id follows. Other parts are blobs, by their digest.
const layerPart = "layer "

// sizes adds the disk space of an image's layers, each by its chain.
func (l *layers) sizes(ctx context.Context, diffs []digest.Digest, into map[string]int64) {
	for i := range diffs {
		chain := chainID(diffs[:i+1])
		if _, ok := into[chain]; ok {
			continue
		}
		if u, err := l.st.snaps.Usage(ctx, chain); err == nil {
			into[chain] = u.Size
		}
	}
}

// parts is the disk space of an image, part by part: blobs by digest and unpacked layers by chain, of all platforms that are here.
func (l *layers) parts(ctx context.Context, target ocispec.Descriptor) map[string]int64 {
	out := map[string]int64{}
	l.addParts(ctx, target, out)
	return out
}

func (l *layers) addParts(ctx context.Context, d ocispec.Descriptor, out map[string]int64) {
	if _, again := out[d.Digest.String()]; again {
		return
	}
	if _, err := l.st.content.Info(ctx, d.Digest); err != nil {
		return
	}
	out[d.Digest.String()] = d.Size
	if images.IsManifestType(d.MediaType) {
		l.manifestParts(ctx, d, out, out)
		return
	}
	children, _ := l.st.index(ctx, d)
	for _, c := range children {
		l.addParts(ctx, c, out)
	}
}

// manifestParts notes blobs and layers of one platform's manifest, as far as they are here.
func (l *layers) manifestParts(ctx context.Context, d ocispec.Descriptor, blobs, unpacked map[string]int64) {
	m, err := l.st.manifest(ctx, d)
	if err != nil {
		return
	}
	blobs[d.Digest.String()] = d.Size
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if _, err := l.st.content.Info(ctx, b.Digest); err == nil {
			blobs[b.Digest.String()] = b.Size
		}
	}
	if diffs, err := images.RootFS(ctx, l.st.content, m.Config); err == nil {
		chains := map[string]int64{}
		l.sizes(ctx, diffs, chains)
		for chain, size := range chains {
			unpacked[layerPart+chain] = size
		}
	}
}

func total(sizes map[string]int64) (n int64) {
	for _, size := range sizes {
		n += size
	}
	return n
}
