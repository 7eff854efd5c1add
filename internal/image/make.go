package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// labelOar marks the built-in image with the oar that it was made from.
const labelOar = "dev.wherry.built-in"

func (s *Service) oarStamp() (string, error) {
	fi, err := os.Stat(s.o.Oar)
	if err != nil {
		return "", fmt.Errorf("the built-in image is made from oar: %w", err)
	}
	return fmt.Sprintf("%d-%d", fi.Size(), fi.ModTime().Unix()), nil
}

// makeHello makes the built-in image from the oar binary: a first run needs no network.
func (s *Service) makeHello(ctx context.Context) (images.Image, error) {
	stamp, err := s.oarStamp()
	if err != nil {
		return images.Image{}, err
	}
	binary, err := os.ReadFile(s.o.Oar)
	if err != nil {
		return images.Image{}, err
	}
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	epoch := time.Unix(0, 0).UTC()
	for _, dir := range []string{"etc", "proc", "sys", "dev", "tmp"} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}); err != nil {
			return images.Image{}, err
		}
	}
	passwd := []byte("root:x:0:0:root:/:/oar\n")
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{{"oar", 0o755, binary}, {"etc/passwd", 0o644, passwd}} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: epoch}); err != nil {
			return images.Image{}, err
		}
		if _, err := t.Write(f.data); err != nil {
			return images.Image{}, err
		}
	}
	if err := t.Close(); err != nil {
		return images.Image{}, err
	}
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &epoch, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}}
	config.Config.Entrypoint = []string{"/oar", "hello"}
	config.Config.Labels = map[string]string{labelOar: stamp, ocispec.AnnotationDescription: "built into Wherry: prints what its process sees"}
	id, err := s.build(ctx, buildRequest{layer: &layer, config: config, ref: helloName, history: "built in"})
	if err != nil {
		return images.Image{}, fmt.Errorf("make the built-in image: %w", err)
	}
	_ = id
	return s.images.Get(in(ctx), helloName)
}

// buildRequest is an image to be made of a parent's layers and one more.
type buildRequest struct {
	parent  *Image
	layer   io.Reader
	config  dockerspec.DockerOCIImage // of the new image; layers and history are filled in
	ref     string
	history string
	comment string
	author  string
}

// build writes layer, config and manifest, names the image and unpacks it.
func (s *Service) build(ctx context.Context, r buildRequest) (digest.Digest, error) {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	layer, diff, err := s.writeLayer(ctx, r.layer)
	if err != nil {
		return "", err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	r.config.RootFS = ocispec.RootFS{Type: "layers"}
	if r.parent != nil {
		pm, err := images.Manifest(ctx, s.content, r.parent.Manifest, nil)
		if err != nil {
			return "", err
		}
		m.Layers = append(m.Layers, pm.Layers...)
		r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, r.parent.Config.RootFS.DiffIDs...)
		r.config.History = append([]ocispec.History(nil), r.parent.Config.History...)
	}
	m.Layers = append(m.Layers, layer)
	r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, diff)
	r.config.History = append(r.config.History, ocispec.History{Created: r.config.Created, CreatedBy: r.history, Comment: r.comment, Author: r.author})
	if m.Config, err = s.writeBlob(ctx, ocispec.MediaTypeImageConfig, r.config, nil); err != nil {
		return "", err
	}
	manifest, err := s.writeBlob(ctx, ocispec.MediaTypeImageManifest, m, nil)
	if err != nil {
		return "", err
	}
	if err := s.labelChildren(ctx, manifest); err != nil {
		return "", err
	}
	if _, err := s.unpack(ctx, manifest, nil); err != nil {
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
	return manifest.Digest, s.name(ctx, name, manifest)
}

// writeLayer compresses a tar into the content store; the result is the same for the same tar.
func (s *Service) writeLayer(ctx context.Context, r io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(fmt.Sprintf("layer-%d", time.Now().UnixNano())))
	if err != nil {
		return d, "", err
	}
	defer w.Close()
	sum := sha256.New()
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return d, "", err
	}
	if _, err := io.Copy(io.MultiWriter(z, sum), r); err != nil {
		return d, "", fmt.Errorf("write the layer: %w", err)
	}
	if err := z.Close(); err != nil {
		return d, "", err
	}
	st, err := w.Status()
	if err != nil {
		return d, "", err
	}
	d.Digest, d.Size = w.Digest(), st.Offset
	if err := w.Commit(ctx, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return d, "", err
	}
	return d, digest.NewDigest(digest.SHA256, sum), nil
}

// ImportOptions of Import: a root file system's tar becomes a one-layer image.
type ImportOptions struct {
	Ref, Message string
	Changes      []string // Dockerfile instructions
	Platform     *ocispec.Platform
}

// Import makes an image of a root file system's tar, plain or compressed.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	plain, err := compression.DecompressStream(r)
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
	id, err := s.build(ctx, buildRequest{layer: plain, config: config, ref: o.Ref, history: "import", comment: o.Message})
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("import: this is no whole tar archive, plain or compressed: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	s.o.Events.Publish(events.ImageEventType, events.ActionImport, id.String(), map[string]string{"name": o.Ref})
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
	id, err := s.build(ctx, buildRequest{parent: o.Parent, layer: layer, config: config, ref: o.Ref, author: o.Author, comment: o.Comment,
		history: strings.Join(append(append([]string(nil), o.Config.Entrypoint...), o.Config.Cmd...), " ")})
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	return id, nil
}

// applyChanges carries out the Dockerfile instructions that commit and import take.
func applyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, change := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(change), " ")
		rest = strings.TrimSpace(rest)
		if rest == "" {
			return fmt.Errorf("change %q says nothing: %w", change, errdefs.ErrInvalidArgument)
		}
		if err := applyChange(c, strings.ToUpper(word), rest); err != nil {
			return err
		}
	}
	return nil
}

func applyChange(c *dockerspec.DockerOCIImageConfig, word, rest string) error {
	key, value, _ := strings.Cut(rest, "=")
	value = strings.Trim(value, `"`)
	switch word {
	case "CMD":
		c.Cmd = execForm(rest)
	case "ENTRYPOINT":
		c.Entrypoint = execForm(rest)
	case "ENV":
		if !strings.Contains(rest, "=") {
			key, value, _ = strings.Cut(rest, " ")
		}
		kept := c.Env[:0:0]
		for _, e := range c.Env {
			if !strings.HasPrefix(e, key+"=") {
				kept = append(kept, e)
			}
		}
		c.Env = append(kept, key+"="+value)
	case "LABEL":
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[key] = value
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "EXPOSE":
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		for _, port := range strings.Fields(rest) {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			c.ExposedPorts[port] = struct{}{}
		}
	case "VOLUME":
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, v := range listForm(rest) {
			c.Volumes[v] = struct{}{}
		}
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	default:
		return fmt.Errorf("%s is not a valid change command: there are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR: %w", word, errdefs.ErrInvalidArgument)
	}
	return nil
}

// execForm reads ["a", "b"], or a line for the shell.
func execForm(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", s}
}

func listForm(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return strings.Fields(s)
}
