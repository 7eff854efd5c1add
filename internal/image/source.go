package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// maxNeighbours is how many images of a registry are looked at for blobs that it has.
const maxNeighbours = 200

// origins remember which repositories content comes from.
type origins struct{ *store }

// note notes of all content below target that r's repository has it, as containerd does: by labels. A push to another repository of
// the registry can have it lent from there.
func (s origins) note(ctx context.Context, r ref.Reference, target ocispec.Descriptor) error {
	key := originLabel(r.Domain)
	for _, d := range s.below(ctx, target) {
		known := s.of(ctx, r.Domain, d.Digest)
		if slices.Contains(known, r.Path) {
			continue // a write for nothing
		}
		known = append(known, r.Path)
		for labels.Validate(key, strings.Join(known, ",")) != nil && len(known) > 1 {
			known = known[1:]
		}
		// Not all in one transaction: the content store locks itself before it begins one.
		info := content.Info{Digest: d.Digest, Labels: map[string]string{key: strings.Join(known, ",")}}
		if _, err := s.content.Update(ctx, info, "labels."+key); unlessMissing(err) != nil {
			return fmt.Errorf("note where %s comes from: %w", r.Familiar(), err)
		}
	}
	return nil
}

// originLabel is containerd's, with the port that it leaves out: two registries of a host are two.
func originLabel(domain string) string { return labels.LabelDistributionSource + "." + domain }

// of gives the repositories of a registry that a blob is known to come from.
func (s origins) of(ctx context.Context, domain string, d digest.Digest) []string {
	info, err := s.content.Info(ctx, d)
	known := info.Labels[originLabel(domain)]
	if err != nil || known == "" {
		return nil
	}
	return strings.Split(known, ",")
}

// below lists the content that is here of a manifest or index and its parts.
func (s origins) below(ctx context.Context, d ocispec.Descriptor) []ocispec.Descriptor {
	if _, err := s.content.Info(ctx, d.Digest); err != nil {
		return nil
	}
	out := []ocispec.Descriptor{d}
	if images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType) {
		children, err := images.Children(ctx, s.content, d)
		if err != nil {
			return nil
		}
		for _, c := range children {
			out = append(out, s.below(ctx, c)...)
		}
	}
	return out
}

// lenders finds the repositories of r's registry that may have a blob: those that it is known to come from, and those of images here that
// have it too; first those of which both is true. That something was tagged and never pushed costs one question in vain.
func (s origins) lenders(ctx context.Context, r ref.Reference) func(digest.Digest) []string {
	neighbours := sync.OnceValue(func() map[digest.Digest][]string { return s.neighbours(ctx, r) })
	return func(d digest.Digest) []string {
		noted, named := s.of(ctx, r.Domain, d), neighbours()[d]
		var out []string
		add := func(from []string, other []string, both bool) {
			for _, repo := range from {
				if repo != r.Path && slices.Contains(other, repo) == both {
					out = append(out, repo)
				}
			}
		}
		slices.Reverse(noted) // what was noted last is the likeliest to be there still
		add(noted, named, true)
		add(noted, named, false)
		add(named, noted, false)
		return out
	}
}

func (s origins) neighbours(ctx context.Context, r ref.Reference) map[digest.Digest][]string {
	out := map[digest.Digest][]string{}
	list, err := s.images.List(ctx)
	if err != nil {
		return out
	}
	looked := 0
	for _, img := range list {
		other, err := ref.Parse(img.Name)
		if err != nil || other.Domain != r.Domain || other.Path == r.Path {
			continue
		}
		if looked++; looked > maxNeighbours {
			break
		}
		for _, d := range s.below(ctx, img.Target) {
			if !slices.Contains(out[d.Digest], other.Path) {
				out[d.Digest] = append(out[d.Digest], other.Path)
			}
		}
	}
	return out
}
