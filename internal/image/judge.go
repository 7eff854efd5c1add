package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/policy"
	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// JudgeOptions of JudgeByPolicy.
type JudgeOptions struct {
	Policy   string // a file that is tried out; "": the one that holds
	As       string // the name that a container of the image was made by; "": the one it is asked for by
	Registry bool   // judge what the name means at its registry; false: here, and there only when it is not here
	Platform *ocispec.Platform
	Auth     *registrytypes.AuthConfig
}

// PolicyOf is the policy in file, or for "" the one that holds. errdefs.ErrNotFound where there is none.
func PolicyOf(s *Service, file string) (*policy.Policy, error) {
	if file != "" {
		p, err := policy.Read(file)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return p, nil
	}
	p, err := s.gate.policy()
	if err == nil && p == nil {
		err = fmt.Errorf("there is no policy: every image is accepted. Write one to %s, or name one: %w", policy.Path, errdefs.ErrNotFound)
	}
	return p, err
}

// JudgeByPolicy says what would happen to an image that is pulled and run. Nothing is pulled but manifests and signatures, and nothing of the
// answer is kept. A refusal is no error.
func JudgeByPolicy(ctx context.Context, s *Service, name string, o JudgeOptions) (Judgement, error) {
	p, err := PolicyOf(s, o.Policy)
	if err != nil {
		return Judgement{}, err
	}
	var j Judgement
	img, err := s.Resolve(ctx, name, o.Platform)
	switch {
	case err == nil && !o.Registry:
		if r, err := ref.Parse(o.As); err == nil && !isFullID(o.As) {
			img.Ref = r.String()
		}
		j, err = s.gate.judgeLocal(in(ctx), p, img, true)
	case err == nil, errdefs.IsNotFound(err):
		j, err = o.there(ctx, s, p, name)
	}
	if err != nil && !isRefusal(err) {
		return j, err
	}
	j.Image = name
	return j, nil
}

func (o JudgeOptions) there(ctx context.Context, s *Service, p *policy.Policy, name string) (Judgement, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return Judgement{}, err
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return Judgement{}, err
	}
	defer done()
	c := s.registries.Client(ctx, r, o.Auth)
	explain := func(err error) error { return registry.Explain("check "+r.Familiar(), r.Domain, err) }
	target, err := c.Resolve(ctx)
	if err != nil {
		return Judgement{}, explain(err)
	}
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return Judgement{}, explain(err)
	}
	manifest, err := (&pull{s: s, o: TransferOptions{Platform: o.Platform}, ref: r, fetcher: fetcher, client: c}).manifest(ctx, target, 0)
	if err != nil {
		return Judgement{}, explain(err)
	}
	q := suspect{ref: r, parts: []ocispec.Descriptor{target}, client: c, dry: true}
	if manifest.Digest != target.Digest {
		q.parts = append(q.parts, manifest)
	}
	return s.gate.judge(ctx, p, &q)
}

// identity is where an image came from, and who is known to have signed it, by the policy that holds.
func (g *gate) identity(ctx context.Context, id digest.Digest) *image.Identity {
	info, err := g.st.content.Info(ctx, id)
	if err != nil {
		return nil
	}
	p, _ := g.policy()
	var out image.Identity
	seen := map[string]bool{}
	for key, value := range info.Labels {
		switch {
		case strings.HasPrefix(key, labelFrom):
			if r, err := ref.Parse(value); err == nil {
				out.Pull = append(out.Pull, image.PullIdentity{Repository: r.Name()})
			}
		case strings.HasPrefix(key, labelVerdict) && p != nil:
			var v passed
			if json.Unmarshal([]byte(value), &v) != nil || v.Hash != p.Hash {
				continue
			}
			for _, by := range v.By {
				if !seen[by] {
					seen[by] = true
					out.Signature = append(out.Signature, image.SignatureIdentity{Name: "signed by " + by})
				}
			}
		}
	}
	if out.Pull == nil && out.Signature == nil {
		return nil
	}
	return &out
}
