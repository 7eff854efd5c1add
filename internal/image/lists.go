package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// labelList marks the name of an index that was put together here, in the database.
const labelList = "dev.wherry.list"

// Lists are indexes that people put together: `docker manifest`. Each is an index in the store under a name, and can be tagged, saved and
// pushed like any other. Of what it lists, only manifests and configurations have to be here.
type Lists struct{ S *Service }

// Create makes an empty list. With amend, one that is there stays as it is.
func (l Lists) Create(ctx context.Context, name string, amend bool) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fmt.Errorf("manifest list %s: a digest is worked out, it cannot be given: name a tag: %w", name, errdefs.ErrInvalidArgument)
	}
	ctx, done, err := l.S.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	old, err := l.S.images.Get(ctx, r.String())
	switch {
	case err == nil && !images.IsIndexType(old.Target.MediaType):
		return fmt.Errorf("%s is an image here, not a list: choose another name: %w", r.Familiar(), errdefs.ErrConflict)
	case err == nil && amend:
		return l.mark(ctx, r)
	case err == nil:
		return fmt.Errorf("manifest list %s is there already: use --amend to add to it, or remove it first: %w", r.Familiar(), errdefs.ErrAlreadyExists)
	}
	return l.write(ctx, r, ocispec.Index{Manifests: []ocispec.Descriptor{}})
}

// find opens a list. An index that was pulled or loaded is one as well.
func (l Lists) find(ctx context.Context, name string) (ref.Reference, ocispec.Index, error) {
	var x ocispec.Index
	r, err := ref.Parse(name)
	if err != nil {
		return r, x, err
	}
	img, err := l.S.images.Get(ctx, r.String())
	if errdefs.IsNotFound(err) {
		return r, x, fmt.Errorf("No such manifest: %s: %w", r.Familiar(), errdefs.ErrNotFound) //nolint:staticcheck // Docker's words
	}
	if err != nil {
		return r, x, err
	}
	if !images.IsIndexType(img.Target.MediaType) {
		return r, x, fmt.Errorf("%s is an image, not a manifest list: %w", r.Familiar(), errdefs.ErrInvalidArgument)
	}
	if _, err := l.S.index(ctx, img.Target); err != nil {
		return r, x, err
	}
	return r, x, l.S.readJSON(ctx, img.Target, &x)
}

// write stores a list under its name in the place of what it was before.
func (l Lists) write(ctx context.Context, r ref.Reference, x ocispec.Index) error {
	x.Versioned, x.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	docker := func(d ocispec.Descriptor) bool { return d.MediaType == images.MediaTypeDockerSchema2Manifest }
	if len(x.Manifests) > 0 && !slices.ContainsFunc(x.Manifests, func(d ocispec.Descriptor) bool { return !docker(d) }) && x.Annotations == nil {
		x.MediaType = images.MediaTypeDockerSchema2ManifestList
	}
	target, err := l.S.writeBlob(ctx, x.MediaType, x)
	if err != nil {
		return l.S.explainFull(err)
	}
	if err := l.S.labelTree(ctx, target); err != nil {
		return err
	}
	old, oldErr := l.S.images.Get(ctx, r.String())
	if err := l.S.name(ctx, r.String(), target); err != nil {
		return err
	}
	if oldErr == nil && old.Target.Digest != target.Digest {
		if err := l.forget(ctx, old.Target.Digest); err != nil {
			return err
		}
	}
	return l.mark(ctx, r)
}

// forget drops what a list was a moment ago, which is nothing that anybody would look for, unless a container uses it.
func (l Lists) forget(ctx context.Context, id digest.Digest) error {
	l.S.naming.Lock()
	defer l.S.naming.Unlock()
	done, user := l.S.beginRemoval(use{id: id})
	if user != "" {
		return nil
	}
	defer done()
	if err := l.S.images.Delete(ctx, id.String()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("drop what the list was before: %w", err)
	}
	return nil
}

func (l Lists) mark(ctx context.Context, r ref.Reference) error {
	l.S.naming.Lock()
	defer l.S.naming.Unlock()
	img, err := l.S.images.Get(ctx, r.String())
	if err != nil || img.Labels[labelList] != "" {
		return err
	}
	img.Labels = map[string]string{labelList: "yes"}
	_, err = l.S.images.Update(ctx, img, "labels")
	return err
}

// Listed is what is to stand in a list, and how.
type Listed struct {
	Image       string               // a local image, or one of a registry; for Annotate and Remove a digest will do
	All         bool                 // of an index all that it lists, not just the host's platform
	Platform    ocispec.Platform     // fields that are set replace the image's own
	Annotations map[string]string    // of the entry
	Auth        *registry.AuthConfig `json:"-"`
	Insecure    bool                 `json:"-"` // its registry may do without TLS
}

// Add puts an image into a list, in the place of one that is there already. It gives the digests of what was added.
func (l Lists) Add(ctx context.Context, name string, q Listed) ([]digest.Digest, error) {
	ctx, done, err := l.S.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r, x, err := l.find(ctx, name)
	if err != nil {
		return nil, err
	}
	found, err := l.entries(ctx, q)
	if err == nil {
		err = l.admit(ctx, found)
	}
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for _, d := range found.entries {
		q.describe(&d)
		x.Manifests = append(slices.DeleteFunc(x.Manifests, func(old ocispec.Descriptor) bool { return old.Digest == d.Digest }), d)
		out = append(out, d.Digest)
	}
	return out, l.write(ctx, r, x)
}

// describe changes what a list says of an entry.
func (q *Listed) describe(d *ocispec.Descriptor) {
	var p ocispec.Platform
	if d.Platform != nil {
		p = *d.Platform
	}
	for _, f := range []struct{ to, from *string }{{&p.OS, &q.Platform.OS}, {&p.Architecture, &q.Platform.Architecture}, {&p.Variant, &q.Platform.Variant}, {&p.OSVersion, &q.Platform.OSVersion}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if len(q.Platform.OSFeatures) > 0 {
		p.OSFeatures = q.Platform.OSFeatures
	}
	if p.OS != "" || p.Architecture != "" {
		d.Platform = &p
	}
	for k, v := range q.Annotations {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[k] = v
	}
}

// stands is what an image stands for in a list.
type stands struct {
	entries []ocispec.Descriptor
	target  ocispec.Descriptor // what its name means: it, or an index that it is of
	from    *pull              // the registry that has it; nil: it is here
}

// admit asks the policy for what a registry has, and notes where it comes from: what is here has been asked for already, or will be.
func (l Lists) admit(ctx context.Context, found stands) error {
	if found.from == nil {
		return nil
	}
	if err := found.from.admit(ctx, found.target, found.entries...); err != nil {
		return err
	}
	for _, d := range found.entries {
		r := found.from.ref
		r.Digest = d.Digest
		if err := (provenance{l.S.store}).from(ctx, r, d); err != nil {
			return err
		}
	}
	return nil
}

// entries are what an image stands for in a list: itself, or of an index the host's platform, or all that it lists.
func (l Lists) entries(ctx context.Context, q Listed) (out stands, err error) {
	if out.from, out.target, err = l.target(ctx, q); err != nil {
		return out, err
	}
	if images.IsManifestType(out.target.MediaType) {
		out.entries, err = l.withType(ctx, out.target)
		return out, err
	}
	if q.All {
		out.entries, err = l.S.index(ctx, out.target)
		return out, err
	}
	d, err := l.S.manifestFor(ctx, out.target, matcher(nil))
	if errdefs.IsNotFound(err) {
		if list, listErr := l.S.manifests(ctx, out.target); listErr == nil && len(list) == 1 {
			d, err = list[0], nil
		}
	}
	if err != nil {
		return out, fmt.Errorf("%s is a manifest list without %s: add all of it with --all, or one platform's image by its digest: %w",
			q.Image, platforms.Format(platforms.DefaultSpec()), errdefs.ErrInvalidArgument)
	}
	out.entries, err = l.withType(ctx, d)
	return out, err
}

// withType describes one manifest: an image with its platform, an artifact with its type.
func (l Lists) withType(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
	if !l.S.isArtifact(ctx, d) {
		return l.S.withPlatform(ctx, out)
	}
	m, err := l.S.manifest(ctx, d)
	out.ArtifactType = artifactType(m)
	return []ocispec.Descriptor{out}, err
}

// target finds an image here, or has its manifests fetched.
func (l Lists) target(ctx context.Context, q Listed) (*pull, ocispec.Descriptor, error) {
	img, err := l.S.find(ctx, q.Image)
	if !errdefs.IsNotFound(err) {
		return nil, img.Target, err
	}
	return Manifests{l.S}.fetch(ctx, q, true)
}

// Annotate changes what a list says of an entry, which is named by its digest or by the image that was added.
func (l Lists) Annotate(ctx context.Context, name string, q Listed) error {
	return l.change(ctx, name, q, func(x *ocispec.Index, i int) { q.describe(&x.Manifests[i]) })
}

// change changes an entry of a list.
func (l Lists) change(ctx context.Context, name string, q Listed, do func(x *ocispec.Index, i int)) error {
	ctx, done, err := l.S.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	r, x, err := l.find(ctx, name)
	if err != nil {
		return err
	}
	i, err := l.entry(ctx, x, q)
	if err != nil {
		return err
	}
	do(&x, i)
	return l.write(ctx, r, x)
}

func (l Lists) entry(ctx context.Context, x ocispec.Index, q Listed) (int, error) {
	is := func(d digest.Digest) int {
		return slices.IndexFunc(x.Manifests, func(e ocispec.Descriptor) bool { return e.Digest == d })
	}
	if i := is(digest.Digest(q.Image)); i >= 0 {
		return i, nil
	}
	if r, err := ref.Parse(q.Image); err == nil && r.Digest != "" {
		if i := is(r.Digest); i >= 0 {
			return i, nil
		}
	}
	if found, err := l.entries(ctx, q); err == nil {
		for _, d := range found.entries {
			if i := is(d.Digest); i >= 0 {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("the list has no entry %s: name it by the digest that `wherry manifest inspect` shows: %w", q.Image, errdefs.ErrNotFound)
}

// Remove takes an entry out of a list.
func (l Lists) Remove(ctx context.Context, name string, q Listed) error {
	return l.change(ctx, name, q, func(x *ocispec.Index, i int) { x.Manifests = slices.Delete(x.Manifests, i, i+1) })
}

// Delete takes a list away.
func (l Lists) Delete(ctx context.Context, name string) error {
	ctx = in(ctx)
	r, _, err := l.find(ctx, name)
	if err != nil {
		return err
	}
	_, err = l.S.Remove(ctx, r.String(), RemoveOptions{})
	return err
}

// isList says that a name means a list that was put together here.
func (l Lists) isList(ctx context.Context, name string) bool {
	r, err := ref.Parse(name)
	if err != nil {
		return false
	}
	img, err := l.S.images.Get(ctx, r.String())
	return err == nil && img.Labels[labelList] != ""
}
