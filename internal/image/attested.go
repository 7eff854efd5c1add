package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// predicateLabel is where a layer of an attestation says what its statement states.
// https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
const predicateLabel = "in-toto.io/predicate-type"

// AttestationOptions of Attestations.
type AttestationOptions struct {
	Platform   *ocispec.Platform // nil: this machine's
	Types      []string          // of predicates; empty: all
	Statements bool              // whole, and not only what they are about
}

// Attestations lists what was stated of an image when it was built: where it came from, what is in it.
func Attestations(ctx context.Context, s *Service, name string, o AttestationOptions) ([]image.AttestationStatement, error) {
	ctx = in(ctx)
	found, err := s.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	img, err := s.load(ctx, found, o.Platform)
	if err != nil {
		return nil, err
	}
	out := []image.AttestationStatement{}
	err = s.walk(ctx, found.Target, func(d ocispec.Descriptor) error {
		switch {
		case !isManifest(d):
			return nil
		case !s.here(ctx, d):
			return errBelow
		case !attests(d) || attested(d) != img.Manifest.Digest:
			return nil
		}
		list, err := s.statements(ctx, d, o)
		out = append(out, list...)
		return err
	})
	return out, err
}

// statements are those of one attestation manifest.
func (s *blobs) statements(ctx context.Context, manifest ocispec.Descriptor, o AttestationOptions) ([]image.AttestationStatement, error) {
	m, err := s.manifest(ctx, manifest)
	if err != nil {
		return nil, err
	}
	var out []image.AttestationStatement
	for _, l := range m.Layers {
		kind := l.Annotations[predicateLabel]
		if kind == "" || len(o.Types) > 0 && !slices.Contains(o.Types, kind) {
			continue
		}
		one := image.AttestationStatement{Descriptor: l, PredicateType: kind}
		if o.Statements {
			if one.Statement, err = s.statement(ctx, l); err != nil {
				return nil, err
			}
		}
		out = append(out, one)
	}
	return out, nil
}

func (s *blobs) statement(ctx context.Context, d ocispec.Descriptor) (*json.RawMessage, error) {
	b, err := s.small(ctx, d)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("the attestation %s is not here: pull the image again: %w", d.Digest, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("the attestation %s is no JSON: %w", d.Digest, errdefs.ErrDataLoss)
	}
	raw := json.RawMessage(b)
	return &raw, nil
}
