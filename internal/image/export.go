package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// Formats of Save.
const (
	FormatBoth   = ""               // an OCI layout that is a docker-archive too, as Docker writes it
	FormatOCI    = "oci-archive"    // an OCI layout alone
	FormatDocker = "docker-archive" // for tools that know no OCI layout; it holds one platform of each image
)

// SaveOptions of Save.
type SaveOptions struct {
	Platforms []ocispec.Platform // none: all that is here
	Format    string
}

// Save writes images as a tar. A repository without a tag means all of its tags. An index stays as it is, with those of its platforms that
// are here and what is attested of them; one platform alone is saved without its index.
func (s *Service) Save(ctx context.Context, names []string, o SaveOptions, w io.Writer) error {
	if o.Format != FormatBoth && o.Format != FormatOCI && o.Format != FormatDocker {
		return fmt.Errorf("save: format %q is unknown: it can be %s or %s: %w", o.Format, FormatOCI, FormatDocker, errdefs.ErrInvalidArgument)
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	if names, err = s.allTags(ctx, names); err != nil {
		return err
	}
	var all []images.Image
	for _, name := range names {
		img, err := takeHold(ctx, s, func(ctx context.Context) (images.Image, error) { return s.lookup(ctx, name) })
		if err != nil {
			return err
		}
		all = append(all, img)
	}
	x := &export{s: s.blobs, o: o, blobs: map[digest.Digest]ocispec.Descriptor{}}
	for i, name := range names {
		img := all[i]
		called := img.Name
		if r, err := ref.Parse(name); isFullID(img.Name) || isID(name) && s.byIDOnly(ctx, name) || err == nil && r.Digest != "" && r.Tag == "" {
			called = ""
		}
		again, err := restoreAll(ctx, s, img.Target)
		if err != nil {
			return fmt.Errorf("save %s: %w", familiar(name), err)
		}
		defer again()
		if err := x.add(ctx, img.Target, called); err != nil {
			return fmt.Errorf("save %s: %w", familiar(name), err)
		}
		tell(ctx, s, img.Target, happening{events.ActionSave, img.Target.Digest.String(), familiar(img.Name)})
	}
	if err := x.write(ctx, w); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// export collects what goes into an archive.
type export struct {
	s       *blobs
	o       SaveOptions
	blobs   map[digest.Digest]ocispec.Descriptor
	entries []ocispec.Descriptor // of index.json
	docker  []dockerEntry
}

// dockerEntry is one image in a docker-archive's manifest.json.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string

	manifest digest.Digest
}

// add takes an image in, under a name if it has one.
func (x *export) add(ctx context.Context, target ocispec.Descriptor, name string) error {
	entry, err := x.choose(ctx, target)
	if err != nil {
		return err
	}
	entry.Annotations = nil
	if r, err := ref.Parse(name); err == nil && name != "" {
		entry.Annotations = map[string]string{images.AnnotationImageName: name, ocispec.AnnotationRefName: r.Tag}
		if r.Tag == "" {
			delete(entry.Annotations, ocispec.AnnotationRefName)
		}
	}
	x.entries = append(x.entries, entry)
	return x.dockerEntry(ctx, entry, name)
}

// choose finds what of a target goes into the archive, and notes its blobs.
func (x *export) choose(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		if err := x.fits(ctx, target); err != nil {
			return target, err
		}
		if !x.s.complete(ctx, target) {
			return target, fmt.Errorf("not all of its content is here: pull it again: %w", errdefs.ErrNotFound)
		}
		return target, x.take(ctx, target)
	}
	list, err := x.s.manifests(ctx, target)
	if err != nil {
		return target, err
	}
	var whole []ocispec.Descriptor
	var have []string
	for _, d := range list {
		if !x.s.complete(ctx, d) {
			continue
		}
		have = append(have, platforms.Format(*d.Platform))
		if x.wants(*d.Platform) {
			whole = append(whole, d)
		}
	}
	switch {
	case len(whole) == 0 && len(have) == 0:
		return target, fmt.Errorf("no platform of it is here as a whole: pull it again: %w", errdefs.ErrNotFound)
	case len(whole) == 0:
		return target, fmt.Errorf("it is not here for this platform, only for %s: %w", strings.Join(have, ", "), errdefs.ErrNotFound)
	case len(x.o.Platforms) == 1:
		whole[0].Annotations = nil
		return whole[0], x.take(ctx, whole[0])
	}
	return target, x.takeIndex(ctx, target, whole)
}

// fits holds an image of one platform against those that are asked for.
func (x *export) fits(ctx context.Context, target ocispec.Descriptor) error {
	if len(x.o.Platforms) == 0 {
		return nil
	}
	list, err := x.s.withPlatform(ctx, target)
	if err != nil {
		return err
	}
	if !x.wants(*list[0].Platform) {
		return fmt.Errorf("it is not here for this platform, only for %s: %w", platforms.Format(*list[0].Platform), errdefs.ErrNotFound)
	}
	return nil
}

func (x *export) wants(p ocispec.Platform) bool {
	return len(x.o.Platforms) == 0 || matchesAny(x.o.Platforms, p)
}

// takeIndex notes an index with these of its manifests, and what is attested of them.
func (x *export) takeIndex(ctx context.Context, target ocispec.Descriptor, whole []ocispec.Descriptor) error {
	wanted := map[digest.Digest]bool{}
	for _, d := range whole {
		wanted[d.Digest] = true
	}
	return x.s.walk(ctx, target, func(d ocispec.Descriptor) error {
		switch {
		case images.IsIndexType(d.MediaType) && x.s.here(ctx, d):
			x.blobs[d.Digest] = d
			return nil
		case wanted[d.Digest], attests(d) && wanted[attested(d)] && x.s.complete(ctx, d), !attests(d) && x.s.isArtifact(ctx, d) && x.s.complete(ctx, d):
			if err := x.take(ctx, d); err != nil {
				return err
			}
		}
		return errBelow
	})
}

// take notes all blobs of a manifest.
func (x *export) take(ctx context.Context, d ocispec.Descriptor) error {
	return x.s.walk(ctx, d, func(d ocispec.Descriptor) error {
		if !images.IsNonDistributable(d.MediaType) {
			x.blobs[d.Digest] = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		}
		return nil
	})
}

// dockerEntry notes the one platform that tools see which know no indexes: the host's, or else the first.
func (x *export) dockerEntry(ctx context.Context, entry ocispec.Descriptor, name string) error {
	if x.o.Format == FormatOCI || x.s.isArtifact(ctx, entry) {
		return nil
	}
	list, err := x.s.manifests(ctx, entry)
	if err != nil {
		return err
	}
	var best *ocispec.Descriptor
	for i, d := range list {
		if _, taken := x.blobs[d.Digest]; taken && (best == nil || matcher(nil).Match(*d.Platform)) {
			best = &list[i]
		}
	}
	if best == nil {
		return nil
	}
	var tags []string
	if r, err := ref.Parse(name); err == nil && name != "" && r.Tag != "" && r.Digest == "" {
		tags = []string{r.Familiar()}
	}
	for i := range x.docker {
		if x.docker[i].manifest == best.Digest {
			x.docker[i].RepoTags = append(x.docker[i].RepoTags, tags...)
			return nil
		}
	}
	m, err := x.s.manifest(ctx, *best)
	if err != nil {
		return err
	}
	out := dockerEntry{Config: layoutPath(m.Config.Digest), RepoTags: tags, Layers: []string{}, manifest: best.Digest}
	if x.o.Format == FormatDocker {
		out.Config = m.Config.Digest.Encoded() + ".json"
	}
	for _, l := range m.Layers {
		if x.o.Format == FormatDocker {
			out.Layers = append(out.Layers, l.Digest.Encoded()+".tar")
		} else {
			out.Layers = append(out.Layers, layoutPath(l.Digest))
		}
	}
	x.docker = append(x.docker, out)
	return nil
}

func layoutPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// write writes the tar: the same images make the same bytes.
func (x *export) write(ctx context.Context, w io.Writer) error {
	t := &exportTar{tar.NewWriter(w), map[string]bool{}}
	if x.o.Format == FormatDocker {
		if err := x.writeDocker(ctx, t); err != nil {
			return err
		}
		return t.Close()
	}
	var all []ocispec.Descriptor
	for _, d := range x.blobs {
		all = append(all, d)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Digest < all[j].Digest })
	for _, d := range all {
		if err := t.blob(ctx, x.s, layoutPath(d.Digest), d); err != nil {
			return err
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: x.entries}
	if err := t.json(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if len(x.docker) > 0 {
		if err := t.json("manifest.json", x.docker); err != nil {
			return err
		}
	}
	if err := t.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return t.Close()
}

func (x *export) writeDocker(ctx context.Context, t *exportTar) error {
	if len(x.docker) == 0 {
		return fmt.Errorf("an artifact does not go into a docker-archive: use --format oci-archive: %w", errdefs.ErrInvalidArgument)
	}
	for _, e := range x.docker {
		m, err := x.s.manifest(ctx, x.blobs[e.manifest])
		if err != nil {
			return err
		}
		if err := t.blob(ctx, x.s, e.Config, m.Config); err != nil {
			return err
		}
		for i, l := range m.Layers {
			if err := t.blob(ctx, x.s, e.Layers[i], l); err != nil {
				return err
			}
		}
	}
	return t.json("manifest.json", x.docker)
}

// exportTar writes each name once, without anything that differs from one day to another.
type exportTar struct {
	*tar.Writer
	names map[string]bool
}

func (t *exportTar) dirs(name string) error {
	dir := path.Dir(name)
	if dir == "." || t.names[dir] {
		return nil
	}
	if err := t.dirs(dir); err != nil {
		return err
	}
	t.names[dir] = true
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
}

func (t *exportTar) blob(ctx context.Context, s *blobs, name string, d ocispec.Descriptor) error {
	if t.names[name] {
		return nil
	}
	t.names[name] = true
	if err := t.dirs(name); err != nil {
		return err
	}
	r, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	defer r.Close()
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: r.Size()}); err != nil {
		return err
	}
	verifier := d.Digest.Verifier()
	if _, err := io.Copy(t, io.TeeReader(io.NewSectionReader(r, 0, r.Size()), verifier)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%s is damaged on this disk: pull or load the image again: %w", d.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

func (t *exportTar) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}
