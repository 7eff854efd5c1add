package image

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// artifactType is what kind of artifact a manifest is, by the manifest's own words or, in the older manner, by its config's type.
func artifactType(m ocispec.Manifest) string { return cmp.Or(m.ArtifactType, m.Config.MediaType) }

// isArtifact says that a manifest is no container image.
func (s *blobs) isArtifact(ctx context.Context, d ocispec.Descriptor) bool {
	if !images.IsManifestType(d.MediaType) {
		return false
	}
	m, err := s.manifest(ctx, d)
	return err == nil && !images.IsConfigType(m.Config.MediaType)
}

// Artifacts are manifests that hold files instead of an image: each file is a layer, its name the title.
// https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage
type Artifacts struct{ S *Service }

// FileTypeRecord is the record of a tar's entry that names a file's media type, for Add.
const FileTypeRecord = "WHERRY.type"

const (
	defaultArtifactType = "application/vnd.unknown.artifact.v1"
	defaultFileType     = "application/octet-stream"

	// maxArtifactFiles of one artifact.
	maxArtifactFiles = 10_000
)

// Artifact is one that is here.
type Artifact struct {
	Name        string `json:",omitempty"` // "" for one that is known by its digest only
	Digest      digest.Digest
	Type        string
	Size        int64               // of the files
	Created     time.Time           `json:",omitzero"`
	Subject     *ocispec.Descriptor `json:",omitempty"`
	Annotations map[string]string   `json:",omitempty"`
	Files       []ArtifactFile
}

// ArtifactFile is one of its files.
type ArtifactFile struct {
	Name        string // the title; "" where the layer has none
	MediaType   string
	Digest      digest.Digest
	Size        int64
	Annotations map[string]string `json:",omitempty"`
}

// AddOptions of Add.
type AddOptions struct {
	Name        string // "": known by its digest only
	Type        string
	Annotations map[string]string
	Subject     *ocispec.Descriptor // what it is about
}

// Add makes an artifact of a tar's files.
func (a Artifacts) Add(ctx context.Context, r io.Reader, o AddOptions) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	if err := nameable(o.Name); err != nil {
		return none, err
	}
	ctx, done, err := a.S.lease(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	d, err := a.make(ctx, r, o)
	if err == nil {
		err = provenance{a.S.store}.made(ctx, d)
	}
	if err != nil {
		return none, err
	}
	if o.Name == "" {
		return d, a.S.nameless(ctx, d)
	}
	named, err := ref.Parse(o.Name)
	if err != nil {
		return none, err
	}
	return d, a.S.name(ctx, named.String(), d)
}

// make writes an artifact's files and manifest, under a lease.
func (a Artifacts) make(ctx context.Context, r io.Reader, o AddOptions) (none ocispec.Descriptor, err error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: o.Subject,
		ArtifactType: cmp.Or(o.Type, defaultArtifactType), Annotations: map[string]string{}}
	if m.Layers, err = a.files(ctx, r); err != nil {
		return none, a.S.explainFull(err)
	}
	for k, v := range o.Annotations {
		m.Annotations[k] = v
	}
	if m.Annotations[ocispec.AnnotationCreated] == "" {
		m.Annotations[ocispec.AnnotationCreated] = time.Now().UTC().Format(time.RFC3339)
	}
	if m.Config, err = a.S.writeBlob(ctx, ocispec.MediaTypeEmptyJSON, struct{}{}); err != nil {
		return none, err
	}
	if len(m.Layers) == 0 {
		m.Layers = []ocispec.Descriptor{m.Config} // the specification wants one
	}
	d, err := a.S.writeBlob(ctx, m.MediaType, m)
	if err != nil {
		return none, a.S.explainFull(err)
	}
	return d, a.S.labelChildren(ctx, d)
}

// files takes a tar's files into the store.
func (a Artifacts) files(ctx context.Context, r io.Reader) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	seen := map[string]bool{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read the files: %w: %w", err, errdefs.ErrInvalidArgument)
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%s is no file: %w", h.Name, errdefs.ErrInvalidArgument)
		case seen[h.Name]:
			return nil, fmt.Errorf("two files are called %s: %w", h.Name, errdefs.ErrInvalidArgument)
		}
		seen[h.Name] = true
		if err := fileName(h.Name); err != nil {
			return nil, err
		}
		d, err := a.file(ctx, h, t)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", h.Name, err)
		}
		if out = append(out, d); len(out) > maxArtifactFiles {
			return nil, fmt.Errorf("an artifact may have %d files: %w", maxArtifactFiles, errdefs.ErrInvalidArgument)
		}
	}
}

func (a Artifacts) file(ctx context.Context, h *tar.Header, r io.Reader) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: cmp.Or(h.PAXRecords[FileTypeRecord], defaultFileType), Size: h.Size, Annotations: map[string]string{ocispec.AnnotationTitle: h.Name}}
	if h.Size == 0 {
		return d, fmt.Errorf("it is empty: registries take no empty files: %w", errdefs.ErrInvalidArgument)
	}
	key := fmt.Sprintf("artifact-%p-%s", h, h.Name)
	sum := digest.Canonical.Digester()
	if err := content.WriteBlob(ctx, a.S.content, key, io.TeeReader(r, sum.Hash()), ocispec.Descriptor{Size: h.Size}); err != nil {
		_ = a.S.content.Abort(context.WithoutCancel(ctx), key)
		return d, err
	}
	d.Digest = sum.Digest()
	return d, nil
}

// fileName refuses names that lead out of the directory where an artifact's files are put.
func fileName(name string) error {
	switch {
	case name == "", !filepath.IsLocal(name), path.Clean(name) != name, name == ".", len(name) > 4096, strings.ContainsAny(name, "\x00\\"):
	case slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool { return len(part) > 255 }):
	default:
		return nil
	}
	return fmt.Errorf("%q is no name for a file of an artifact: it has to lie below the directory that the artifact is put into: %w", name, errdefs.ErrInvalidArgument)
}

// List shows the artifacts that are here, by name.
func (a Artifacts) List(ctx context.Context) ([]Artifact, error) {
	ctx = in(ctx)
	list, err := a.S.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	out := []Artifact{}
	for _, img := range list {
		if !a.S.isArtifact(ctx, img.Target) {
			continue
		}
		one, err := a.describe(ctx, img)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(x, y Artifact) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Digest, y.Digest)) })
	return out, nil
}

// Inspect shows one artifact.
func (a Artifacts) Inspect(ctx context.Context, name string) (Artifact, error) {
	ctx = in(ctx)
	img, err := a.find(ctx, name)
	if err != nil {
		return Artifact{}, err
	}
	return a.describe(ctx, img)
}

func (a Artifacts) find(ctx context.Context, name string) (images.Image, error) {
	img, err := a.S.find(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return img, fmt.Errorf("no such artifact: %s: %w", familiar(name), errdefs.ErrNotFound)
	case err != nil:
		return img, err
	case !a.S.isArtifact(ctx, img.Target):
		return img, fmt.Errorf("%s is an image, not an artifact: %w", familiar(img.Name), errdefs.ErrInvalidArgument)
	}
	return img, nil
}

func (a Artifacts) describe(ctx context.Context, img images.Image) (Artifact, error) {
	m, err := a.S.manifest(ctx, img.Target)
	if err != nil {
		return Artifact{}, err
	}
	out := Artifact{Digest: img.Target.Digest, Type: artifactType(m), Subject: m.Subject, Annotations: m.Annotations, Files: []ArtifactFile{}}
	if !isFullID(img.Name) {
		out.Name = familiar(img.Name)
	}
	out.Created, _ = time.Parse(time.RFC3339, m.Annotations[ocispec.AnnotationCreated])
	for _, l := range m.Layers {
		if l.MediaType == ocispec.MediaTypeEmptyJSON {
			continue
		}
		out.Size += l.Size
		out.Files = append(out.Files, ArtifactFile{Name: l.Annotations[ocispec.AnnotationTitle], MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations})
	}
	return out, nil
}

// Remove takes an artifact away, by name or by digest.
func (a Artifacts) Remove(ctx context.Context, name string) error {
	img, err := a.find(in(ctx), name)
	if err != nil {
		return err
	}
	if isFullID(name) || isID(name) && a.S.byIDOnly(in(ctx), name) {
		name = img.Target.Digest.String()
	}
	_, err = a.S.Remove(ctx, name, RemoveOptions{})
	return err
}

// titled are an artifact's files by the names that they are to have: the titles, or for those without one their digests.
func titled(m ocispec.Manifest) (map[string]ocispec.Descriptor, error) {
	out := map[string]ocispec.Descriptor{}
	for _, l := range m.Layers {
		if l.MediaType == ocispec.MediaTypeEmptyJSON {
			continue
		}
		name := cmp.Or(l.Annotations[ocispec.AnnotationTitle], l.Digest.Algorithm().String()+"-"+l.Digest.Encoded())
		if err := fileName(name); err != nil {
			return nil, err
		}
		if old, ok := out[name]; ok && old.Digest != l.Digest {
			return nil, fmt.Errorf("two files of the artifact are called %s: %w", name, errdefs.ErrInvalidArgument)
		}
		out[name] = l
	}
	return out, nil
}

// Extract writes an artifact's files as a tar, each held against its digest.
func (a Artifacts) Extract(ctx context.Context, name string, w io.Writer) error {
	ctx, done, err := a.S.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	img, err := takeHold(ctx, a.S, func(ctx context.Context) (images.Image, error) { return a.find(ctx, name) })
	if err != nil {
		return err
	}
	m, err := a.S.manifest(ctx, img.Target)
	if err != nil {
		return err
	}
	files, err := titled(m)
	if err != nil {
		return err
	}
	t := &exportTar{tar.NewWriter(w), map[string]bool{}}
	for _, name := range sortedKeys(files) {
		if err := t.blob(ctx, a.S.blobs, name, files[name]); err != nil {
			return err
		}
	}
	return t.Close()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// artifactDirs is where artifacts that are mounted have directories with their files.
func artifactDirs(root string) string { return filepath.Join(root, "artifacts") }

// newArtifactDir begins the names of those that are being made.
const newArtifactDir = ".new-"

// artifactDir makes a directory of an artifact's files: they are the store's own, by further names, and belong to root, read-only.
func artifactDir(ctx context.Context, s *store, d ocispec.Descriptor) (dir string, err error) {
	dir = filepath.Join(artifactDirs(s.root), d.Digest.Algorithm().String()+"-"+d.Digest.Encoded())
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	m, err := s.manifest(ctx, d)
	if err != nil {
		return "", err
	}
	files, err := titled(m)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(artifactDirs(s.root), 0o700); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(artifactDirs(s.root), newArtifactDir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(made)) }() // nothing is there once it has its name
	if err := os.Chmod(made, 0o755); err != nil {
		return "", err
	}
	if err := putFiles(ctx, s, made, files); err != nil {
		return "", s.explainFull(err)
	}
	if err := os.Rename(made, dir); err != nil && !errors.Is(err, os.ErrExist) { // another request was faster
		return "", err
	}
	return dir, nil
}

func putFiles(ctx context.Context, s *store, dir string, files map[string]ocispec.Descriptor) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range sortedKeys(files) {
		if err := putFile(ctx, s, root, name, files[name]); err != nil {
			return fmt.Errorf("file %s of the artifact: %w", name, err)
		}
	}
	return syncTree(dir)
}

// putFile copies a blob, which must be what its digest says. Where the file system can, the copy shares its blocks.
func putFile(ctx context.Context, s *store, root *os.Root, name string, d ocispec.Descriptor) error {
	if err := s.verify(ctx, d); err != nil {
		return err
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	from, err := os.Open(filepath.Join(s.root, "content", layoutPath(d.Digest)))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Sync(), to.Close())
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// dropHalfArtifactDirs removes those in whose making the engine was killed.
func dropHalfArtifactDirs(root string) error {
	list, err := os.ReadDir(artifactDirs(root))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), newArtifactDir) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(artifactDirs(root), e.Name())))
		}
	}
	return err
}

// dropArtifactDirs removes those of artifacts that are not here any more.
func dropArtifactDirs(ctx context.Context, s *store) error {
	list, err := os.ReadDir(artifactDirs(s.root))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		d := digest.Digest(strings.Replace(e.Name(), "-", ":", 1))
		if _, infoErr := s.content.Info(in(ctx), d); errdefs.IsNotFound(infoErr) && d.Validate() == nil {
			err = errors.Join(err, os.RemoveAll(filepath.Join(artifactDirs(s.root), e.Name())))
		}
	}
	return err
}
