package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/snapshot"
)

// TestHalfDownloadsGo: a download that a power cut has left without its notes does not keep the start from removing what belongs to nothing.
func TestHalfDownloadsGo(t *testing.T) {
	for _, name := range []string{"data", "ref", "startedat", "updatedat"} {
		for how, spoil := range map[string]func(string) error{"missing": os.Remove, "empty": func(p string) error { return os.Truncate(p, 0) }} {
			if name == "data" && how == "empty" {
				continue // nothing has come yet
			}
			t.Run(name+" "+how, func(t *testing.T) {
				root := filepath.Join(t.TempDir(), "root")
				var said []string
				s := reopen(t, root, &said)
				for _, ref := range []string{"whole", "half"} {
					w, err := s.content.Writer(in(t.Context()), content.WithRef(ref))
					if err == nil {
						_, err = w.Write([]byte("some"))
						err = errors.Join(err, w.Close())
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				d := ocispec.Descriptor{Digest: "sha256:" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Size: 4}
				if err := content.WriteBlob(t.Context(), s.backend, "stray", strings.NewReader("test"), d); err != nil {
					t.Fatal(err)
				}
				half := ""
				list, _ := filepath.Glob(filepath.Join(root, "content/ingest/*"))
				for _, dir := range list {
					if b, _ := os.ReadFile(filepath.Join(dir, "ref")); bytes.HasSuffix(b, []byte("/half")) {
						half = dir
					}
				}
				if err := errors.Join(spoil(filepath.Join(half, name)), s.Close()); err != nil {
					t.Fatal(err)
				}
				again := reopen(t, root, &said)
				if _, err := os.Stat(half); !os.IsNotExist(err) {
					t.Errorf("the half download is there: %v", err)
				}
				if _, err := os.Stat(blobPath(again, d.Digest)); !os.IsNotExist(err) {
					t.Errorf("what belongs to nothing is there: %v", err)
				}
				if left, _ := filepath.Glob(filepath.Join(root, "content/ingest/*")); len(left) != 1 || len(said) != 0 {
					t.Errorf("left: %q; said: %q", left, said)
				}
			})
		}
	}
}

// TestHalfArtifactDirsGo: of an artifact's directory that was being made nothing stays.
func TestHalfArtifactDirsGo(t *testing.T) {
	root := t.TempDir()
	half := filepath.Join(root, "artifacts/.new-123")
	if err := os.MkdirAll(filepath.Join(half, "doc"), 0o700); err != nil {
		t.Fatal(err)
	}
	var said []string
	reopen(t, root, &said)
	if _, err := os.Stat(half); !os.IsNotExist(err) || len(said) != 0 {
		t.Errorf("%v %q", err, said)
	}
}

// TestFullDiskIsSaidOnce: in few words.
func TestFullDiskIsSaidOnce(t *testing.T) {
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	name := realRegistry(t, nil) + "/team/app:1"
	maker := open(t)
	imported(t, maker, name, file1("big", strings.Repeat("content ", 2<<20)))
	if err := maker.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Root: filepath.Join(at, "root"), Layers: snapshot.Overlay, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Pull(t.Context(), name, TransferOptions{}); err == nil || strings.Count(err.Error(), "is full") != 1 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
}

// TestLayerThatIsGone: the error says what to do, and what was repaired is found.
func TestLayerThatIsGone(t *testing.T) {
	for _, form := range []snapshot.Format{snapshot.Overlay, snapshot.EROFS} {
		s := openAs(t, form)
		img := imported(t, s, "app:1", file1("a", "b"))
		lost := img.Lower[0]
		if form == snapshot.EROFS {
			lost = filepath.Dir(imageFileOf(s, img.Lower[0]))
		}
		if err := os.Rename(lost, lost+".away"); err != nil {
			t.Fatal(err)
		}
		for range 2 { // from memory, and from the disk
			if _, err := s.Resolve(t.Context(), "app:1", nil); err == nil || strings.Count(err.Error(), "wherry store repair") != 1 {
				t.Errorf("%s: %v", form, err)
			}
		}
		if err := os.Rename(lost+".away", lost); err != nil {
			t.Fatal(err)
		}
		if again, err := s.Resolve(t.Context(), "app:1", nil); err != nil || again.Lower[0] != img.Lower[0] {
			t.Errorf("%s: %v %v", form, again, err)
		}
	}
}
