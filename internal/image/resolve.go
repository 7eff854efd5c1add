package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// Resolve finds a local image by reference, id or unique id prefix and sees to it that it is unpacked. A nil platform means the host's.
// errdefs.ErrNotFound with Docker's text "No such image: …"; a wrong platform is ErrNotFound too, naming both platforms.
// It is on the path of `run`: warm, it reads the database's pages and memory only.
func (s *Service) Resolve(ctx context.Context, name string, platform *ocispec.Platform) (*Image, error) {
	ctx = in(ctx)
	img, err := s.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.resolve(ctx, img, name, platform)
}

// Means is the digest of what a name means here: an index or a manifest. It reads names only.
func (s *store) Means(ctx context.Context, name string) (digest.Digest, error) {
	img, err := s.find(in(ctx), name)
	return img.Target.Digest, err
}

// lookup finds an image by what people write, and sees to the built-in one.
func (s *Service) lookup(ctx context.Context, name string) (images.Image, error) {
	img, err := s.find(ctx, name)
	if !isHello(name) || err != nil && !errdefs.IsNotFound(err) {
		return img, err
	}
	if err == nil && !s.builtIn.isOld(img) {
		return img, nil
	}
	return s.builtIn.make(ctx)
}

func (s *Service) resolve(ctx context.Context, img images.Image, name string, platform *ocispec.Platform) (*Image, error) {
	key := resolvedKey{target: img.Target.Digest}
	if platform != nil {
		key.platform = platforms.FormatAll(*platform)
	}
	s.mu.Lock()
	known, ok := s.resolved[key]
	sweeps := s.sweeps
	s.mu.Unlock()
	if !ok {
		loaded, err := s.load(ctx, img, platform)
		if err == nil {
			err = present(ctx, s, loaded, img.Name)
		}
		if err != nil {
			return nil, err
		}
		if loaded.Lower, err = s.unpack(ctx, loaded.Manifest, nil); err != nil {
			return nil, fmt.Errorf("image %s: %w", familiar(img.Name), err)
		}
		known = *loaded
		s.mu.Lock()
		if s.sweeps == sweeps { // else its layers may have been collected since
			s.resolved[key] = known
		}
		s.mu.Unlock()
	}
	lower, err := s.Mounted(known.Lower) // somebody may have unmounted them
	if err != nil {
		s.forgetLayers()
		return nil, fmt.Errorf("image %s: %w", familiar(img.Name), err)
	}
	known.Lower, known.Ref = lower, refOf(img, name)
	return &known, nil
}

// refOf is the reference by which an image was found, "" for an id. Where a digest was written it is that, and no tag that means the same.
func refOf(img images.Image, name string) string {
	if isFullID(img.Name) || isID(name) && strings.HasPrefix(img.Target.Digest.Encoded(), strings.TrimPrefix(name, "sha256:")) {
		return ""
	}
	if r, err := ref.Parse(name); err == nil && r.Digest != "" {
		return r.String()
	}
	return img.Name
}

// forgetLayers drops what is remembered of layers that may now be collected.
func (s *Service) forgetLayers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.resolved)
	s.sweeps++
	s.layers.forget()
}

// sweep frees what nothing refers to. What is remembered of layers is forgotten before, for those who ask now, and after, since some may
// have asked in between.
func (s *Service) sweep(ctx context.Context) error {
	s.forgetLayers()
	defer s.forgetLayers()
	if err := s.collect(ctx); err != nil {
		return err
	}
	return dropArtifactDirs(ctx, s.store)
}

// matcher chooses a platform's image: the host's, or just the one asked for.
func matcher(platform *ocispec.Platform) platforms.MatchComparer {
	if platform == nil {
		return platforms.DefaultStrict()
	}
	return platforms.OnlyStrict(platforms.Normalize(*platform))
}

// load reads a platform's manifest and config.
func (s *store) load(ctx context.Context, img images.Image, platform *ocispec.Platform) (*Image, error) {
	manifest, err := s.manifestFor(ctx, img.Target, matcher(platform))
	if errdefs.IsNotFound(err) && platform == nil {
		// Whatever there is, when it is one of a kind that this machine can say something about.
		return nil, s.wrongPlatform(ctx, img, platforms.DefaultSpec())
	}
	if errdefs.IsNotFound(err) {
		return nil, s.wrongPlatform(ctx, img, *platform)
	}
	if err != nil {
		return nil, err
	}
	out := &Image{ID: img.Target.Digest, Manifest: manifest}
	m, err := s.manifest(ctx, manifest)
	if err != nil {
		return nil, err
	}
	if err := s.readJSON(ctx, m.Config, &out.Config); err != nil {
		return nil, fmt.Errorf("read config of %s: %w", familiar(img.Name), err)
	}
	return out, nil
}

// manifestFor finds the best manifest whose content is here.
func (s *blobs) manifestFor(ctx context.Context, target ocispec.Descriptor, m platforms.MatchComparer) (ocispec.Descriptor, error) {
	list, err := s.manifests(ctx, target)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var best *ocispec.Descriptor
	for i, d := range list {
		if d.Platform == nil || !m.Match(*d.Platform) {
			continue
		}
		if best == nil || m.Less(*d.Platform, *best.Platform) {
			best = &list[i]
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, errdefs.ErrNotFound
	}
	return *best, nil
}

// manifests lists the image manifests below a target that are here whole enough to be read, each with its platform.
func (s *blobs) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if images.IsManifestType(target.MediaType) {
		return s.withPlatform(ctx, target)
	}
	if !images.IsIndexType(target.MediaType) {
		return nil, fmt.Errorf("%s is of type %s, not an image: %w", target.Digest, target.MediaType, errdefs.ErrInvalidArgument)
	}
	var out []ocispec.Descriptor
	err := s.walk(ctx, target, func(d ocispec.Descriptor) error {
		switch {
		case d.Digest == target.Digest:
			return nil
		case attests(d), !isManifest(d), !s.here(ctx, d):
			return errBelow
		case images.IsIndexType(d.MediaType):
			if _, err := s.document(ctx, d); err != nil {
				return errBelow
			}
			return nil
		}
		if list, err := s.withPlatform(ctx, d); err == nil {
			out = append(out, list...)
		}
		return errBelow
	})
	return out, err
}

func (s *blobs) withPlatform(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if d.Platform != nil {
		return []ocispec.Descriptor{d}, nil
	}
	m, err := s.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return nil, notImage(d, m)
	}
	var config ocispec.Image
	if err := s.readJSON(ctx, m.Config, &config); err != nil {
		return nil, fmt.Errorf("read the platform of %s: %w", d.Digest, err)
	}
	p := platforms.Normalize(config.Platform)
	d.Platform = &p
	return []ocispec.Descriptor{d}, nil
}

// notImage says what an artifact is, to who takes it for an image.
func notImage(d ocispec.Descriptor, m ocispec.Manifest) error {
	return fmt.Errorf("%s is an artifact of type %q, not a container image: see it with `wherry artifact inspect`: %w",
		d.Digest, artifactType(m), errdefs.ErrInvalidArgument)
}

func (s *store) wrongPlatform(ctx context.Context, img images.Image, want ocispec.Platform) error {
	var have []string
	if list, err := s.manifests(ctx, img.Target); err == nil {
		for _, d := range list {
			have = append(have, platforms.Format(*d.Platform))
		}
	}
	return fmt.Errorf("image with reference %s was found but does not provide the specified platform: wanted %s, it has %s: %w",
		familiar(img.Name), platforms.Format(want), strings.Join(have, ", "), errdefs.ErrNotFound)
}

// find looks an image up by reference, or by id.
func (s *store) find(ctx context.Context, name string) (images.Image, error) {
	if r, err := ref.Parse(name); err == nil && !isFullID(name) {
		if img, err := s.byReference(ctx, r); err == nil || !errdefs.IsNotFound(err) {
			return img, err
		}
	} else if !isID(name) {
		return images.Image{}, err
	}
	if isID(name) {
		if img, err := s.byID(ctx, name); err == nil || !errdefs.IsNotFound(err) {
			return img, err
		}
	}
	return images.Image{}, fmt.Errorf("No such image: %s: %w", withTag(name), errdefs.ErrNotFound) //nolint:staticcheck // Docker's words
}

func withTag(name string) string {
	if r, err := ref.Parse(name); err == nil && !isFullID(name) {
		return r.Familiar()
	}
	return name
}

func (s *store) byReference(ctx context.Context, r ref.Reference) (images.Image, error) {
	img, err := s.images.Get(ctx, r.String())
	if err == nil || r.Digest == "" {
		return img, err
	}
	// name@digest also means any of the name's images with that digest.
	list, err := s.images.List(ctx)
	if err != nil {
		return images.Image{}, err
	}
	for _, img := range list {
		if img.Target.Digest == r.Digest && (strings.HasPrefix(img.Name, r.Name()+":") || strings.HasPrefix(img.Name, r.Name()+"@")) {
			return img, nil
		}
	}
	return images.Image{}, errdefs.ErrNotFound
}

func isFullID(name string) bool { return digest.Digest(name).Validate() == nil }

// isID says whether a name could be (the beginning of) an id.
func isID(name string) bool {
	hex := strings.TrimPrefix(name, "sha256:")
	if len(hex) < 3 || len(hex) > 64 {
		return false
	}
	return strings.Trim(hex, "0123456789abcdef") == ""
}

func (s *store) byID(ctx context.Context, name string) (images.Image, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return images.Image{}, err
	}
	var found *images.Image
	for i, img := range list {
		if !strings.HasPrefix(img.Target.Digest.Encoded(), strings.TrimPrefix(name, "sha256:")) {
			continue
		}
		if found != nil && found.Target.Digest != img.Target.Digest {
			return images.Image{}, fmt.Errorf("image id %s is ambiguous: write more digits: %w", name, errdefs.ErrInvalidArgument)
		}
		found = &list[i]
	}
	if found == nil {
		return images.Image{}, errdefs.ErrNotFound
	}
	return *found, nil
}

func familiar(name string) string {
	if r, err := ref.Parse(name); err == nil {
		return r.Familiar()
	}
	return name
}
