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
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/room"
)

// allTags puts in the place of a repository all of its tags that are here.
func (s *store) allTags(ctx context.Context, names []string) ([]string, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []string
	for _, name := range names {
		r, err := ref.Parse(name)
		if err != nil || isID(name) || strings.ContainsAny(name[strings.LastIndexByte(name, '/')+1:], ":@") {
			out = append(out, name)
			continue
		}
		found := false
		for _, img := range list {
			if strings.HasPrefix(img.Name, r.Name()+":") {
				out, found = append(out, img.Name), true
			}
		}
		if !found {
			out = append(out, name)
		}
	}
	return out, nil
}

// Load reads a docker-archive or an OCI layout, plain or compressed, and names and unpacks what is in it.
func (s *Service) Load(ctx context.Context, r io.Reader, o TransferOptions) error {
	held, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	err = (&loading{s, o}).all(held, r)
	done()
	if err != nil {
		// Nothing stays of an archive that was not taken whole.
		if cleaned := s.sweep(context.WithoutCancel(ctx)); cleaned != nil {
			err = errors.Join(err, cleaned)
		}
		return fmt.Errorf("load: %w", err)
	}
	compactAfter(ctx, s, o)
	return nil
}

// loading is one Load.
type loading struct {
	*Service
	o TransferOptions
}

func (s *loading) all(ctx context.Context, r io.Reader) error {
	plain, err := fslayer.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	a := newArchived(s.blobs)
	list, err := a.read(ctx, plain)
	switch {
	case err == nil:
	case room.Lacks(err):
		return s.explainFull(err)
	case ctx.Err() != nil, isReadOnly(err):
		return err
	default:
		return fmt.Errorf("the archive is neither of `docker save` nor an OCI layout, or not whole: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // the sender may still be writing the padding
		return err
	}
	loaded := 0
	for _, d := range list {
		taken, err := s.one(ctx, d)
		if err != nil {
			return err
		}
		if taken {
			loaded++
		}
	}
	if loaded == 0 {
		return fmt.Errorf("the archive holds no image: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// one names and unpacks one entry of an archive; false: it is neither image nor artifact.
func (s *loading) one(ctx context.Context, d ocispec.Descriptor) (taken bool, err error) {
	if !isManifest(d) || attests(d) {
		return false, nil
	}
	name := archivedName(d)
	var r ref.Reference
	if name != "" {
		if r, err = ref.Parse(name); err != nil {
			return false, err
		}
	}
	if err := s.labelTree(ctx, d); err != nil {
		return false, err
	}
	if err := s.gate.admitBrought(ctx, d, name); err != nil {
		return false, err
	}
	what := "image"
	if s.isArtifact(ctx, d) {
		what = "artifact"
		if !s.complete(ctx, d) {
			return false, fmt.Errorf("artifact %s is not whole: the archive lacks some of its files: %w", d.Digest, errdefs.ErrInvalidArgument)
		}
	} else if err := s.unpackWanted(ctx, d); err != nil {
		return false, err
	}
	if err := (provenance{s.Service.store}).made(ctx, d); err != nil {
		return false, err
	}
	if name == "" {
		if err := s.nameless(ctx, d); err != nil {
			return false, err
		}
		s.o.say("", "Loaded %s ID: %s\n", what, d.Digest)
		return true, nil
	}
	if err := s.name(ctx, r.String(), d); err != nil {
		return false, err
	}
	s.o.say("", "Loaded %s: %s\n", what, r.Familiar())
	tell(ctx, s.Service, d, happening{events.ActionLoad, d.Digest.String(), r.Familiar()})
	return true, nil
}

// unpackWanted unpacks this machine's platform, or those that are asked for, and lets go of the others then. At least one must be in the
// archive as a whole.
func (s *loading) unpackWanted(ctx context.Context, d ocispec.Descriptor) error {
	list, err := s.st.manifests(ctx, d)
	if err != nil {
		return err
	}
	asked := slices.Clone(s.o.Platforms)
	if s.o.Platform != nil {
		asked = append(asked, *s.o.Platform)
	}
	wanted := func(p ocispec.Platform) bool {
		if len(asked) == 0 {
			return matcher(nil).Match(p)
		}
		return matchesAny(asked, p)
	}
	whole, found := 0, 0
	var others []ocispec.Descriptor
	for _, m := range list {
		if !s.complete(ctx, m) {
			continue
		}
		whole++
		if !wanted(*m.Platform) {
			others = append(others, m)
			continue
		}
		found++
		if _, err := s.unpack(ctx, m, nil); err != nil {
			return err
		}
	}
	switch {
	case whole == 0:
		return fmt.Errorf("image %s is not whole: the archive lacks some of its layers: %w", d.Digest, errdefs.ErrInvalidArgument)
	case len(asked) > 0 && found == 0:
		return fmt.Errorf("image %s is not in the archive for %s: %w", d.Digest, platforms.Format(asked[0]), errNoPlatform)
	case len(asked) > 0:
		return s.letGo(ctx, d, others)
	}
	return nil
}

// nameless keeps an image that the archive gives no name, unless it has one already.
func (s *store) nameless(ctx context.Context, d ocispec.Descriptor) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	if _, err := s.entryOf(ctx, d.Digest); !errdefs.IsNotFound(err) {
		return err
	}
	return s.nameLocked(ctx, d.Digest.String(), d)
}

func archivedName(d ocispec.Descriptor) string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		if name := d.Annotations[key]; name != "" && (key == images.AnnotationImageName || !isTagOnly(name)) {
			return name
		}
	}
	return ""
}

// isTagOnly: an OCI layout's ref.name is often just a tag, which names no repository.
func isTagOnly(name string) bool {
	for _, c := range name {
		if c == '/' || c == ':' {
			return false
		}
	}
	return true
}
