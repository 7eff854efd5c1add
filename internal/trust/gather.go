package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/registry"
)

// Types of what signing tools leave at a registry.
const (
	typePayload  = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeBundle   = "application/vnd.dev.sigstore.bundle"
	typeNotation = "application/vnd.cncf.notary.signature"
)

// Gathering fetches what is said to be one digest's signatures, the newest first, some at a time.
type Gathering struct {
	fetcher *registry.Fetcher
	subject digest.Digest
	queue   map[evidence.Kind][]ocispec.Descriptor
	left    map[evidence.Kind]int64 // bytes that may yet be fetched
	room    int64                   // of them now
}

// Gather lists what is said to be d's signatures in c's repository. Nothing of it is verified. Of each kind the newest count that MaxTried are:
// whoever can put one into the repository can spoil none of the others, unless by very many.
func Gather(ctx context.Context, c *registry.Client, d digest.Digest) (*Gathering, error) {
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return nil, err
	}
	g := &Gathering{fetcher: fetcher, subject: d, queue: map[evidence.Kind][]ocispec.Descriptor{}, left: map[evidence.Kind]int64{}, room: evidence.MaxBlob}
	if err := g.classic(ctx, c); err != nil {
		return nil, fmt.Errorf("fetch the signatures of %s: %w", d, err)
	}
	list, err := fetcher.Referrers(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("list what refers to %s: %w", d, err)
	}
	for i := len(list) - 1; i >= 0; i-- {
		g.enqueue(kindOf(list[i].ArtifactType), list[i])
	}
	return g, nil
}

func (g *Gathering) enqueue(kind evidence.Kind, d ocispec.Descriptor) {
	if kind != "" && len(g.queue[kind]) < evidence.MaxTried {
		g.queue[kind], g.left[kind] = append(g.queue[kind], d), evidence.MaxFetched
	}
}

// Next fetches the next signatures, up to the limits of a request. One that is too large, or not whole, is as if it were not there. more says
// that there are others.
func (g *Gathering) Next(ctx context.Context) (out []evidence.Signature, more bool, err error) {
	fetched := map[digest.Digest][]byte{}
	for _, kind := range []evidence.Kind{evidence.Simple, evidence.Bundle, evidence.Notation} {
		room := min(evidence.MaxTotal/3, g.left[kind])
		g.room = room
		for n := 0; n < evidence.MaxSignatures && len(g.queue[kind]) > 0 && g.room >= 2*evidence.MaxBlob; n++ { // a manifest, and what it is of
			d := g.queue[kind][0]
			g.queue[kind] = g.queue[kind][1:]
			s, err := g.one(ctx, kind, d, fetched)
			if err != nil && !spoilt(err) {
				return nil, false, fmt.Errorf("fetch a signature of %s: %w", g.subject, err)
			}
			if err == nil {
				out = append(out, s)
			}
		}
		g.left[kind] -= room - g.room
		more = more || len(g.queue[kind]) > 0 && g.left[kind] >= 2*evidence.MaxBlob
	}
	return out, more, nil
}

func (g *Gathering) one(ctx context.Context, kind evidence.Kind, d ocispec.Descriptor, fetched map[digest.Digest][]byte) (s evidence.Signature, err error) {
	if kind != evidence.Simple {
		return g.referrer(ctx, d)
	}
	b, ok := fetched[d.Digest] // what is signed is often the same
	if !ok {
		if b, err = g.blob(ctx, d); err != nil {
			return s, err
		}
		fetched[d.Digest] = b
	}
	a := d.Annotations
	return evidence.Signature{Kind: evidence.Simple, Blob: b, Signature: a["dev.cosignproject.cosign/signature"],
		Certificate: a["dev.sigstore.cosign/certificate"], Chain: a["dev.sigstore.cosign/chain"], Log: a["dev.sigstore.cosign/bundle"]}, nil
}

// spoilt says that an error is about one signature, and not about the registry.
func spoilt(err error) bool { return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) }

func (g *Gathering) blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	b, err := g.fetcher.Small(ctx, d, min(evidence.MaxBlob, g.room))
	g.room -= int64(len(b))
	return b, err
}

func (g *Gathering) manifest(ctx context.Context, d ocispec.Descriptor) (m ocispec.Manifest, err error) {
	b, err := g.blob(ctx, d)
	if err != nil {
		return m, err
	}
	if err := registry.Bounded(b); err != nil {
		return m, fmt.Errorf("%s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

// classic reads cosign's tag beside the image: an image whose layers are payloads. The last ones are the newest.
func (g *Gathering) classic(ctx context.Context, c *registry.Client) error {
	target, err := c.Tagged(strings.Replace(g.subject.String(), ":", "-", 1) + ".sig").Resolve(ctx)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := g.manifest(ctx, target)
	if err != nil {
		return ignore(err)
	}
	for i := len(m.Layers) - 1; i >= 0; i-- {
		if m.Layers[i].MediaType == typePayload {
			g.enqueue(evidence.Simple, m.Layers[i])
		}
	}
	return nil
}

func ignore(err error) error {
	if spoilt(err) {
		return nil
	}
	return err
}

func kindOf(artifactType string) evidence.Kind {
	switch {
	case artifactType == typeNotation:
		return evidence.Notation
	case strings.HasPrefix(artifactType, typeBundle):
		return evidence.Bundle
	}
	return ""
}

// referrer reads a bundle or an envelope whose manifest names the image as its subject.
func (g *Gathering) referrer(ctx context.Context, d ocispec.Descriptor) (s evidence.Signature, err error) {
	m, err := g.manifest(ctx, d)
	if err != nil {
		return s, err
	}
	kind := kindOf(m.ArtifactType)
	if kind == "" {
		kind = kindOf(m.Config.MediaType)
	}
	if kind == "" || m.Subject == nil || m.Subject.Digest != g.subject || len(m.Layers) != 1 {
		return s, fmt.Errorf("%s is no signature of %s: %w", d.Digest, g.subject, errdefs.ErrInvalidArgument)
	}
	b, err := g.blob(ctx, m.Layers[0])
	return evidence.Signature{Kind: kind, Blob: b, MediaType: m.Layers[0].MediaType}, err
}

// errNone is what is wrong with an image that nobody has signed.
var errNone = errors.New("there is no signature")
