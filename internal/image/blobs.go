package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/archive"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/retar"
)

// blobs is content by digest.
type blobs struct {
	dir     string        // where they lie
	backend content.Store // files, without the database's view of them
	content content.Store
	dropped *dropped // layers that are kept unpacked only
}

// maxJSON is the most that a manifest, index or config may have.
const maxJSON = 8 << 20

// small reads a manifest, index or config whole, and holds it against its digest: what was damaged on disk is not believed.
func (s *blobs) small(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > maxJSON {
		return nil, fmt.Errorf("%s has %d bytes, 8 MiB are the most for a manifest or config: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	b, err := content.ReadBlob(ctx, s.content, d)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != d.Size || d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%s is damaged on this disk: pull or load the image again: %w", d.Digest, errdefs.ErrDataLoss)
	}
	if err := registry.Bounded(b); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return b, nil
}

// readJSON decodes a small blob.
func (s *blobs) readJSON(ctx context.Context, d ocispec.Descriptor, v any) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	b, err := s.small(ctx, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// document is all that a manifest or an index may say, read at once so that none can be taken for the other (CVE-2021-41190).
type document struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	FSLayers     []json.RawMessage    `json:"fsLayers"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

func (s *blobs) document(ctx context.Context, d ocispec.Descriptor) (document, error) {
	var doc document
	if err := s.readJSON(ctx, d, &doc); err != nil {
		return doc, fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	return doc, checkDocument(d, doc)
}

func checkDocument(d ocispec.Descriptor, doc document) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("manifest %s: %s: %w", d.Digest, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	switch {
	case doc.FSLayers != nil:
		return firstSchema(d)
	case doc.MediaType != "" && doc.MediaType != d.MediaType:
		return wrong("it says that it is %q, but was named as %q", doc.MediaType, d.MediaType)
	case images.IsManifestType(d.MediaType) && (doc.Manifests != nil || doc.Config == nil):
		return wrong("it is no image manifest, though named as one")
	case images.IsIndexType(d.MediaType) && (doc.Layers != nil || doc.Config != nil):
		return wrong("it is no index, though named as one")
	case !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType):
		return wrong("it is of type %q, not a container image", d.MediaType)
	}
	small := append([]ocispec.Descriptor(nil), doc.Manifests...)
	if doc.Config != nil {
		small = append(small, *doc.Config)
	}
	if doc.Subject != nil {
		small = append(small, *doc.Subject)
	}
	for _, p := range small {
		if p.Size > maxJSON {
			return wrong("part %s has %d bytes, 8 MiB are the most for a manifest or config", p.Digest, p.Size)
		}
	}
	for _, p := range append(small, doc.Layers...) {
		if err := p.Digest.Validate(); err != nil {
			return wrong("it names a part by %q, which is no digest", p.Digest)
		}
		if p.Size < 0 {
			return wrong("part %s has %d bytes", p.Digest, p.Size)
		}
	}
	return nil
}

// manifest reads an image manifest.
func (s *blobs) manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, error) {
	doc, err := s.document(ctx, d)
	if err != nil {
		return ocispec.Manifest{}, err
	}
	if doc.Config == nil {
		return ocispec.Manifest{}, fmt.Errorf("manifest %s is an index: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	return ocispec.Manifest{MediaType: d.MediaType, ArtifactType: doc.ArtifactType, Config: *doc.Config, Layers: doc.Layers, Subject: doc.Subject,
		Annotations: doc.Annotations}, nil
}

// index reads the entries of an index.
func (s *blobs) index(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	doc, err := s.document(ctx, d)
	return doc.Manifests, err
}

// verify holds a blob's file against its descriptor.
func (s *blobs) verify(ctx context.Context, d ocispec.Descriptor) error {
	r, err := s.backend.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	return holds(d, r.Size(), io.NewSectionReader(r, 0, r.Size()))
}

// verifyOnDisk does so past the page cache, which may still know what the disk has lost.
func (s *blobs) verifyOnDisk(ctx context.Context, d ocispec.Descriptor) error {
	info, err := s.backend.Info(ctx, d.Digest)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(s.dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())) // containerd, plugins/content/local
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := archive.FromDisk(f)
	if err != nil {
		return err
	}
	defer r.Close()
	return holds(d, info.Size, r)
}

// holds holds bytes against a descriptor.
func holds(d ocispec.Descriptor, size int64, r io.Reader) error {
	if size != d.Size {
		return fmt.Errorf("%s has %d bytes, not %d: %w", d.Digest, size, d.Size, errdefs.ErrDataLoss)
	}
	v := d.Digest.Verifier()
	if _, err := io.Copy(v, r); err != nil {
		return err
	}
	if !v.Verified() {
		return fmt.Errorf("%s has other content: %w", d.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

// discard takes a damaged blob out of the store, with its file.
func (s *blobs) discard(ctx context.Context, d digest.Digest) error {
	if err := s.content.Delete(in(ctx), d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("drop damaged %s: %w", d, err)
	}
	if err := s.backend.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("drop damaged %s: %w", d, err)
	}
	return nil
}

// writeBlob adds small content.
func (s *blobs) writeBlob(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, content.WriteBlob(ctx, s.content, "blob-"+d.Digest.String(), bytes.NewReader(b), d)
}

// writeLayer compresses a tar into the content store; the result is the same for the same tar.
func (s *blobs) writeLayer(ctx context.Context, r io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}
	ref := fmt.Sprintf("layer-%d", time.Now().UnixNano())
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return d, "", err
	}
	diff, err := compressInto(w, r)
	if err != nil {
		_ = w.Close()
		_ = s.content.Abort(context.WithoutCancel(ctx), ref)
		return d, "", fmt.Errorf("write the layer: %w", err)
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return d, "", err
	}
	d.Digest, d.Size = w.Digest(), st.Offset
	if err := w.Commit(ctx, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return d, "", err
	}
	return d, diff, nil
}

func compressInto(w io.Writer, r io.Reader) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	z, err := retar.Fast.Writer(w)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(io.MultiWriter(z, sum.Hash()), r); err != nil {
		return "", err
	}
	return sum.Digest(), z.Close()
}

// labelChildren makes a manifest or index keep its parts from being collected.
func (s *blobs) labelChildren(ctx context.Context, d ocispec.Descriptor) error {
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return nil
	}
	if _, err := s.small(ctx, d); err != nil { // what follows reads it without bounds
		return err
	}
	children, err := images.Children(ctx, s.content, d)
	if err != nil {
		return err
	}
	info, err := s.content.Info(ctx, d.Digest)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for key, value := range info.Labels {
		kept[value] = kept[value] || strings.HasPrefix(key, childLabel)
	}
	if !slices.ContainsFunc(children, func(c ocispec.Descriptor) bool { return !kept[c.Digest.String()] }) {
		return nil // a write for nothing
	}
	_, err = images.SetChildrenLabels(s.content, images.ChildrenHandler(s.content))(ctx, d)
	return err
}
