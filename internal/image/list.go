package image

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// ListOptions of List; filters have Docker's names (reference, dangling, label, before, since, until).
type ListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    map[string]map[string]bool
}

// entry is all names of one target.
type entry struct {
	target  ocispec.Descriptor
	names   []string
	updated time.Time
	created time.Time
	labels  map[string]string
}

// entries groups the store's names by what they point at, newest first.
func (s *Service) entries(ctx context.Context) ([]*entry, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byTarget := map[digest.Digest]*entry{}
	var out []*entry
	for _, img := range list {
		e := byTarget[img.Target.Digest]
		if e == nil {
			e = &entry{target: img.Target}
			byTarget[img.Target.Digest] = e
			out = append(out, e)
		}
		e.names = append(e.names, img.Name)
		if img.UpdatedAt.After(e.updated) {
			e.updated = img.UpdatedAt
		}
	}
	for _, e := range out {
		sort.Strings(e.names)
		if loaded, err := s.any(ctx, e.target); err == nil {
			if loaded.Config.Created != nil {
				e.created = *loaded.Config.Created
			}
			e.labels = loaded.Config.Config.Labels
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].created.After(out[j].created) })
	return out, nil
}

// any reads the host's platform of a target, or else any that is here.
func (s *Service) any(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	img := images.Image{Name: target.Digest.String(), Target: target}
	if loaded, err := s.load(ctx, img, nil); err == nil {
		return loaded, nil
	}
	list, err := s.manifests(ctx, target)
	if err != nil || len(list) == 0 {
		return nil, fmt.Errorf("image %s has nothing here: %w", target.Digest, errdefs.ErrNotFound)
	}
	return s.load(ctx, img, list[0].Platform)
}

// tagsAndDigests are an entry's names as people see them.
func (e *entry) tagsAndDigests() (tags, digests []string) {
	tags, digests = []string{}, []string{}
	seen := map[string]bool{}
	for _, name := range e.names {
		r, err := ref.Parse(name)
		if err != nil || isFullID(name) {
			continue
		}
		if r.Digest == "" {
			tags = append(tags, r.Familiar())
		}
		if d := r.FamiliarName() + "@" + e.target.Digest.String(); !seen[d] {
			seen[d] = true
			digests = append(digests, d)
		}
	}
	return tags, digests
}

// List shows the images.
func (s *Service) List(ctx context.Context, o ListOptions) ([]image.Summary, error) {
	ctx = in(ctx)
	list, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	keep, err := s.filter(ctx, list, o.Filters)
	if err != nil {
		return nil, err
	}
	out := []image.Summary{}
	for _, e := range list {
		if !keep(e) {
			continue
		}
		tags, digests := e.tagsAndDigests()
		size, _ := s.size(ctx, e.target)
		target := e.target
		sum := image.Summary{ID: e.target.Digest.String(), RepoTags: matchingTags(tags, o.Filters["reference"]), RepoDigests: digests, Labels: e.labels, Size: size, SharedSize: -1, Containers: -1, Descriptor: &target}
		if !e.created.IsZero() {
			sum.Created = e.created.Unix()
		}
		out = append(out, sum)
	}
	return out, nil
}

func matchingTags(tags []string, patterns map[string]bool) []string {
	if len(patterns) == 0 {
		return tags
	}
	out := []string{}
	for _, t := range tags {
		if matchesReference(t, patterns) {
			out = append(out, t)
		}
	}
	return out
}

// matchesReference compares with repository, repository:tag, and shell patterns of these.
func matchesReference(tag string, patterns map[string]bool) bool {
	repository, _, _ := strings.Cut(tag, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	for p := range patterns {
		for _, name := range []string{tag, repository} {
			if ok, _ := path.Match(p, name); ok || p == name {
				return true
			}
		}
	}
	return false
}

// filter turns Docker's filters into one test.
func (s *Service) filter(ctx context.Context, list []*entry, filters map[string]map[string]bool) (func(*entry) bool, error) {
	var tests []func(*entry) bool
	for key, values := range filters {
		switch key {
		case "reference":
			tests = append(tests, func(e *entry) bool {
				tags, _ := e.tagsAndDigests()
				return len(matchingTags(tags, values)) > 0
			})
		case "dangling":
			want := values["true"] || values["1"]
			tests = append(tests, func(e *entry) bool { tags, _ := e.tagsAndDigests(); return (len(tags) == 0) == want })
		case "label":
			tests = append(tests, func(e *entry) bool { return hasLabels(e.labels, values) })
		case "before", "since", "until":
			test, err := s.timeFilter(ctx, key, values)
			if err != nil {
				return nil, err
			}
			tests = append(tests, test)
		default:
			return nil, fmt.Errorf("invalid filter '%s': images have reference, dangling, label, before, since, until: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	return func(e *entry) bool {
		for _, t := range tests {
			if !t(e) {
				return false
			}
		}
		return true
	}, nil
}

func hasLabels(labels map[string]string, want map[string]bool) bool {
	for w := range want {
		key, value, has := strings.Cut(w, "=")
		if v, ok := labels[key]; !ok || has && v != value {
			return false
		}
	}
	return true
}

func (s *Service) timeFilter(ctx context.Context, key string, values map[string]bool) (func(*entry) bool, error) {
	var at time.Time
	for v := range values {
		if key == "until" {
			d, err := time.ParseDuration(v)
			if err != nil {
				return nil, fmt.Errorf("invalid filter until=%s: %w: %w", v, err, errdefs.ErrInvalidArgument)
			}
			at = time.Now().Add(-d)
			continue
		}
		img, err := s.find(ctx, v)
		if err != nil {
			return nil, err
		}
		loaded, err := s.any(ctx, img.Target)
		if err != nil || loaded.Config.Created == nil {
			return nil, fmt.Errorf("image %s says no time of creation: %w", v, errdefs.ErrInvalidArgument)
		}
		at = *loaded.Config.Created
	}
	if key == "since" {
		return func(e *entry) bool { return e.created.After(at) }, nil
	}
	return func(e *entry) bool { return e.created.Before(at) }, nil
}

// size is the disk space of an image: its blobs and its unpacked layers.
func (s *Service) size(ctx context.Context, target ocispec.Descriptor) (int64, error) {
	list, err := s.manifests(ctx, target)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, d := range list {
		m, err := images.Manifest(ctx, s.content, d, nil)
		if err != nil {
			return total, err
		}
		total += d.Size + m.Config.Size
		for _, l := range m.Layers {
			total += l.Size
		}
		diffs, err := images.RootFS(ctx, s.content, m.Config)
		if err != nil {
			return total, err
		}
		for i := range diffs {
			if u, err := s.usage(ctx, identity.ChainID(append([]digest.Digest(nil), diffs[:i+1]...)).String()); err == nil {
				total += u.Size
			}
		}
	}
	return total, nil
}

// Inspect shows one image whole.
func (s *Service) Inspect(ctx context.Context, name string, platform *ocispec.Platform) (image.InspectResponse, error) {
	ctx = in(ctx)
	img, err := s.Resolve(ctx, name, platform)
	if err != nil && platform == nil && errdefs.IsNotFound(err) && s.exists(ctx, name) {
		found, _ := s.find(ctx, name)
		img, err = s.any(ctx, found.Target)
	}
	if err != nil {
		return image.InspectResponse{}, err
	}
	e, err := s.entryOf(ctx, img.ID)
	if err != nil {
		return image.InspectResponse{}, err
	}
	tags, digests := e.tagsAndDigests()
	c := img.Config
	out := image.InspectResponse{ID: img.ID.String(), RepoTags: tags, RepoDigests: digests, Author: c.Author, Config: &c.Config,
		Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion, Descriptor: &e.target,
		Metadata: image.Metadata{LastTagTime: e.updated}}
	out.Size, _ = s.size(ctx, e.target)
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
	if len(img.Lower) > 0 {
		out.GraphDriver = &storage.DriverData{Name: "overlay2", Data: map[string]string{"LowerDir": strings.Join(img.Lower[1:], ":"), "UpperDir": img.Lower[0]}}
	}
	return out, nil
}

func (s *Service) exists(ctx context.Context, name string) bool {
	_, err := s.find(ctx, name)
	return err == nil
}

func (s *Service) entryOf(ctx context.Context, id digest.Digest) (*entry, error) {
	list, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.target.Digest == id {
			return e, nil
		}
	}
	return nil, fmt.Errorf("No such image: %s: %w", id, errdefs.ErrNotFound) //nolint:staticcheck // Docker's words
}

// History lists what the image's config tells of each step, newest first.
func (s *Service) History(ctx context.Context, name string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	ctx = in(ctx)
	img, err := s.Resolve(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	e, err := s.entryOf(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	tags, _ := e.tagsAndDigests()
	var out []image.HistoryResponseItem
	layer := 0
	for _, h := range img.Config.History {
		item := image.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(img.Config.RootFS.DiffIDs) {
			layer++
			chain := identity.ChainID(append([]digest.Digest(nil), img.Config.RootFS.DiffIDs[:layer]...))
			if u, err := s.usage(ctx, chain.String()); err == nil {
				item.Size = u.Size
			}
		}
		out = append([]image.HistoryResponseItem{item}, out...)
	}
	if len(out) == 0 {
		out = append(out, image.HistoryResponseItem{})
	}
	out[0].ID, out[0].Tags = img.ID.String(), tags
	return out, nil
}

// DiskUsage is what `system df` shows.
func (s *Service) DiskUsage(ctx context.Context) (image.DiskUsage, error) {
	list, err := s.List(ctx, ListOptions{})
	if err != nil {
		return image.DiskUsage{}, err
	}
	out := image.DiskUsage{Items: list, TotalCount: int64(len(list))}
	err = s.content.Walk(in(ctx), func(i content.Info) error { out.TotalSize += i.Size; return nil })
	if err != nil {
		return out, err
	}
	layers := map[string]int64{}
	for _, sum := range list {
		if s.userOf(digest.Digest(sum.ID)) == "" {
			out.Reclaimable += sum.Size
		} else {
			out.ActiveCount++
		}
		s.chainSizes(in(ctx), sum, layers)
	}
	for _, size := range layers {
		out.TotalSize += size
	}
	out.Reclaimable = min(out.Reclaimable, out.TotalSize)
	return out, nil
}

func (s *Service) chainSizes(ctx context.Context, sum image.Summary, into map[string]int64) {
	img, err := s.any(ctx, *sum.Descriptor)
	if err != nil {
		return
	}
	for i := range img.Config.RootFS.DiffIDs {
		chain := identity.ChainID(append([]digest.Digest(nil), img.Config.RootFS.DiffIDs[:i+1]...)).String()
		if u, err := s.usage(ctx, chain); err == nil {
			into[chain] = u.Size
		}
	}
}

// readJSON decodes a small blob.
func (s *Service) readJSON(ctx context.Context, d ocispec.Descriptor, v any) error {
	b, err := content.ReadBlob(ctx, s.content, d)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
