package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/snapshot"
)

func checked(t *testing.T, s *Service, o CheckOptions) (CheckReport, []Damage) {
	t.Helper()
	var list []Damage
	o.Damage = func(d Damage) { list = append(list, d) }
	r, err := Check(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.root, scratchDir)); !os.IsNotExist(err) {
		t.Errorf("the copy of a layer is left: %v", err)
	}
	return r, list
}

// damagedStore has an image of two layers and one of the lower alone; both rest on a registry that still has them, under "kept".
func damagedStore(t *testing.T, layers snapshot.Format) (*Service, *Image) {
	t.Helper()
	host := realRegistry(t, nil)
	s := openAs(t, layers)
	base := imported(t, s, host+"/kept:1", file{name: "bin", kind: '5'}, file1("bin/a", strings.Repeat("a", 300000)), file{name: "bin/l", kind: '2', link: "a"})
	if _, err := s.Commit(t.Context(), layer(t, file1("etc/b", "small"), file1("bin/.wh.l", "")), CommitOptions{Parent: base, Ref: host + "/kept:2", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"kept:1", "kept:2"} {
		if err := s.Push(t.Context(), host+"/"+tag, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	img, err := s.Resolve(t.Context(), host+"/kept:2", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, img
}

func TestSoundStoreHasNoDamage(t *testing.T) {
	s, _ := damagedStore(t, snapshot.EROFS)
	r, list := checked(t, s, CheckOptions{})
	if len(list) != 0 || r.Layers != 2 || r.Blobs != 6 || r.Images != 2 || r.Unverified != 0 {
		t.Errorf("%+v %+v", r, list)
	}
}

// TestDamageIsFoundAndMended: every blob and every file, in every way; all that is damaged is named with who uses it, and repair mends it.
func TestDamageIsFoundAndMended(t *testing.T) {
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o644)
	}
	ways := map[string]func(path string) error{
		"flipped": flip, "cut": func(p string) error { return os.Truncate(p, 3) }, "emptied": func(p string) error { return os.Truncate(p, 0) }, "gone": os.Remove,
		"zeroed": func(p string) error {
			fi, err := os.Stat(p)
			if err != nil {
				return err
			}
			return os.WriteFile(p, make([]byte, fi.Size()), 0o644)
		},
	}
	for way, spoil := range ways {
		t.Run(way, func(t *testing.T) {
			s, img := damagedStore(t, snapshot.Overlay)
			m, err := s.manifest(in(t.Context()), img.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			parts := []digest.Digest{img.Manifest.Digest, m.Config.Digest, m.Layers[0].Digest, m.Layers[1].Digest}
			for _, d := range parts {
				_ = os.Chmod(blobPath(s, d), 0o644)
				if err := spoil(blobPath(s, d)); err != nil {
					t.Fatal(err)
				}
			}
			for i, name := range []string{"etc/b", "bin/a"} {
				if err := spoil(filepath.Join(img.Lower[i], name)); err != nil {
					t.Fatal(err)
				}
			}
			r, list := checked(t, s, CheckOptions{})
			// A manifest that cannot be read hides what only it speaks of; the blobs are damaged all the same.
			if r.Damaged < 4 || !slices.ContainsFunc(list, func(d Damage) bool { return d.ID == m.Layers[0].Digest.String() && len(d.Users) >= 1 }) {
				t.Errorf("%+v %+v", r, list)
			}
			r, list = checked(t, s, CheckOptions{Repair: true})
			if r.Damaged != r.Mended || r.Damaged < 6 {
				t.Errorf("repair: %+v %+v", r, list)
			}
			if r, list = checked(t, s, CheckOptions{}); r.Damaged != 0 || r.Layers != 2 {
				t.Errorf("after the repair: %+v %+v", r, list)
			}
			again, err := s.Resolve(t.Context(), img.ID.String(), nil)
			if err != nil || !slices.Equal(again.Lower, img.Lower) {
				t.Fatalf("%v %v", again, err)
			}
			for name, want := range map[string]string{"0/etc/b": "small", "1/bin/a": strings.Repeat("a", 300000)} {
				i, file, _ := strings.Cut(name, "/")
				if b, err := os.ReadFile(filepath.Join(img.Lower[i[0]-'0'], file)); err != nil || string(b) != want {
					t.Errorf("%s: %d bytes, %v", name, len(b), err)
				}
			}
			if err := s.sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r, list = checked(t, s, CheckOptions{}); r.Damaged != 0 || r.Blobs != 6 || r.Layers != 2 {
				t.Errorf("what was mended has been collected: %+v %+v", r, list)
			}
		})
	}
}

// TestWhatCannotBeMended: is set aside and named, and hides nothing else.
func TestWhatCannotBeMended(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	img := imported(t, s, "127.0.0.1:1/gone:1", file1("a", "b"))
	other := imported(t, s, "other:1", file1("c", "d"))
	m, err := s.manifest(in(t.Context()), img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	spoilBlob(t, s, m.Layers[0].Digest, func(b []byte) []byte { return append(b, 'x') })
	if err := os.RemoveAll(other.Lower[0]); err != nil {
		t.Fatal(err)
	}
	r, list := checked(t, s, CheckOptions{Repair: true})
	if r.Damaged != 2 || r.Mended != 1 || r.Unverified != 1 {
		t.Fatalf("%+v %+v", r, list)
	}
	for _, d := range list {
		if lost := d.Kind == "blob"; lost == d.Mended || lost && (!strings.Contains(d.Why, "pull or load") || d.Users[0] != "127.0.0.1:1/gone:1") {
			t.Errorf("%+v", d)
		}
	}
	if b, err := os.ReadFile(filepath.Join(other.Lower[0], "c")); err != nil || string(b) != "d" {
		t.Errorf("%q %v", b, err)
	}
	aside := filepath.Join(s.root, "damaged", "sha256-"+m.Layers[0].Digest.Encoded())
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	if again, err := s.Resolve(t.Context(), "127.0.0.1:1/gone:1", nil); err != nil || again.Lower[0] != img.Lower[0] {
		t.Errorf("the image does not run without its blob: %v", err)
	}
}

// TestDamagedManifestsKeepWhatTheyKept: nobody has the manifest, but what is below it is not collected, and the image comes back with it.
func TestDamagedManifestsKeepWhatTheyKept(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	img := imported(t, s, "127.0.0.1:1/gone:1", file1("a", "b"))
	sound, err := os.ReadFile(blobPath(s, img.Manifest.Digest))
	if err != nil {
		t.Fatal(err)
	}
	spoilBlob(t, s, img.Manifest.Digest, half)
	if r, list := checked(t, s, CheckOptions{Repair: true}); r.Damaged != 1 || r.Mended != 0 || list[0].ID != img.Manifest.Digest.String() {
		t.Fatalf("%+v %+v", r, list)
	}
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	spoilBlob(t, s, img.Manifest.Digest, func([]byte) []byte { return sound })
	if r, list := checked(t, s, CheckOptions{}); r.Damaged != 0 || r.Layers != 1 || r.Blobs != 3 {
		t.Errorf("%+v %+v", r, list)
	}
}

// TestContainersAreNamed: those that stand on a folder that is gone, as after a database was made anew.
func TestContainersAreNamed(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	img := imported(t, s, "a", file1("a", "b"))
	_, list := checked(t, s, CheckOptions{Containers: func(context.Context) (map[string][]string, error) {
		return map[string][]string{"fine": img.Lower, "lost": {filepath.Join(s.root, "snapshots/snapshots/77/fs")}}, nil
	}})
	if len(list) != 1 || list[0].ID != "lost" || list[0].Kind != "container" || !strings.Contains(list[0].Why, "anew") {
		t.Errorf("%+v", list)
	}
}

// TestChecksTogether: two at once, and one after an engine that was killed in the middle of one, find what there is and nothing else.
func TestChecksTogether(t *testing.T) {
	s, img := damagedStore(t, snapshot.EROFS)
	if err := s.snaps.Walk(in(t.Context()), func(ctx context.Context, i snapshots.Info) error {
		if i.Parent != "" {
			return nil
		}
		_, err := s.snaps.View(ctx, "check "+i.Name, i.Name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			r, err := Check(context.WithoutCancel(t.Context()), s, CheckOptions{Repair: true, Damage: func(d Damage) { t.Errorf("%+v", d) }})
			if err != nil || r.Layers != 2 {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(filepath.Join(img.Lower[1], "bin/a")); err != nil {
		t.Error(err)
	}
}

func TestScratchOfACrashGoes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	left := filepath.Join(root, scratchDir, "layer/etc")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Root: root, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error(fmt.Sprint(err))
	}
}
