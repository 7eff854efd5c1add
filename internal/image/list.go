package image

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ListOptions of List; filters have Docker's names (reference, dangling, label, label!, before, since, until).
type ListOptions struct {
	All, SharedSize, Manifests bool
	Identity                   bool // with Manifests: where those that are here came from, and who has signed them
	Filters                    map[string]map[string]bool
}

// List shows the images.
func (s *Service) List(ctx context.Context, o ListOptions) ([]image.Summary, error) {
	ctx = in(ctx)
	keep, err := s.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	list, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	sizes := make([]map[string]int64, len(list))
	times := map[string]int{} // how many images have a part
	for i, e := range list {
		if o.SharedSize || keep(e) {
			sizes[i] = s.parts(ctx, e.target)
		}
		for part := range sizes[i] {
			times[part]++
		}
	}
	out := []image.Summary{}
	for i, e := range list {
		if e.artifact || !keep(e) {
			continue
		}
		sum := summary(e, o.Filters["reference"])
		for part, size := range sizes[i] {
			sum.Size += size
			if o.SharedSize && times[part] > 1 {
				sum.SharedSize += size
			}
		}
		if o.SharedSize {
			sum.SharedSize++ // from -1, which says that nobody has looked
		}
		if o.Manifests {
			sum.Manifests = s.manifestSummaries(ctx, e.target, s.usersOf)
		}
		for i, m := range sum.Manifests {
			if o.Identity && m.Available && m.ImageData != nil {
				sum.Manifests[i].ImageData.Identity = s.gate.identity(ctx, e.target.Digest)
			}
		}
		out = append(out, sum)
	}
	return out, nil
}

func summary(e *entry, references map[string]bool) image.Summary {
	tags, digests := e.tagsAndDigests()
	target := e.target
	sum := image.Summary{ID: target.Digest.String(), RepoTags: matchingTags(tags, references), RepoDigests: matchingTags(digests, references), Labels: e.labels,
		SharedSize: -1, Containers: -1, Descriptor: &target}
	if !e.created.IsZero() {
		sum.Created = e.created.Unix()
	}
	return sum
}

// manifestSummaries shows the platforms of an image, those that are not here too.
func (l *layers) manifestSummaries(ctx context.Context, target ocispec.Descriptor, usersOf func(digest.Digest) []string) []image.ManifestSummary {
	children := []ocispec.Descriptor{target}
	if images.IsIndexType(target.MediaType) {
		children, _ = l.st.index(ctx, target)
	}
	var out []image.ManifestSummary
	for _, d := range children {
		m := image.ManifestSummary{ID: d.Digest.String(), Descriptor: d, Kind: image.ManifestKindUnknown, Available: l.st.complete(ctx, d)}
		blobs, unpacked := map[string]int64{}, map[string]int64{}
		l.manifestParts(ctx, d, blobs, unpacked)
		m.Size.Content = total(blobs)
		m.Size.Total = m.Size.Content + total(unpacked)
		if of := d.Annotations["vnd.docker.reference.digest"]; of != "" {
			m.Kind, m.AttestationData = image.ManifestKindAttestation, &image.AttestationProperties{For: digest.Digest(of)}
		} else if p := d.Platform; images.IsManifestType(d.MediaType) {
			if list, err := l.st.withPlatform(ctx, d); p == nil && err == nil {
				p = list[0].Platform
			}
			if p == nil {
				p = &ocispec.Platform{}
			}
			m.Kind, m.ImageData = image.ManifestKindImage, &image.ImageProperties{Platform: *p, Containers: usersOf(d.Digest)}
			m.ImageData.Size.Unpacked = total(unpacked)
		}
		out = append(out, m)
	}
	return out
}

// look finds an image to show it: the platform asked for, else the host's, else any that is here.
func (s *Service) look(ctx context.Context, name string, platform *ocispec.Platform) (*Image, *entry, error) {
	found, err := s.lookup(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	var img *Image
	if platform != nil {
		if img, err = s.load(ctx, found, platform); err == nil {
			err = present(ctx, s, img, found.Name)
		}
	} else {
		img, err = s.any(ctx, found.Target)
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := s.entryOf(ctx, img.ID)
	return img, e, err
}

// Inspect shows one image whole.
func (s *Service) Inspect(ctx context.Context, name string, platform *ocispec.Platform) (image.InspectResponse, error) {
	ctx = in(ctx)
	img, e, err := s.look(ctx, name, platform)
	if err != nil {
		return image.InspectResponse{}, err
	}
	tags, digests := e.tagsAndDigests()
	c := img.Config
	out := image.InspectResponse{ID: img.ID.String(), RepoTags: tags, RepoDigests: digests, Author: c.Author, Config: &c.Config,
		Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion, Descriptor: &e.target,
		Metadata: image.Metadata{LastTagTime: e.tagged}, Manifests: s.manifestSummaries(ctx, e.target, s.usersOf)}
	if platform != nil { // it is about one image of those that the name stands for
		d := img.Manifest
		if d.Platform == nil {
			d.Platform = &ocispec.Platform{Architecture: c.Architecture, OS: c.OS, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures, Variant: c.Variant}
		}
		out.Descriptor = &d
	}
	out.Identity = s.gate.identity(ctx, img.ID)
	out.Size = total(s.parts(ctx, e.target))
	if c.Created != nil {
		out.Created = c.Created.Format(time.RFC3339Nano)
	}
	if n := len(c.History); n > 0 {
		out.Comment = c.History[n-1].Comment
	}
	out.RootFS = image.RootFS{Type: "layers"}
	for _, d := range c.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	if lower := s.known(digest.Digest(chainID(c.RootFS.DiffIDs))); len(lower) > 0 {
		out.GraphDriver = &storage.DriverData{Name: "overlayfs", Data: map[string]string{"LowerDir": strings.Join(lower[1:], ":"), "UpperDir": lower[0]}}
	}
	return out, nil
}

// History lists what the image's config tells of each step, newest first.
func (s *Service) History(ctx context.Context, name string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	ctx = in(ctx)
	img, e, err := s.look(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	tags, _ := e.tagsAndDigests()
	sizes := map[string]int64{}
	s.sizes(ctx, img.Config.RootFS.DiffIDs, sizes)
	n := len(img.Config.History)
	out := make([]image.HistoryResponseItem, n)
	layer := 0
	for i, h := range img.Config.History {
		item := image.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(img.Config.RootFS.DiffIDs) {
			layer++
			item.Size = sizes[chainID(img.Config.RootFS.DiffIDs[:layer])]
		}
		out[n-1-i] = item
	}
	if n == 0 {
		out = append(out, image.HistoryResponseItem{Size: total(sizes)})
	}
	out[0].ID, out[0].Tags = img.ID.String(), tags
	return out, nil
}
