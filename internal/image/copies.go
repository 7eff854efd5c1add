package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Place is a repository that something is copied from or to.
type Place struct {
	Name     string
	Auth     *registrytypes.AuthConfig
	Insecure bool // its registry may do without TLS
}

// CopyOptions of the copies of Manifests. Of an index the host's platform is copied, Platform, or with All the index with all that it lists.
type CopyOptions struct {
	From, To  Place
	Platform  *ocispec.Platform
	All       bool
	Referrers bool // what refers to it comes too: signatures, attestations, and what refers to those
	Progress  func(Progress)
}

func (o *CopyOptions) transfer() *TransferOptions { return &TransferOptions{Progress: o.Progress} }

// client speaks to a place.
func (m Manifests) client(ctx context.Context, p Place) (*registry.Client, error) {
	r, err := ref.Parse(p.Name)
	if err != nil {
		return nil, err
	}
	pool := m.S.registries
	if p.Insecure {
		pool = pool.Trusting(r.Domain)
	}
	return pool.Client(ctx, r, p.Auth), nil
}

// copyTo prepares a copy into a repository.
func (m Manifests) copyTo(ctx context.Context, p Place, o *TransferOptions) (*sending, error) {
	c, err := m.client(ctx, p)
	if err != nil {
		return nil, err
	}
	o.Auth = p.Auth
	return sendTo(ctx, m.S, c, o)
}

// choose finds which manifest of a target is to be copied.
func (m Manifests) choose(ctx context.Context, p *pull, target ocispec.Descriptor, o *CopyOptions) (ocispec.Descriptor, error) {
	if o.All || images.IsManifestType(target.MediaType) {
		return target, p.manifestHere(ctx, target)
	}
	p.o.Platform = o.Platform
	if p.fetcher != nil {
		d, err := p.manifest(ctx, target, 0)
		d.Platform, d.Annotations = nil, nil
		return d, err
	}
	d, err := m.S.manifestFor(ctx, target, matcher(o.Platform))
	d.Platform, d.Annotations = nil, nil
	return d, err
}

// Copy copies from one repository to another, without unpacking anything, and keeps nothing.
func (m Manifests) Copy(ctx context.Context, o CopyOptions) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return none, err
	}
	defer m.free(ctx, done)
	p, target, err := m.open(ctx, Listed{Image: o.From.Name, Auth: o.From.Auth, Insecure: o.From.Insecure})
	if err != nil {
		return none, err
	}
	p.o.Progress = o.Progress
	d, err := m.choose(ctx, p, target, &o)
	if err != nil {
		return none, registry.Explain("copy "+p.ref.Familiar(), p.ref.Domain, err)
	}
	if err := p.admitAll(ctx, target, d); err != nil {
		return none, err
	}
	c, err := m.copyTo(ctx, o.To, o.transfer())
	if err != nil {
		return none, err
	}
	c.from = func(context.Context, ocispec.Descriptor) (*pull, error) { return p, nil }
	if err := c.tagged(ctx, d); err != nil || !o.Referrers {
		return d, err
	}
	source, err := m.client(ctx, o.From)
	if err != nil {
		return d, err
	}
	return d, c.referrersOf(ctx, d, source.Referrers)
}

// free gives up what a copy has brought into the store.
func (m Manifests) free(ctx context.Context, done func()) {
	done()
	_ = m.S.sweep(context.WithoutCancel(ctx)) // what is left is freed by the next collection
}

// tagged copies a manifest or index under the destination's tag, or digest.
func (c *sending) tagged(ctx context.Context, d ocispec.Descriptor) error {
	tag := c.dest.Tag
	if c.dest.Digest != "" {
		if tag = ""; c.dest.Digest != d.Digest {
			return fmt.Errorf("copy to %s: what is copied is %s: leave the digest out: %w", c.dest.Familiar(), d.Digest, errdefs.ErrInvalidArgument)
		}
	}
	if err := c.tree(ctx, d, tag, 0); err != nil {
		return registry.Explain("copy to "+c.dest.Familiar(), c.dest.Domain, err)
	}
	return nil
}

// lookup lists what refers to a manifest.
type referrerLookup func(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error)

// referrersOf copies what refers to a manifest, or to what an index lists, and what refers to that.
func (c *sending) referrersOf(ctx context.Context, d ocispec.Descriptor, list referrerLookup) error {
	var subjects []digest.Digest
	if err := c.s.walk(ctx, d, func(d ocispec.Descriptor) error {
		if isManifest(d) && c.s.here(ctx, d) {
			subjects = append(subjects, d.Digest)
			return nil
		}
		return errBelow
	}); err != nil {
		return err
	}
	seen := map[digest.Digest]bool{}
	for len(subjects) > 0 && len(seen) < maxManifests {
		subject := subjects[0]
		subjects = subjects[1:]
		if seen[subject] {
			continue // referrers may refer to each other in a circle, if only by lies
		}
		seen[subject] = true
		found, err := list(ctx, subject, "")
		if err != nil {
			return registry.Explain("list the referrers of "+subject.String(), c.dest.Domain, err)
		}
		var copied []ocispec.Descriptor
		for _, r := range found {
			is, err := c.referrer(ctx, subject, r)
			if err != nil {
				return err
			}
			if is {
				r.Platform = nil
				copied = append(copied, r)
			}
			subjects = append(subjects, r.Digest)
		}
		if err := c.refer(ctx, subject, copied...); err != nil {
			return registry.Explain("copy to "+c.dest.Familiar(), c.dest.Domain, err)
		}
	}
	return nil
}

// referrer copies one, if it is what it is said to be.
func (c *sending) referrer(ctx context.Context, subject digest.Digest, r ocispec.Descriptor) (is bool, err error) {
	from, err := c.from(ctx, r)
	if err != nil {
		return false, err
	}
	if err := from.manifestHere(ctx, r); err != nil {
		return false, err
	}
	doc, err := c.s.document(ctx, r)
	if err != nil {
		return false, err
	}
	if doc.Subject == nil || doc.Subject.Digest != subject {
		c.o.say(short(r), "Left out: it is listed as a referrer of %.19s, and is none", subject)
		return false, nil
	}
	if err := c.tree(ctx, ocispec.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size}, "", 0); err != nil {
		return false, registry.Explain("copy to "+c.dest.Familiar(), c.dest.Domain, err)
	}
	return true, nil
}

// refer makes manifests known as referrers. Of all that do so for a subject here, one goes on at a time.
func (c *sending) refer(ctx context.Context, subject digest.Digest, list ...ocispec.Descriptor) error {
	unlock, err := c.s.transfers.lock(ctx, "referrers of "+subject.String()+" in "+c.dest.Name())
	if err != nil {
		return err
	}
	defer unlock()
	return c.to.Refer(ctx, subject, list...)
}

// CopyOut writes a repository's image as an OCI layout.
func (m Manifests) CopyOut(ctx context.Context, o CopyOptions, w io.Writer) error {
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return err
	}
	defer m.free(ctx, done)
	p, target, err := m.open(ctx, Listed{Image: o.From.Name, Auth: o.From.Auth, Insecure: o.From.Insecure})
	if err != nil {
		return err
	}
	explain := func(err error) error { return registry.Explain("copy "+p.ref.Familiar(), p.ref.Domain, err) }
	d, err := m.choose(ctx, p, target, &o)
	if err != nil {
		return explain(err)
	}
	if err := p.admitAll(ctx, target, d); err != nil {
		return err
	}
	if err := p.tree(ctx, d); err != nil {
		return explain(err)
	}
	x := &export{s: m.S.blobs, o: SaveOptions{Format: FormatOCI}, blobs: map[digest.Digest]ocispec.Descriptor{}}
	if err := x.take(ctx, d); err != nil {
		return err
	}
	name := p.ref
	entry := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: map[string]string{images.AnnotationImageName: name.String()}}
	if name.Digest == "" {
		entry.Annotations[ocispec.AnnotationRefName] = name.Tag
	}
	x.entries = append(x.entries, entry)
	if o.Referrers {
		if err := m.exportReferrers(ctx, x, p, o.From); err != nil {
			return err
		}
	}
	return x.write(ctx, w)
}

func (m Manifests) exportReferrers(ctx context.Context, x *export, p *pull, from Place) error {
	c, err := m.client(ctx, from)
	if err != nil {
		return err
	}
	var subjects []ocispec.Descriptor
	for _, d := range x.blobs {
		if isManifest(d) {
			subjects = append(subjects, d)
		}
	}
	for len(subjects) > 0 && len(x.blobs) < maxManifests {
		subject := subjects[0]
		subjects = subjects[1:]
		found, err := c.Referrers(ctx, subject.Digest, "")
		if err != nil {
			return registry.Explain("list the referrers of "+subject.Digest.String(), c.Ref.Domain, err)
		}
		for _, r := range found {
			if _, known := x.blobs[r.Digest]; known {
				continue
			}
			if err := p.tree(ctx, r); err != nil {
				return registry.Explain("copy "+p.ref.Familiar(), p.ref.Domain, err)
			}
			if err := x.take(ctx, r); err != nil {
				return err
			}
			x.entries = append(x.entries, r)
			subjects = append(subjects, r)
		}
	}
	return nil
}

// CopyIn sends an image of an OCI layout (or a docker-archive) into a repository. o.From.Name is the name or tag of the image in the layout,
// "" where there is only one.
func (m Manifests) CopyIn(ctx context.Context, r io.Reader, o CopyOptions) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return none, err
	}
	defer m.free(ctx, done)
	plain, err := fslayer.Decompress(r)
	if err != nil {
		return none, err
	}
	defer plain.Close()
	list, err := newArchived(m.S.blobs).read(ctx, plain)
	if err != nil {
		return none, fmt.Errorf("copy: this is no OCI layout, or not a whole one: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return none, err
	}
	target, err := m.named(ctx, list, o.From.Name)
	if err != nil {
		return none, err
	}
	here := &pull{s: m.S}
	d, err := m.choose(ctx, here, target, &o)
	if err != nil {
		return none, fmt.Errorf("copy: the layout has not this platform of the image: %w", err)
	}
	as := o.To.Name
	if name := archivedName(target); name != "" {
		as = name
	}
	if err := m.S.gate.admitBrought(ctx, d, as); err != nil {
		return none, err
	}
	c, err := m.copyTo(ctx, o.To, o.transfer())
	if err != nil {
		return none, err
	}
	if err := c.tagged(ctx, d); err != nil || !o.Referrers {
		return d, err
	}
	return d, c.referrersOf(ctx, d, func(_ context.Context, subject digest.Digest, _ string) ([]ocispec.Descriptor, error) {
		var out []ocispec.Descriptor
		for _, r := range list {
			if doc, err := m.S.document(ctx, r); err == nil && doc.Subject != nil && doc.Subject.Digest == subject {
				out = append(out, m.asReferrer(ctx, r))
			}
		}
		return out, nil
	})
}

// asReferrer describes a manifest as lists of referrers do.
func (m Manifests) asReferrer(ctx context.Context, d ocispec.Descriptor) ocispec.Descriptor {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if images.IsIndexType(d.MediaType) {
		if doc, err := m.S.document(ctx, d); err == nil {
			out.ArtifactType, out.Annotations = doc.ArtifactType, doc.Annotations
		}
		return out
	}
	if manifest, err := m.S.manifest(ctx, d); err == nil {
		out.ArtifactType, out.Annotations = artifactType(manifest), manifest.Annotations
	}
	return out
}

// named finds an image among a layout's entries.
func (m Manifests) named(ctx context.Context, list []ocispec.Descriptor, name string) (ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	var have []string
	for _, d := range list {
		called := []string{d.Annotations[ocispec.AnnotationRefName], d.Annotations[images.AnnotationImageName], familiar(d.Annotations[images.AnnotationImageName])}
		doc, err := m.S.document(ctx, d)
		if err != nil {
			return d, err
		}
		switch {
		case name == "" && doc.Subject != nil && called[0] == "" && called[1] == "":
			continue // it comes with what it refers to
		case name != "" && !slices.Contains(called, name):
			have = append(have, called[0])
			continue
		}
		found = append(found, d)
		have = append(have, called[0])
	}
	if len(found) != 1 {
		return ocispec.Descriptor{}, fmt.Errorf("copy: the layout has %d images that this can mean (%s): name one: %w",
			len(found), strings.Join(have, ", "), errdefs.ErrInvalidArgument)
	}
	return found[0], nil
}

// Referrers lists what refers to an image in its registry: the subject, and the referrers of one artifact type or of all.
func (m Manifests) Referrers(ctx context.Context, p Place, platform *ocispec.Platform, artifactType string) (ocispec.Descriptor, []ocispec.Descriptor, error) {
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	defer done()
	subject, c, err := m.subject(ctx, p, platform)
	if err != nil {
		return subject, nil, err
	}
	list, err := c.Referrers(ctx, subject.Digest, artifactType)
	return subject, list, registry.Explain("list the referrers of "+c.Ref.Familiar(), c.Ref.Domain, err)
}

// subject is what a reference means in its registry; with a platform, that platform's manifest.
func (m Manifests) subject(ctx context.Context, at Place, platform *ocispec.Platform) (ocispec.Descriptor, *registry.Client, error) {
	p, target, err := m.open(ctx, Listed{Image: at.Name, Auth: at.Auth, Insecure: at.Insecure})
	if err != nil {
		return target, nil, err
	}
	if platform != nil {
		if target, err = m.choose(ctx, p, target, &CopyOptions{Platform: platform}); err != nil {
			return target, nil, registry.Explain("inspect "+p.ref.Familiar(), p.ref.Domain, err)
		}
	}
	c, err := m.client(ctx, at)
	return ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}, c, err
}

// AttachOptions of Attach.
type AttachOptions struct {
	AddOptions
	Platform *ocispec.Platform // the artifact refers to this platform's manifest; nil: to the whole of it
}

// Attach sends a tar's files as an artifact that refers to an image in its registry.
func (m Manifests) Attach(ctx context.Context, p Place, o AttachOptions, files io.Reader) (ocispec.Descriptor, error) {
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer m.free(ctx, done)
	subject, client, err := m.subject(ctx, p, o.Platform)
	if err != nil {
		return subject, err
	}
	o.Subject = &subject
	d, err := Artifacts{m.S}.make(ctx, files, o.AddOptions)
	if err != nil {
		return d, err
	}
	c, err := m.copyTo(ctx, p, &TransferOptions{})
	if err != nil {
		return d, err
	}
	if err = c.tree(ctx, d, "", 0); err == nil {
		err = c.refer(ctx, subject.Digest, m.asReferrer(ctx, d))
	}
	return d, registry.Explain("push to "+client.Ref.FamiliarRepository(), client.Ref.Domain, err)
}

// Push sends an artifact to its registry; one that refers to something is known there as a referrer.
func (a Artifacts) Push(ctx context.Context, p Place, o TransferOptions) error {
	ctx, done, err := a.S.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	img, err := takeHold(ctx, a.S, func(ctx context.Context) (images.Image, error) { return a.find(ctx, p.Name) })
	if err != nil {
		return err
	}
	m := Manifests{a.S}
	if isFullID(img.Name) {
		return fmt.Errorf("push %s: it has no name: give it one with `wherry tag`: %w", p.Name, errdefs.ErrInvalidArgument)
	}
	p.Name = img.Name
	c, err := m.copyTo(ctx, p, &o)
	if err != nil {
		return err
	}
	if err := c.tagged(ctx, img.Target); err != nil {
		return err
	}
	doc, err := a.S.document(ctx, img.Target)
	if err == nil && doc.Subject != nil {
		err = c.refer(ctx, doc.Subject.Digest, m.asReferrer(ctx, img.Target))
	}
	if err != nil {
		return registry.Explain("push "+c.dest.Familiar(), c.dest.Domain, err)
	}
	o.say("", "%s: digest: %s size: %d", c.dest.Tag, img.Target.Digest, img.Target.Size)
	tell(ctx, a.S, img.Target, happening{events.ActionPush, c.dest.Familiar(), c.dest.FamiliarName()})
	return nil
}

// Pull brings an artifact here.
func (a Artifacts) Pull(ctx context.Context, p Place, o TransferOptions) (ocispec.Descriptor, error) {
	ctx, done, err := a.S.lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer done()
	from, target, err := Manifests{a.S}.open(ctx, Listed{Image: p.Name, Auth: p.Auth, Insecure: p.Insecure})
	if err != nil {
		return target, err
	}
	from.o = o
	explain := func(err error) error { return registry.Explain("pull "+from.ref.Familiar(), from.ref.Domain, err) }
	if err := from.manifestHere(ctx, target); err != nil {
		return target, explain(err)
	}
	if !a.S.isArtifact(ctx, target) {
		return target, fmt.Errorf("pull %s: it is an image: use `wherry pull`: %w", from.ref.Familiar(), errdefs.ErrInvalidArgument)
	}
	if m, err := a.S.manifest(ctx, target); err != nil {
		return target, err
	} else if _, err := titled(m); err != nil {
		return target, fmt.Errorf("pull %s: %w", from.ref.Familiar(), err)
	}
	o.say(tagOrDigest(from.ref), "Pulling from %s", from.ref.FamiliarRepository())
	if err := from.admit(ctx, target, target); err != nil {
		return target, err
	}
	if err := from.tree(ctx, target); err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return target, fmt.Errorf("pull %s: the registry has the artifact, but not all of its parts: %w", from.ref.Familiar(), err)
		}
		return target, explain(err)
	}
	if err := (provenance{a.S.store}).from(ctx, from.ref, target); err != nil {
		return target, err
	}
	if err := a.S.name(ctx, from.ref.String(), target); err != nil {
		return target, err
	}
	o.say("", "Digest: %s", target.Digest)
	return target, nil
}

// Push sends a list, and those of the images in it that the repository has not: what is not here comes from where it was found.
func (l Lists) Push(ctx context.Context, name string, to Place, o TransferOptions) (digest.Digest, error) {
	ctx, done, err := l.S.lease(ctx)
	if err != nil {
		return "", err
	}
	defer Manifests{l.S}.free(ctx, done)
	var r ref.Reference
	img, err := takeHold(ctx, l.S, func(ctx context.Context) (img images.Image, err error) {
		if r, _, err = l.find(ctx, name); err == nil {
			img, err = l.S.images.Get(ctx, r.String())
		}
		return img, err
	})
	if err != nil {
		return "", err
	}
	if to.Name == "" {
		to.Name = r.String()
	}
	m := Manifests{l.S}
	c, err := m.copyTo(ctx, to, &o)
	if err != nil {
		return "", err
	}
	c.from = func(ctx context.Context, d ocispec.Descriptor) (*pull, error) { return m.source(ctx, d, to) }
	if err := c.tagged(ctx, img.Target); err != nil {
		return "", err
	}
	return img.Target.Digest, nil
}

// source is where a manifest's parts come from: the store, or the repository where it was found.
func (m Manifests) source(ctx context.Context, d ocispec.Descriptor, like Place) (*pull, error) {
	here := &pull{s: m.S}
	r, known := origin(ctx, m.S.store, d.Digest)
	if !known || m.S.complete(ctx, d) {
		return here, nil
	}
	from := Place{Name: r.String()}
	if dest, err := ref.Parse(like.Name); err == nil && dest.Domain == r.Domain {
		from.Auth, from.Insecure = like.Auth, like.Insecure
	}
	c, err := m.client(ctx, from)
	if err != nil {
		return nil, err
	}
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return nil, registry.Explain("pull "+r.Familiar(), r.Domain, err)
	}
	return &pull{s: m.S, ref: r, fetcher: fetcher}, nil
}
