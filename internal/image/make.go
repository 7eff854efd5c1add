package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/ref"
)

// buildRequest is an image to be made of a parent's layers and one more.
type buildRequest struct {
	parent  *Image
	layer   io.Reader
	config  dockerspec.DockerOCIImage // of the new image; layers and history are filled in
	ref     string
	history string
	comment string
	author  string
	admit   func(context.Context, ocispec.Descriptor) error // asked before the image is unpacked and named; nil: all are taken
}

// build writes layer, config and manifest, unpacks the image and names it.
func (l *layers) build(ctx context.Context, r buildRequest) (digest.Digest, error) {
	ctx, done, err := l.st.lease(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	layer, diff, err := l.st.writeLayer(ctx, r.layer)
	if err != nil {
		return "", l.st.explainFull(err)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	r.config.RootFS = ocispec.RootFS{Type: "layers"}
	r.config.History = nil
	if r.parent != nil {
		pm, err := l.st.manifest(ctx, r.parent.Manifest)
		if err != nil {
			return "", err
		}
		for _, p := range pm.Layers {
			p.MediaType = ociLayerType(p.MediaType)
			m.Layers = append(m.Layers, p)
		}
		r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, r.parent.Config.RootFS.DiffIDs...)
		r.config.History = append(r.config.History, r.parent.Config.History...)
	}
	m.Layers = append(m.Layers, layer)
	r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, diff)
	r.config.History = append(r.config.History, ocispec.History{Created: r.config.Created, CreatedBy: r.history, Comment: r.comment, Author: r.author})
	if m.Config, err = l.st.writeBlob(ctx, ocispec.MediaTypeImageConfig, r.config); err != nil {
		return "", err
	}
	manifest, err := l.st.writeBlob(ctx, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return "", err
	}
	if err := l.st.labelChildren(ctx, manifest); err != nil {
		return "", err
	}
	if r.admit != nil {
		if err := r.admit(ctx, manifest); err != nil {
			return "", err
		}
	}
	if _, err := l.unpack(ctx, manifest, nil); err != nil {
		return "", err
	}
	name := manifest.Digest.String()
	if r.ref != "" {
		named, err := ref.Parse(r.ref)
		if err != nil {
			return "", err
		}
		name = named.String()
	}
	if err := l.st.label(ctx, manifest.Digest, labelMade, "yes"); err != nil { // also where a registry has given the same
		return "", err
	}
	return manifest.Digest, l.st.name(ctx, name, manifest)
}

// ociLayerType is a layer's type in the words of the OCI, so that a manifest is all of one kind.
func ociLayerType(t string) string {
	switch t {
	case images.MediaTypeDockerSchema2Layer:
		return ocispec.MediaTypeImageLayer
	case images.MediaTypeDockerSchema2LayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	case images.MediaTypeDockerSchema2LayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return t
}

// nameable says before the work whether an image can be given a name.
func nameable(name string) error {
	if name == "" {
		return nil
	}
	r, err := ref.Parse(name)
	if err == nil && r.Digest != "" {
		return fmt.Errorf("an image cannot be made under a digest: %q: leave the @… out: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return ambiguous(r)
}

// ImportOptions of Import: a root file system's tar becomes a one-layer image.
type ImportOptions struct {
	Ref, Message string
	Changes      []string // Dockerfile instructions
	Platform     *ocispec.Platform
}

// Import makes an image of a root file system's tar, plain or compressed.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	plain, err := fslayer.Decompress(r)
	if err != nil {
		return "", fmt.Errorf("import: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer plain.Close()
	now := time.Now().UTC()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &now, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}}
	if o.Platform != nil {
		config.Platform = *o.Platform
	}
	if err := applyChanges(&config.Config, o.Changes); err != nil {
		return "", err
	}
	if err := nameable(o.Ref); err != nil {
		return "", err
	}
	id, err := s.build(ctx, buildRequest{layer: plain, config: config, ref: o.Ref, history: "import", comment: o.Message,
		admit: func(ctx context.Context, d ocispec.Descriptor) error { return s.gate.admitBrought(ctx, d, o.Ref) }})
	if err != nil {
		err = errors.Join(err, s.sweep(context.WithoutCancel(ctx))) // nothing stays of what was not taken whole
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("import: this is no whole tar archive, plain or compressed: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	told(s, config.Config.Labels, happening{events.ActionImport, id.String(), familiar(o.Ref)})
	KeepOneForm(ctx, s)
	return id, nil
}

// CommitOptions of Commit.
type CommitOptions struct {
	Parent          *Image
	Ref             string
	Author, Comment string
	Config          dockerspec.DockerOCIImageConfig
	Changes         []string
	Created         time.Time
	ContainerID     string
}

// Commit makes an image of the parent plus one layer, read as a tar of changes (OCI whiteouts, ids as seen inside).
func (s *Service) Commit(ctx context.Context, layer io.Reader, o CommitOptions) (digest.Digest, error) {
	if o.Parent == nil {
		return "", errors.New("commit: no parent image")
	}
	config := o.Parent.Config
	config.Config = o.Config
	config.Author = o.Author
	created := o.Created
	if created.IsZero() {
		created = time.Now().UTC()
	}
	config.Created = &created
	if err := applyChanges(&config.Config, o.Changes); err != nil {
		return "", err
	}
	if err := nameable(o.Ref); err != nil {
		return "", err
	}
	id, err := s.build(ctx, buildRequest{parent: o.Parent, layer: layer, config: config, ref: o.Ref, author: o.Author, comment: o.Comment,
		history: strings.Join(append(append([]string(nil), o.Config.Entrypoint...), o.Config.Cmd...), " ")})
	if err != nil {
		return "", fmt.Errorf("commit: %w", errors.Join(err, s.sweep(context.WithoutCancel(ctx))))
	}
	if o.Ref != "" {
		told(s, config.Config.Labels, happening{events.ActionTag, id.String(), familiar(o.Ref)})
	}
	return id, nil
}
