package registry

import (
	"io"
	"log"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestAServerWithReferrers: a third implementation, which has the referrers API: what refers to an image is known there without a tag.
func TestAServerWithReferrers(t *testing.T) {
	requests := &record{next: registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))}
	host := served(t, requests)
	img := imageOf(sample(3 << 20))
	pool := quick(Options{})
	c := pool.Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, requests.all())
	}
	if err := img.pull(t.Context(), c); err != nil {
		t.Error(err)
	}
	if how, err := img.push(t.Context(), c); err != nil || !how.Existed {
		t.Errorf("%+v %v", how, err)
	}
	if _, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/a/c:2"), nil), "a/b"); err != nil {
		t.Error(err)
	}
	if tags, err := c.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"1"}) {
		t.Errorf("%q %v", tags, err)
	}
	p, err := c.Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var notes []ocispec.Descriptor
	for _, note := range []string{"one", "two"} {
		notes = append(notes, referrer(t, p, img.root, note))
	}
	if err := p.Refer(t.Context(), img.root.Digest, notes...); err != nil {
		t.Error(err)
	}
	// It names their configurations' types as theirs.
	if list, err := c.Referrers(t.Context(), img.root.Digest, ""); err != nil || len(list) != 2 {
		t.Errorf("%+v %v", list, err)
	}
	if list, err := c.Referrers(t.Context(), img.root.Digest, "text/other"); err != nil || len(list) != 0 {
		t.Errorf("of another type: %+v %v", list, err)
	}
	if n := requests.count("PUT /v2/a/b/manifests/sha256-"); n != 0 {
		t.Errorf("a tag was written where there is an API\n%s", requests.all())
	}
}
