package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// What an archive of images may have: so many files, and bytes of all their names and of what links name, which stay in memory. A name may have a
// million of them.
const (
	maxArchived = 100_000
	maxNames    = 32 << 20
)

// archived is an archive of images that is being read: an OCI layout, or a docker-archive. Its files go into the content store as they
// come, and what their names mean is found out at the end. Names and links mean other entries of the archive, nothing else.
type archived struct {
	s      *blobs
	files  map[string]ocispec.Descriptor
	links  map[string]string
	layout *ocispec.ImageLayout
	index  *ocispec.Index
	docker []dockerEntry
}

func newArchived(s *blobs) *archived {
	return &archived{s: s, files: map[string]ocispec.Descriptor{}, links: map[string]string{}}
}

// read reads a tar and gives the images in it, each by its manifest or index, with its name as an annotation.
func (a *archived) read(ctx context.Context, r io.Reader) ([]ocispec.Descriptor, error) {
	t := tar.NewReader(r)
	for n, names := 0, 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxArchived {
			return nil, fmt.Errorf("it has more than %d files", maxArchived)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxNames {
			return nil, fmt.Errorf("the names of its files have more than %d MiB", maxNames>>20)
		}
		if err := a.entry(ctx, h, t); err != nil {
			return nil, fmt.Errorf("%.300q: %w", h.Name, err)
		}
	}
	switch {
	case a.index != nil:
		return a.ociImages(ctx)
	case a.docker != nil:
		return a.dockerImages(ctx)
	case a.layout != nil:
		return nil, errors.New("an OCI layout without index.json")
	}
	return nil, errors.New("it has neither index.json nor manifest.json")
}

// inArchive is a name without what leads out of the archive.
func inArchive(name string) string { return path.Clean("/" + name)[1:] }

func (a *archived) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	name := inArchive(h.Name)
	switch h.Typeflag {
	case tar.TypeReg, '\x00':
	case tar.TypeSymlink:
		a.links[name] = inArchive(path.Join(path.Dir(name), h.Linkname))
		return nil
	case tar.TypeLink:
		a.links[name] = inArchive(h.Linkname)
		return nil
	case tar.TypeGNUSparse:
		return errors.New("a file with holes has no place in an archive of images")
	default:
		return nil
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("a file with holes has no place in an archive of images")
		}
	}
	switch name {
	case ocispec.ImageLayoutFile:
		return readLimited(r, &a.layout)
	case ocispec.ImageIndexFile:
		return readLimited(r, &a.index)
	case "manifest.json":
		a.docker = []dockerEntry{}
		return readLimited(r, &a.docker)
	}
	return a.blob(ctx, name, h.Size, r)
}

func readLimited(r io.Reader, into any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return errors.New("it has more than 8 MiB")
	}
	if err := registry.Bounded(b); err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// blob takes a file into the content store. One whose name is a digest must have that.
func (a *archived) blob(ctx context.Context, name string, size int64, r io.Reader) error {
	d := ocispec.Descriptor{Size: size}
	if rest, ok := strings.CutPrefix(name, ocispec.ImageBlobsDir+"/"); ok {
		algorithm, hex, _ := strings.Cut(rest, "/")
		d.Digest = digest.Digest(algorithm + ":" + hex)
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("a blob's name is its digest: %w", err)
		}
		if info, err := a.s.content.Info(ctx, d.Digest); err == nil && info.Size == size {
			if size <= maxJSON {
				return a.known(ctx, name, d, r)
			}
		} else if err == nil {
			return fmt.Errorf("it has %d bytes, and %d in the store", size, info.Size)
		}
	}
	key := fmt.Sprintf("load-%p-%d", a, len(a.files))
	sum := digest.Canonical.Digester()
	err := content.WriteBlob(ctx, a.s.content, key, io.TeeReader(r, sum.Hash()), d)
	switch {
	case errdefs.IsFailedPrecondition(err):
		_ = a.s.content.Abort(context.WithoutCancel(ctx), key)
		return fmt.Errorf("it has other content than its name says: %w", err)
	case err != nil:
		_ = a.s.content.Abort(context.WithoutCancel(ctx), key)
		return err
	}
	d.Digest = cmp.Or(d.Digest, sum.Digest())
	a.files[name] = d
	return nil
}

// known takes a small blob that the store has already: it must be the same here, and is written again where the store's is damaged.
func (a *archived) known(ctx context.Context, name string, d ocispec.Descriptor, r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, d.Size))
	if err != nil {
		return err
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return errors.New("it has other content than its name says")
	}
	if a.s.verify(ctx, d) != nil {
		if err := a.s.discard(ctx, d.Digest); err != nil {
			return err
		}
	}
	a.files[name] = d
	return content.WriteBlob(ctx, a.s.content, "load-"+d.Digest.String(), bytes.NewReader(b), d) // or only hold it, by this lease
}

// find follows links to a file.
func (a *archived) find(name string) (ocispec.Descriptor, error) {
	at := inArchive(name)
	for range 16 {
		if d, ok := a.files[at]; ok {
			return d, nil
		}
		next, ok := a.links[at]
		if !ok {
			break
		}
		at = next
	}
	return ocispec.Descriptor{}, fmt.Errorf("%q is not in it", name)
}

// ociImages are what index.json names.
func (a *archived) ociImages(ctx context.Context) ([]ocispec.Descriptor, error) {
	if a.layout != nil && a.layout.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("an OCI layout of version %q is not known", a.layout.Version)
	}
	var out []ocispec.Descriptor
	for _, d := range a.index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("index.json names %q: %w", d.Digest, err)
		}
		file, err := a.find(layoutPath(d.Digest))
		if err != nil {
			return nil, fmt.Errorf("index.json: %w", err)
		}
		if file.Size != d.Size {
			return nil, fmt.Errorf("index.json: %s has %d bytes, not %d", d.Digest, file.Size, d.Size)
		}
		if !isManifest(d) {
			continue
		}
		if err := a.whole(ctx, d); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// whole holds the sizes of all that is here below an entry against those of the files.
func (a *archived) whole(ctx context.Context, d ocispec.Descriptor) error {
	return a.s.walk(ctx, d, func(d ocispec.Descriptor) error {
		info, err := a.s.content.Info(ctx, d.Digest)
		if err != nil {
			return errBelow // of an index, platforms may be missing
		}
		if info.Size != d.Size {
			return fmt.Errorf("%s has %d bytes, the manifest says %d", d.Digest, info.Size, d.Size)
		}
		return nil
	})
}

// dockerImages are those of manifest.json, each made into a manifest of its own.
func (a *archived) dockerImages(ctx context.Context) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, e := range a.docker {
		d, err := a.dockerImage(ctx, e)
		if err != nil {
			return nil, err
		}
		if len(e.RepoTags) == 0 {
			out = append(out, d)
		}
		for _, tag := range e.RepoTags {
			r, err := ref.Parse(tag)
			if err != nil {
				return nil, err
			}
			d.Annotations = map[string]string{images.AnnotationImageName: r.String()}
			out = append(out, d)
		}
	}
	return out, nil
}

func (a *archived) dockerImage(ctx context.Context, e dockerEntry) (ocispec.Descriptor, error) {
	config, err := a.find(e.Config)
	if err != nil {
		return config, fmt.Errorf("configuration: %w", err)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: images.MediaTypeDockerSchema2Manifest, Config: config}
	m.Config.MediaType = images.MediaTypeDockerSchema2Config
	for _, name := range e.Layers {
		l, err := a.find(name)
		if err != nil {
			return config, fmt.Errorf("layer: %w", err)
		}
		if l.MediaType, err = a.s.layerType(ctx, l); err != nil {
			return config, fmt.Errorf("layer %s: %w", name, err)
		}
		if l.MediaType == images.MediaTypeDockerSchema2LayerZstd { // Docker's own types have none that registries take
			m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
		}
		m.Layers = append(m.Layers, l)
	}
	if m.MediaType == ocispec.MediaTypeImageManifest {
		for i := range m.Layers {
			m.Layers[i].MediaType = ociLayerType(m.Layers[i].MediaType)
		}
	}
	return a.s.writeBlob(ctx, m.MediaType, m)
}

// layerType tells by its first bytes how a layer is compressed.
func (s *blobs) layerType(ctx context.Context, d ocispec.Descriptor) (string, error) {
	r, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return "", err
	}
	defer r.Close()
	head := make([]byte, 4)
	if n, err := r.ReadAt(head, 0); err != nil && err != io.EOF && n == 0 {
		return "", err
	}
	switch {
	case head[0] == 0x1f && head[1] == 0x8b:
		return images.MediaTypeDockerSchema2LayerGzip, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return images.MediaTypeDockerSchema2LayerZstd, nil
	}
	return images.MediaTypeDockerSchema2Layer, nil
}
