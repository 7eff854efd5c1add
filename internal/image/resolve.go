package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
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
	img, err := s.find(ctx, name)
	if errdefs.IsNotFound(err) && isHello(name) {
		img, err = s.makeHello(ctx)
	} else if err == nil && isHello(name) && s.helloIsOld(ctx, img) {
		img, err = s.makeHello(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.resolve(ctx, img, name, platform)
}

func (s *Service) resolve(ctx context.Context, img images.Image, name string, platform *ocispec.Platform) (*Image, error) {
	key := resolvedKey{target: img.Target.Digest}
	if platform != nil {
		key.platform = platforms.FormatAll(*platform)
	}
	s.mu.Lock()
	known := s.resolved[key]
	s.mu.Unlock()
	if known == nil {
		var err error
		if known, err = s.load(ctx, img, platform); err != nil {
			return nil, err
		}
	}
	lower, err := s.unpack(ctx, known.Manifest, nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.resolved[key] = known
	s.mu.Unlock()
	out := *known
	out.Lower = lower
	if !isID(name) {
		out.Ref = img.Name
	}
	return &out, nil
}

// matcher chooses a platform's image: the host's, or just the one asked for.
func matcher(platform *ocispec.Platform) platforms.MatchComparer {
	if platform == nil {
		return platforms.DefaultStrict()
	}
	return platforms.OnlyStrict(platforms.Normalize(*platform))
}

// load reads a platform's manifest and config.
func (s *Service) load(ctx context.Context, img images.Image, platform *ocispec.Platform) (*Image, error) {
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
	m, err := images.Manifest(ctx, s.content, manifest, nil)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", manifest.Digest, err)
	}
	b, err := content.ReadBlob(ctx, s.content, m.Config)
	if err != nil {
		return nil, fmt.Errorf("read config of %s: %w", img.Name, err)
	}
	if err := json.Unmarshal(b, &out.Config); err != nil {
		return nil, fmt.Errorf("config of %s: %w: %w", img.Name, err, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// manifestFor finds the best manifest whose content is here.
func (s *Service) manifestFor(ctx context.Context, target ocispec.Descriptor, m platforms.MatchComparer) (ocispec.Descriptor, error) {
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
func (s *Service) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if images.IsManifestType(target.MediaType) {
		return s.withPlatform(ctx, target)
	}
	if !images.IsIndexType(target.MediaType) {
		return nil, fmt.Errorf("%s is of type %s, not an image: %w", target.Digest, target.MediaType, errdefs.ErrInvalidArgument)
	}
	children, err := images.Children(ctx, s.content, target)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", target.Digest, err)
	}
	var out []ocispec.Descriptor
	for _, c := range children {
		if c.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation
		}
		if _, err := s.content.Info(ctx, c.Digest); err != nil {
			continue
		}
		more, err := s.manifests(ctx, c)
		if err == nil {
			out = append(out, more...)
		}
	}
	return out, nil
}

func (s *Service) withPlatform(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if d.Platform != nil {
		return []ocispec.Descriptor{d}, nil
	}
	m, err := images.Manifest(ctx, s.content, d, nil)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	p, err := images.ConfigPlatform(ctx, s.content, m.Config)
	if err != nil {
		return nil, fmt.Errorf("read the platform of %s: %w", d.Digest, err)
	}
	d.Platform = &p
	return []ocispec.Descriptor{d}, nil
}

func (s *Service) wrongPlatform(ctx context.Context, img images.Image, want ocispec.Platform) error {
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
func (s *Service) find(ctx context.Context, name string) (images.Image, error) {
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

func (s *Service) byReference(ctx context.Context, r ref.Reference) (images.Image, error) {
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
		if img.Target.Digest == r.Digest && strings.HasPrefix(img.Name, r.Name()) {
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

func (s *Service) byID(ctx context.Context, name string) (images.Image, error) {
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

// Acquire notes that a container uses an image: its layers are neither removed nor collected. In memory; re-acquired at start.
func (s *Service) Acquire(_ context.Context, id digest.Digest, manifest digest.Digest, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[containerID] = use{id, manifest}
	return nil
}

// Release takes a container's claim back.
func (s *Service) Release(_ context.Context, containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, containerID)
}

// userOf names a container that uses an image, "" for none.
func (s *Service) userOf(id digest.Digest) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for container, u := range s.users {
		if u.id == id {
			return container
		}
	}
	return ""
}
