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

// gathering collects what is said to be one digest's signatures, up to the limits.
type gathering struct {
	fetcher *registry.Fetcher
	room    int64
	out     []evidence.Signature
}

// Gather fetches what is said to be d's signatures in c's repository. Nothing of it is verified. A signature that is too large, or not whole,
// is as if it were not there: whoever can put one into the repository can spoil none of the others.
func Gather(ctx context.Context, c *registry.Client, d digest.Digest) ([]evidence.Signature, error) {
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return nil, err
	}
	g := &gathering{fetcher: fetcher, room: evidence.MaxTotal / 2}
	if err := g.classic(ctx, c, d); err != nil {
		return nil, fmt.Errorf("fetch the signatures of %s: %w", d, err)
	}
	if err := g.referrers(ctx, d); err != nil {
		return nil, fmt.Errorf("list what refers to %s: %w", d, err)
	}
	return g.out, nil
}

// spoilt says that an error is about one signature, and not about the registry.
func spoilt(err error) bool { return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) }

func (g *gathering) blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	b, err := g.fetcher.Small(ctx, d, min(evidence.MaxBlob, g.room))
	g.room -= int64(len(b))
	return b, err
}

func (g *gathering) manifest(ctx context.Context, d ocispec.Descriptor) (m ocispec.Manifest, err error) {
	b, err := g.blob(ctx, d)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

// classic reads cosign's tag beside the image: an image whose layers are payloads. The last ones are the newest.
func (g *gathering) classic(ctx context.Context, c *registry.Client, d digest.Digest) error {
	target, err := c.Tagged(strings.Replace(d.String(), ":", "-", 1) + ".sig").Resolve(ctx)
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
	layers := m.Layers[max(0, len(m.Layers)-evidence.MaxSignatures):]
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		if l.MediaType != typePayload {
			continue
		}
		b, err := g.blob(ctx, l)
		if err != nil && !spoilt(err) {
			return err
		}
		if err != nil {
			continue
		}
		a := l.Annotations
		g.out = append(g.out, evidence.Signature{Kind: evidence.Simple, Blob: b, Signature: a["dev.cosignproject.cosign/signature"],
			Certificate: a["dev.sigstore.cosign/certificate"], Chain: a["dev.sigstore.cosign/chain"], Log: a["dev.sigstore.cosign/bundle"]})
	}
	return nil
}

func ignore(err error) error {
	if spoilt(err) {
		return nil
	}
	return err
}

// referrers reads bundles and envelopes whose manifests name the image as their subject.
func (g *gathering) referrers(ctx context.Context, d digest.Digest) error {
	list, err := g.fetcher.Referrers(ctx, d)
	if err != nil {
		return err
	}
	count := map[evidence.Kind]int{}
	for i := len(list) - 1; i >= 0; i-- {
		kind := kindOf(list[i].ArtifactType)
		if kind == "" || count[kind] == evidence.MaxSignatures {
			continue
		}
		count[kind]++
		if err := g.referrer(ctx, d, list[i]); err != nil && !spoilt(err) {
			return err
		}
	}
	return nil
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

func (g *gathering) referrer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor) error {
	m, err := g.manifest(ctx, d)
	if err != nil {
		return err
	}
	kind := kindOf(m.ArtifactType)
	if kind == "" {
		kind = kindOf(m.Config.MediaType)
	}
	if kind == "" || m.Subject == nil || m.Subject.Digest != subject || len(m.Layers) != 1 {
		return fmt.Errorf("%s is no signature of %s: %w", d.Digest, subject, errdefs.ErrInvalidArgument)
	}
	b, err := g.blob(ctx, m.Layers[0])
	if err != nil {
		return err
	}
	g.out = append(g.out, evidence.Signature{Kind: kind, Blob: b, MediaType: m.Layers[0].MediaType})
	return nil
}

// errNone is what is wrong with an image that nobody has signed.
var errNone = errors.New("there is no signature")
