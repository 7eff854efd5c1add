package container

import (
	"context"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/ref"
)

// Origin is what a container was made of, as its reference was meant then. It stays true when tags move or go.
type Origin struct {
	Reference string        // as it was written
	Name      string        `json:",omitempty"` // the same in full; "" where the image was named by its id
	Digest    digest.Digest // what the reference meant: an index, or a manifest
	Manifest  digest.Digest // the manifest of the platform that was chosen
	Platform  string        // os/architecture[/variant]
	Pinned    string        `json:",omitempty"` // a reference that means just this for ever: name@digest
}

func (r *Record) origin() Origin {
	o := Origin{Reference: r.Config.Image, Digest: r.Image.ID, Manifest: r.Image.Manifest.Digest}
	if p := r.Image.Manifest.Platform; p != nil {
		o.Platform = platforms.Format(platforms.Normalize(*p))
	}
	if written, err := ref.Parse(r.Config.Image); err == nil && r.Image.Ref != "" {
		if o.Name = written.Name(); written.Tag != "" {
			o.Name += ":" + written.Tag
		}
		o.Pinned = written.FamiliarName() + "@" + r.Image.ID.String()
	}
	return o
}

// Move is a container whose reference no longer means what it was made of.
type Move struct {
	Reference string
	Now       digest.Digest `json:",omitempty"` // what it means by now; "" where it means nothing here any more
}

// Moved finds those of a list whose reference means something else by now, by container id.
func Moved(ctx context.Context, s *Service, list []container.Summary) map[string]Move {
	out := map[string]Move{}
	for _, sum := range list {
		c, err := s.index.find(sum.ID)
		if err != nil {
			continue // it has gone since
		}
		if r := c.record(); r.Image.Ref != "" && sum.Image != r.Config.Image {
			now, _ := s.o.Images.Means(ctx, r.Config.Image)
			out[sum.ID] = Move{Reference: r.Config.Image, Now: now}
		}
	}
	return out
}
