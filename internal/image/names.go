package image

import (
	"context"
	"fmt"
	"maps"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/ref"
)

// entry is all names of one target. A name that is just the digest keeps an image that has no other: Docker's <none>.
type entry struct {
	target  ocispec.Descriptor
	names   []string
	updated time.Time // when a name was last given or noted to be known
	tagged  time.Time // when one was last given
	created time.Time // as its configuration says; with none here, updated
	labels  map[string]string

	artifact bool // not an image
}

// name points a reference at content. What it pointed at before stays, nameless when that was its last name: containers may use it.
// known says where else the name is known (labelPulled); that ends when it points elsewhere.
func (s *store) name(ctx context.Context, name string, target ocispec.Descriptor, known ...string) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	return s.nameLocked(ctx, name, target, known...)
}

// nameLocked is for a caller that holds naming.
func (s *store) nameLocked(ctx context.Context, name string, target ocispec.Descriptor, known ...string) error {
	img := images.Image{Name: name, Target: ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}}
	for _, label := range known {
		img.Labels = map[string]string{label: now()}
	}
	old, err := s.images.Get(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	if err == nil && old.Target.Digest == target.Digest {
		for _, label := range known {
			err = noteKnown(ctx, s.images, old, label)
		}
		return err
	}
	if err == nil {
		if err := s.keepNameless(ctx, old); err != nil {
			return err
		}
		_, err = s.images.Update(ctx, img, "target", "labels")
	} else {
		_, err = s.images.Create(ctx, img)
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	if nameless := target.Digest.String(); nameless != name {
		if err := s.images.Delete(ctx, nameless); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("name image %s: %w", name, err)
		}
	}
	return nil
}

// keepNameless gives an image its digest for a name when the one at hand is its last.
func (s *store) keepNameless(ctx context.Context, img images.Image) error {
	list, err := s.images.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, other := range list {
		if other.Target.Digest == img.Target.Digest && other.Name != img.Name {
			return nil
		}
	}
	_, err = s.images.Create(ctx, images.Image{Name: img.Target.Digest.String(), Target: img.Target})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("keep image %s: %w", img.Target.Digest, err)
	}
	return nil
}

// entries groups the store's names by what they point at, newest first.
func (s *store) entries(ctx context.Context) ([]*entry, error) {
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
		e.add(img)
	}
	for _, e := range out {
		sort.Strings(e.names)
		if loaded, err := s.any(ctx, e.target); err == nil {
			if loaded.Config.Created != nil {
				e.created = *loaded.Config.Created
			}
			e.labels = loaded.Config.Config.Labels
		} else if e.artifact = s.isArtifact(ctx, e.target); !e.artifact { // a list of manifests that are elsewhere
			e.created = e.updated
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].created.After(out[j].created) })
	return out, nil
}

func (e *entry) add(img images.Image) {
	e.names = append(e.names, img.Name)
	if img.UpdatedAt.After(e.updated) {
		e.updated = img.UpdatedAt
	}
	if at := named(img); at.After(e.tagged) {
		e.tagged = at
	}
}

// entryOf is one image's names.
func (s *store) entryOf(ctx context.Context, id digest.Digest) (*entry, error) {
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	e := &entry{}
	for _, img := range list {
		if img.Target.Digest == id {
			e.target = img.Target
			e.add(img)
		}
	}
	if len(e.names) == 0 {
		return nil, fmt.Errorf("No such image: %s: %w", id, errdefs.ErrNotFound) //nolint:staticcheck // Docker's words
	}
	sort.Strings(e.names)
	return e, nil
}

// any reads the host's platform of a target, or else any that is here.
func (s *store) any(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	img := images.Image{Name: target.Digest.String(), Target: target}
	loaded, err := s.load(ctx, img, nil)
	if err == nil {
		return loaded, nil
	}
	list, listErr := s.manifests(ctx, target)
	if listErr != nil || len(list) == 0 {
		return nil, err
	}
	return s.load(ctx, img, list[0].Platform)
}

// manyLabels is how many labels an image's events have at most: as many as a container may have.
const manyLabels = 4096

// happening is what is told of an image.
type happening struct {
	action   events.Action
	id, name string
}

// told says what was done with an image. Events have its labels, by which people choose among them; of one with too many they have none.
func told(s *Service, labels map[string]string, h happening) {
	attributes := map[string]string{}
	if len(labels) <= manyLabels {
		maps.Copy(attributes, labels)
	}
	attributes["name"], attributes[access.OwnerAttribute] = h.name, "" // whatever the labels say: images are everybody's
	s.events.Publish(events.ImageEventType, h.action, h.id, attributes)
}

// tell is told, of what lies in the store.
func tell(ctx context.Context, s *Service, target ocispec.Descriptor, h happening) {
	var labels map[string]string
	if img, err := s.any(in(ctx), target); err == nil {
		labels = img.Config.Config.Labels
	}
	told(s, labels, h)
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

// matchesReference compares with repository, repository:tag, repository@digest, and shell patterns of these, short or in full.
func matchesReference(tag string, patterns map[string]bool) bool {
	repository, _, _ := strings.Cut(tag, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	for p := range patterns {
		names := []string{tag, repository}
		if r, err := ref.Parse(tag); err == nil && strings.HasPrefix(p, "docker.io/") { // in full, as scripts write it
			names = append(names, r.String(), r.Name())
		}
		for _, name := range names {
			if ok, _ := path.Match(p, name); ok || p == name {
				return true
			}
		}
		if r, err := ref.Parse(p); err == nil && (r.Familiar() == tag || !strings.ContainsAny(p[strings.LastIndexByte(p, '/')+1:], ":@") && r.FamiliarName() == repository) {
			return true
		}
	}
	return false
}

// filter turns Docker's filters into one test.
func (s *store) filter(ctx context.Context, filters map[string]map[string]bool) (func(*entry) bool, error) {
	var tests []func(*entry) bool
	for key, values := range filters {
		test, err := s.oneFilter(ctx, key, values)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
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

func (s *store) oneFilter(ctx context.Context, key string, values map[string]bool) (func(*entry) bool, error) {
	switch key {
	case "reference":
		for p := range values {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("invalid filter reference=%s: %w: %w", p, err, errdefs.ErrInvalidArgument)
			}
		}
		return func(e *entry) bool {
			tags, digests := e.tagsAndDigests()
			return len(matchingTags(append(tags, digests...), values)) > 0
		}, nil
	case "dangling":
		want, err := truth("dangling", values)
		if err != nil {
			return nil, err
		}
		return func(e *entry) bool { return e.named() != want }, nil
	case "label":
		return func(e *entry) bool { return hasLabels(e.labels, values) }, nil
	case "label!":
		return func(e *entry) bool { return !hasLabels(e.labels, values) }, nil
	case "before", "since", "until":
		return s.timeFilter(ctx, key, values)
	}
	return nil, fmt.Errorf("invalid filter '%s': images have reference, dangling, label, label!, before, since, until: %w", key, errdefs.ErrInvalidArgument)
}

// truth reads a filter that is true or false.
func truth(key string, values map[string]bool) (bool, error) {
	out := false
	for v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil || len(values) > 1 {
			return false, fmt.Errorf("invalid filter %s=%s: it is true or false: %w", key, v, errdefs.ErrInvalidArgument)
		}
		out = b
	}
	return out, nil
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

func (s *store) timeFilter(ctx context.Context, key string, values map[string]bool) (func(*entry) bool, error) {
	var at time.Time
	for v := range values {
		if key == "until" {
			t, err := pointInTime(v)
			if err != nil {
				return nil, err
			}
			at = t
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

// pointInTime reads a duration before now, seconds since 1970, or a date.
func pointInTime(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(int64(seconds), 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid filter until=%s: write a duration such as 24h, or a date such as 2026-01-31: %w", v, errdefs.ErrInvalidArgument)
}
