package build

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/util/resolver"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/image"
)

// imageSource finds images as package image does: those that are here, and else by a pull of its own. BuildKit's source then finds all of it
// in the store.
type imageSource struct {
	*containerimage.Source
	images *image.Service
	bases  bases
}

// found is an image store of one image.
type found struct {
	images.Store
	target ocispec.Descriptor
}

func (f found) Get(_ context.Context, name string) (images.Image, error) {
	return images.Image{Name: name, Target: f.target}, nil
}

// here is BuildKit's source with an image that has been found.
func (s *imageSource) here(target ocispec.Descriptor) (*containerimage.Source, error) {
	opt := s.SourceOpt
	opt.ImageStore = found{target: target}
	return containerimage.NewSource(opt)
}

// asked is an image that a build wants.
type asked struct {
	id   *containerimage.ImageIdentifier
	mode resolver.ResolveMode
	sm   *session.Manager
	job  solver.JobContext // nil: none
}

func (a *asked) group() session.Group {
	if a.job == nil {
		return nil
	}
	return a.job.Session()
}

// find pulls where it has to. An image of the store counts unless the build asks for a pull. What is found stays until the build is over.
func (s *imageSource) find(ctx context.Context, a asked) (ocispec.Descriptor, error) {
	if target, err := s.bases.get(a.id, a.job); target != nil {
		return *target, err
	}
	o := image.BaseOptions{Platform: a.id.Platform, Pull: a.mode == resolver.ResolveModeForcePull}
	pulls := false
	o.Auth = func(domain string) (*registrytypes.AuthConfig, error) {
		if !pulls {
			pulls = true
			done := progress.OneOff(ctx, "pull "+a.id.Reference.String())
			defer func() { _ = done(nil) }()
		}
		return login(ctx, a.sm, a.group(), domain)
	}
	target, release, err := image.Base(ctx, s.images, a.id.Reference.String(), o)
	if err != nil {
		return target, err
	}
	return target, s.bases.keep(a.id, target, a.job, release)
}

// login asks the client for its login at a registry.
func login(ctx context.Context, sm *session.Manager, g session.Group, domain string) (*registrytypes.AuthConfig, error) {
	if g == nil {
		return nil, nil
	}
	host := domain
	if domain == "docker.io" {
		host = "registry-1.docker.io" // so BuildKit's clients call it
	}
	_, user, secret, err := auth.CredentialsFunc(ctx, sm, g)(host)
	if err != nil || secret == "" {
		return nil, nil //nolint:nilerr // a client without logins, or without a session: the registry says whether it wants one
	}
	c := &registrytypes.AuthConfig{ServerAddress: domain, Username: user, Password: secret}
	if user == "" {
		c.Password, c.IdentityToken = "", secret
	}
	return c, nil
}

// Resolve makes a step of a build out of an image.
func (s *imageSource) Resolve(_ context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	i, ok := id.(*containerimage.ImageIdentifier)
	if !ok {
		return nil, errors.New("this is no image")
	}
	return &imageStep{s: s, id: i, sm: sm, vtx: vtx}, nil
}

// imageStep is an image in a build.
type imageStep struct {
	s     *imageSource
	id    *containerimage.ImageIdentifier
	sm    *session.Manager
	vtx   solver.Vertex
	inner source.SourceInstance
}

// CacheKey finds the image first.
func (i *imageStep) CacheKey(ctx context.Context, job solver.JobContext, index int) (key, pin string, opts solver.CacheOpts, done bool, err error) {
	if i.inner == nil {
		target, err := i.s.find(ctx, asked{id: i.id, mode: i.id.ResolveMode, sm: i.sm, job: job})
		if err != nil {
			return "", "", nil, false, err
		}
		inner, err := i.s.here(target)
		if err != nil {
			return "", "", nil, false, err
		}
		id := *i.id
		id.ResolveMode = resolver.ResolveModePreferLocal
		if i.inner, err = inner.Resolve(ctx, &id, i.sm, i.vtx); err != nil {
			return "", "", nil, false, err
		}
	}
	return i.inner.CacheKey(ctx, job, index)
}

// Snapshot is the image's files.
func (i *imageStep) Snapshot(ctx context.Context, job solver.JobContext) (cache.ImmutableRef, error) {
	if i.inner == nil {
		return nil, errors.New("an image is read before it is found")
	}
	return i.inner.Snapshot(ctx, job)
}

// ResolveSourceMetadata tells frontends of a source before the build. Of images, the configuration.
func (w *builderWorker) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, job solver.JobContext) (*sourceresolver.MetaResponse, error) {
	platform := (*pb.Platform)(nil)
	if o := opt.ImageOpt; o != nil && o.Platform != nil {
		platform = &pb.Platform{Architecture: o.Platform.Architecture, OS: o.Platform.OS, Variant: o.Platform.Variant, OSVersion: o.Platform.OSVersion}
	}
	id, err := w.ParseSource(op, platform)
	if err != nil {
		return nil, err
	}
	i, ok := id.(*containerimage.ImageIdentifier)
	if !ok || opt.SourcePolicies != nil {
		return w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, job)
	}
	query := sourceresolver.ResolveImageOpt{}
	if opt.ImageOpt != nil {
		query = *opt.ImageOpt
	}
	a := asked{id: i, sm: sm, job: job}
	if a.mode, err = resolver.ParseImageResolveMode(query.ResolveMode); err != nil {
		return nil, err
	}
	target, err := w.images.find(ctx, a)
	if err != nil {
		return nil, err
	}
	here, err := w.images.here(target)
	if err != nil {
		return nil, err
	}
	query.ResolveMode = resolver.ResolveModePreferLocal.String()
	resp, err := here.ResolveImageMetadata(ctx, i, &query, sm, a.group())
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{Op: op, Image: resp}, nil
}

var _ source.Source = (*imageSource)(nil)
