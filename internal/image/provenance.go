package image

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// What indexes and manifests are labelled with: which registries they came from, and whether they were made on this machine.
const (
	labelFrom = "dev.wherry.from."
	labelMade = "dev.wherry.made-here"
)

// provenance remembers where images came from.
type provenance struct{ *store }

// from notes that a repository has an index or manifest, under r's tag or digest, and the manifests below it that are here: they may be
// run by themselves, or listed elsewhere.
func (s provenance) from(ctx context.Context, r ref.Reference, target ocispec.Descriptor) error {
	key := labelFrom + keyOf(r.Name())
	return s.labelBelow(ctx, target, func(d digest.Digest, have map[string]string) (string, string) {
		one := r
		if d != target.Digest {
			if have[key] != "" {
				return "", ""
			}
			one.Tag, one.Digest = "", d
		}
		return key, one.String()
	})
}

// made notes that an index or manifest, and what is below it, was made or loaded on this machine, save what a registry has given: an
// archive of that changes nothing.
func (s provenance) made(ctx context.Context, target ocispec.Descriptor) error {
	return s.labelBelow(ctx, target, func(_ digest.Digest, have map[string]string) (string, string) {
		if came(have) {
			return "", ""
		}
		return labelMade, "yes"
	})
}

// labelBelow labels a target and the manifests below it. label gives key and value, "" for none.
func (s provenance) labelBelow(ctx context.Context, target ocispec.Descriptor, label func(digest.Digest, map[string]string) (key, value string)) error {
	var all []content.Info
	if err := s.walkManifests(ctx, target, func(info content.Info) {
		if key, value := label(info.Digest, info.Labels); key != "" && info.Labels[key] != value {
			all = append(all, content.Info{Digest: info.Digest, Labels: map[string]string{key: value}})
		}
	}); err != nil {
		return err
	}
	// Not in one transaction: the content store takes a lock of its own before one, and would wait for who waits for this.
	for _, info := range all {
		for key, value := range info.Labels {
			if err := s.label(ctx, info.Digest, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// walkManifests calls fn for the indexes and manifests that are here of a target.
func (s provenance) walkManifests(ctx context.Context, target ocispec.Descriptor, fn func(content.Info)) error {
	return s.walk(ctx, target, func(d ocispec.Descriptor) error {
		info, err := s.content.Info(ctx, d.Digest)
		if err != nil || !isManifest(d) || attests(d) {
			return errBelow
		}
		fn(info)
		if images.IsManifestType(d.MediaType) {
			return errBelow
		}
		return nil
	})
}

// came says that a registry has given something.
func came(labels map[string]string) bool {
	for key := range labels {
		if strings.HasPrefix(key, labelFrom) {
			return true
		}
	}
	return false
}

// of is what is noted of where something came from, by digest: of a target, and where no registry has given that as a whole, of the
// manifests below it.
func (s provenance) of(ctx context.Context, target ocispec.Descriptor) map[digest.Digest]map[string]string {
	out := map[digest.Digest]map[string]string{}
	_ = s.walk(ctx, target, func(d ocispec.Descriptor) error { // what is damaged tells nothing
		info, err := s.content.Info(ctx, d.Digest)
		if err != nil || !isManifest(d) {
			return errBelow
		}
		kept := map[string]string{}
		for key, value := range info.Labels {
			if strings.HasPrefix(key, labelFrom) || key == labelMade {
				kept[key] = value
			}
		}
		if len(kept) > 0 {
			out[d.Digest] = kept
		}
		if came(kept) || images.IsManifestType(d.MediaType) {
			return errBelow
		}
		return nil
	})
	return out
}

// restore notes again what of gave.
func (s provenance) restore(ctx context.Context, target ocispec.Descriptor, all map[digest.Digest]map[string]string) error {
	for d, labels := range all {
		var fields []string
		for key, value := range labels {
			if r, err := ref.Parse(value); err == nil && d == target.Digest && strings.HasPrefix(key, labelFrom) {
				if err := s.from(ctx, r, target); err != nil {
					return err
				}
			}
			fields = append(fields, "labels."+key)
		}
		if _, err := s.content.Update(ctx, content.Info{Digest: d, Labels: labels}, fields...); err != nil {
			return err
		}
	}
	return nil
}

// candidate is a name by which an image may be judged.
type candidate struct {
	ref   ref.Reference
	local bool
}

// candidates are the names by which an image may be judged that is known as that. parts are its manifest and, before it, the index that it
// was found in: where no registry has given the index, it counts who gave the manifest. Whoever puts an index together does not make what is
// in it.
func (s provenance) candidates(ctx context.Context, parts []ocispec.Descriptor, as string) []candidate {
	var from map[string]string
	made := false
	for _, d := range parts {
		info, err := s.content.Info(ctx, d.Digest)
		if err != nil {
			continue
		}
		made = info.Labels[labelMade] != ""
		if came(info.Labels) {
			from = info.Labels
			break
		}
	}
	asked, err := ref.Parse(as)
	known := err == nil && as != "" && !isFullID(as)
	var all []candidate
	for _, key := range sortedKeys(from) {
		r, err := ref.Parse(from[key])
		if err != nil || !strings.HasPrefix(key, labelFrom) {
			continue
		}
		if known && r.Name() == asked.Name() {
			return []candidate{{ref: asked}}
		}
		all = append(all, candidate{ref: r})
	}
	if !made && len(all) > 0 {
		return all
	}
	var own []candidate // nobody else knows where it came from: its names count
	for _, r := range s.namesOf(ctx, parts[0].Digest, as) {
		own = append(own, candidate{ref: r, local: made})
	}
	return slices.Concat(own, all)
}

// namesOf are the names that something is known by: the one that it is asked for by, or those that it has. One zero name where there is none.
func (s provenance) namesOf(ctx context.Context, id digest.Digest, as string) (out []ref.Reference) {
	if r, err := ref.Parse(as); err == nil && as != "" && !isFullID(as) {
		return []ref.Reference{r}
	}
	list, _ := s.images.List(ctx)
	for _, img := range list {
		if r, err := ref.Parse(img.Name); err == nil && img.Target.Digest == id && !isFullID(img.Name) {
			out = append(out, r)
		}
	}
	if out == nil {
		out = []ref.Reference{{}}
	}
	return out
}
