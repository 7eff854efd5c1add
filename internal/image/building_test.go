package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/snapshot"
)

// build makes an image of a base and one layer, as a build does: the layer's files are a snapshot, on whatever below says.
func build(ctx context.Context, t *testing.T, s *Service, base *Image, below string) (Built, []string) {
	t.Helper()
	g := GroundOf(s)
	mounts, err := g.Snapshots.Prepare(ctx, "step work", below)
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts[0].Source
	for _, o := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = upper
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "made"), []byte("by a step"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := g.Snapshots.Commit(ctx, "step", "step work"); err != nil {
		t.Fatal(err)
	}
	blob, diff, err := s.writeLayer(ctx, layer(t, file1("made", "by a step")))
	if err != nil {
		t.Fatal(err)
	}
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: base.Config.Platform}}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: append(slices.Clone(base.Config.RootFS.DiffIDs), diff)}
	m, err := s.manifest(ctx, base.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	m.Versioned, m.Layers = specs.Versioned{SchemaVersion: 2}, append(m.Layers, blob)
	if m.Config, err = s.writeBlob(ctx, ocispec.MediaTypeImageConfig, config); err != nil {
		t.Fatal(err)
	}
	m.MediaType = ocispec.MediaTypeImageManifest
	target, err := s.writeBlob(ctx, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		t.Fatal(err)
	}
	return Built{Target: target, Names: []string{"app:1"}, Layers: map[string][]string{"": {chainID(base.Config.RootFS.DiffIDs), "step"}}}, chains(config.RootFS.DiffIDs)
}

// held is a context with a lease, as a build has it.
func heldBy(t *testing.T, s *Service) (ctx context.Context, done func()) {
	t.Helper()
	ctx, done, err := s.lease(in(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return ctx, done
}

func TestBuiltLayersAreAnImagesAtOnce(t *testing.T) {
	for _, format := range []snapshot.Format{snapshot.EROFS, snapshot.Overlay} {
		s := openAs(t, format)
		base := imported(t, s, "base:1", file1("below", "b"))
		ctx, done := heldBy(t, s)
		built, chain := build(ctx, t, s, base, chainID(base.Config.RootFS.DiffIDs))
		before, err := s.where(ctx, digest.Digest("step"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Keep(ctx, s, built); err != nil {
			t.Fatal(err)
		}
		done()
		img, err := s.Resolve(t.Context(), "app:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(img.Lower, before) {
			t.Errorf("%s: the image stands on %v, the step's layer is %v: it was unpacked", format, img.Lower, before)
		}
		if err := s.snaps.Remove(in(t.Context()), "step"); err != nil && !errdefs.IsNotFound(err) { // the cache goes, the image stays
			t.Fatal(err)
		}
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := dropOrphans(in(t.Context()), s.store, s.db.Snapshotter(snapshotter)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(img.Lower[0], "made")); err != nil || string(b) != "by a step" {
			t.Errorf("%s: after the cache is gone: %q %v", format, b, err)
		}
		u, err := s.DiskUsage(t.Context())
		if err != nil || u.Unused != 0 || u.Cache != 0 {
			t.Errorf("%s: unused %d, cache %d: %v", format, u.Unused, u.Cache, err)
		}
		if _, err := s.Remove(t.Context(), "app:1", RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.snaps.Stat(in(t.Context()), chain[1]); !errdefs.IsNotFound(err) {
			t.Errorf("%s: the layer is still here: %v", format, err)
		}
	}
}

func TestLayersOnAnotherOneAreUnpacked(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base:1", file1("below", "b"))
	ctx, done := heldBy(t, s)
	defer done()
	built, chain := build(ctx, t, s, base, "") // as COPY --link makes it
	if err := Keep(ctx, s, built); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), "app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(img.Lower[0], "made")); err != nil || string(b) != "by a step" {
		t.Errorf("%q %v", b, err)
	}
	info, err := s.snaps.Stat(ctx, "step")
	if err != nil || info.Labels[snapshots.LabelSnapshotRef] == chain[1] {
		t.Errorf("the step's layer says that it is the image's: %v %v", info.Labels, err)
	}
}

func TestTheCacheOutlivesTheEngine(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base:1", file1("below", "b"))
	ctx, done := heldBy(t, s)
	build(ctx, t, s, base, chainID(base.Config.RootFS.DiffIDs))
	cache, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithLabel(LeasePurpose, ForBuilds), leases.WithLabel("containerd.io/gc.flat", "yes"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.leases.AddResource(ctx, cache, leases.Resource{ID: "step", Type: "snapshots/" + snapshotter}); err != nil {
		t.Fatal(err)
	}
	done()
	if _, err := s.dropLeases(in(t.Context()), -1); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.snaps.Stat(in(t.Context()), "step"); err != nil {
		t.Errorf("the cache's layer: %v", err)
	}
	u, err := s.DiskUsage(t.Context())
	if err != nil || u.Cache <= 0 || u.CacheOf[cache.ID] != u.Cache {
		t.Errorf("the cache takes %d, of this record %v: %v", u.Cache, u.CacheOf, err)
	}
}

func TestTheHistoryOfBuildsStays(t *testing.T) {
	s := open(t)
	ctx := namespaces.WithNamespace(t.Context(), historyNamespace)
	b := []byte("the log of a build")
	d := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, s.content, "log", bytes.NewReader(b), d); err != nil {
		t.Fatal(err)
	}
	if err := dropOrphanBlobs(in(t.Context()), s.blobs); err != nil {
		t.Fatal(err)
	}
	if got, err := content.ReadBlob(ctx, s.content, d); err != nil || string(got) != string(b) {
		t.Errorf("%q %v", got, err)
	}
}

// TestBaseThatIsTakenAway: somebody removes the image in the moment between its pull for a build and the build's look at it.
func TestBaseThatIsTakenAway(t *testing.T) {
	host := realRegistry(t, nil)
	a, s := open(t), open(t)
	name := host + "/team/base:1"
	made := imported(t, a, name, file1("below", "b"))
	if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	removed := false
	d, release, err := Base(t.Context(), s, name, BaseOptions{Progress: func(p Progress) {
		if strings.HasPrefix(p.Status, "Status: ") && !removed {
			removed = true
			if _, err := s.Remove(t.Context(), name, RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil || d.Digest != made.Manifest.Digest || !removed {
		t.Fatalf("%s, %v, removed %t; want %s", d.Digest, err, removed, made.Manifest.Digest)
	}
	// What is found stays, with its layers, until it is let go of.
	if _, err := s.Remove(t.Context(), name, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	g := GroundOf(s)
	layers := chainID(made.Config.RootFS.DiffIDs)
	for _, row := range []struct{ held bool }{{true}, {false}} {
		if !row.held {
			release()
		}
		if _, err := g.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, content := s.content.Info(in(t.Context()), made.Manifest.Digest)
		_, snap := g.Snapshots.Stat(in(t.Context()), layers)
		if (content == nil) != row.held || (snap == nil) != row.held {
			t.Errorf("held %t: manifest: %v, layers: %v", row.held, content, snap)
		}
	}
}

// TestBaseByItsID: clients of the first builder write the ID of what they have just built or pulled behind FROM.
func TestBaseByItsID(t *testing.T) {
	s := open(t)
	made := imported(t, s, "base:1", file1("a", "1"))
	hex := made.ID.Encoded()
	for _, row := range []struct {
		name string
		here bool
	}{{"sha256:" + hex, true}, {hex[:12], true}, {hex[:20], true}, {hex[:11], false}, {hex[:12] + ":other", false}, {"127.0.0.1:1/" + hex[:12], false}, {"team/" + hex[:12], false}} {
		r, err := ref.Parse(row.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := idOf(r) != ""; got != row.here {
			t.Errorf("%s may be an ID: %t", row.name, got)
		}
		if !row.here {
			continue
		}
		d, release, err := Base(t.Context(), s, row.name, BaseOptions{})
		if err != nil || d.Digest != made.Manifest.Digest {
			t.Fatalf("%s: %s, %v", row.name, d.Digest, err)
		}
		release()
	}
	// A name that is written so is the name's.
	named := imported(t, s, hex[:12], file1("a", "2"))
	d, release, err := Base(t.Context(), s, hex[:12], BaseOptions{})
	if err != nil || d.Digest != named.Manifest.Digest {
		t.Fatalf("%s, %v", d.Digest, err)
	}
	release()
}
