package image

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/policy"
)

// admit is an error where the policy does not let manifests be brought here that a registry has, each as what it is or a part of target.
func (p *pull) admit(ctx context.Context, target ocispec.Descriptor, manifests ...ocispec.Descriptor) error {
	g := p.s.gate
	rules, err := g.policy()
	if err != nil || rules == nil {
		return err
	}
	q := suspect{ref: p.ref, parts: []ocispec.Descriptor{target}, client: p.client}
	if len(manifests) != 1 { // what holds for all of it need not be asked for each
		j, err := g.judge(ctx, rules, &q)
		if err == nil || j.Action != string(policy.Signed) || len(manifests) == 0 {
			return p.admitted(&q, j, err)
		}
	}
	var last Judgement
	for _, m := range manifests {
		q.parts = q.parts[:1:1]
		if m.Digest != target.Digest {
			q.parts = append(q.parts, m)
		}
		if last, err = g.judge(ctx, rules, &q); err != nil {
			break
		}
	}
	return p.admitted(&q, last, err)
}

// admitted tells what was found.
func (p *pull) admitted(q *suspect, j Judgement, err error) error {
	switch {
	case err != nil:
		p.s.gate.tell(q, j, err)
	case j.Action == string(policy.Signed):
		p.o.say("", "Signed by %s", strings.Join(j.SignedBy, ", "))
	}
	return err
}

// admitAll does so for d, which is target or a part of it: for an index, with all that it lists.
func (p *pull) admitAll(ctx context.Context, target, d ocispec.Descriptor) error {
	if !images.IsIndexType(d.MediaType) {
		return p.admit(ctx, target, d)
	}
	list, err := p.s.index(ctx, d)
	if err != nil {
		return err
	}
	return p.admit(ctx, target, meant(list)...)
}

// meant are an index's entries that are no attestations.
func meant(list []ocispec.Descriptor) (out []ocispec.Descriptor) {
	for _, d := range list {
		if !attests(d) {
			out = append(out, d)
		}
	}
	return out
}

// admitBrought is an error where the policy does not let an image be taken that a file brings. It is judged as it will be when it is run: as
// what a registry has given, where one has, else as one of this machine that is known as that.
func (g *gate) admitBrought(ctx context.Context, target ocispec.Descriptor, as string) error {
	rules, err := g.policy()
	if err != nil || rules == nil {
		return err
	}
	manifests := []ocispec.Descriptor{target}
	if images.IsIndexType(target.MediaType) {
		list, err := g.st.index(ctx, target)
		if err != nil {
			return err
		}
		manifests = slices.DeleteFunc(meant(list), func(d ocispec.Descriptor) bool { return !g.st.here(ctx, d) })
	}
	for _, m := range manifests {
		parts := []ocispec.Descriptor{target}
		if m.Digest != target.Digest {
			parts = append(parts, m)
		}
		names := provenance{g.st}.candidates(ctx, parts, as)
		if !g.st.fromRegistry(ctx, parts) {
			for i := range names {
				names[i].local = true
			}
		}
		if _, err := g.judgeAny(ctx, rules, names, suspect{parts: parts}); err != nil {
			return err
		}
	}
	return nil
}

// fromRegistry says that a registry has given an image, or the index that it was found in.
func (s *blobs) fromRegistry(ctx context.Context, parts []ocispec.Descriptor) bool {
	return slices.ContainsFunc(parts, func(d ocispec.Descriptor) bool {
		info, err := s.content.Info(ctx, d.Digest)
		return err == nil && came(info.Labels)
	})
}
