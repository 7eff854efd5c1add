package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/snapshot"
)

// TestListsOfWhatIsKeptUnpackedOnly: a list's image whose layers are not kept as they came is sent whole.
func TestListsOfWhatIsKeptUnpackedOnly(t *testing.T) {
	s, name, layerOf := pulledOnly(t)
	other := realRegistry(t, nil)
	l := Lists{s}
	list := other + "/team/list:1"
	if err := l.Create(t.Context(), list, false); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(t.Context(), list, Listed{Image: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Push(t.Context(), list, Place{}, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(blobPath(s, layerOf)); !os.IsNotExist(err) {
		t.Errorf("the layer has stayed: %v", err)
	}
	fresh := open(t)
	if err := fresh.Pull(t.Context(), list, TransferOptions{}); err != nil {
		t.Error(err)
	}
}

// TestTwoRegistriesOfAHost: what one has the other is not asked to lend.
func TestTwoRegistriesOfAHost(t *testing.T) {
	var mounts atomic.Int32
	one := realRegistry(t, nil)
	two := realRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("mount") != "" {
				mounts.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	s := open(t)
	imported(t, s, one+"/team/base:1", file1("bin/a", "program"))
	if err := s.Push(t.Context(), one+"/team/base:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), one+"/team/base:1", two+"/team/app:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), two+"/team/app:1", TransferOptions{}); err != nil || mounts.Load() != 0 {
		t.Errorf("%v, asked to lend %d times", err, mounts.Load())
	}
	// Both are known from then on, each by its own port.
	img, err := s.images.Get(in(t.Context()), one+"/team/base:1")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{one: "team/base", two: "team/app"} {
		for _, d := range (origins{s.store}).below(in(t.Context()), img.Target) {
			if got := (origins{s.store}).of(in(t.Context()), host, d.Digest); !slices.Equal(got, []string{want}) {
				t.Errorf("%s has %s in %q", host, d.MediaType, got)
			}
		}
	}
}

// TestLayersThatNoRegistryIsSent are not dropped because their image was pushed.
func TestLayersThatNoRegistryIsSent(t *testing.T) {
	host := realRegistry(t, nil)
	s := openAs(t, snapshot.Overlay)
	l := newLayout(t)
	d := l.image("amd64")
	var m ocispec.Manifest
	if err := json.Unmarshal(l.blobs[d.Digest], &m); err != nil {
		t.Fatal(err)
	}
	m.Layers[0].MediaType = ocispec.MediaTypeImageLayerNonDistributable //nolint:staticcheck // images of old have it
	l.name(l.json(ocispec.MediaTypeImageManifest, m), host+"/a/b:1")
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), host+"/a/b:1", TransferOptions{}); err != nil && !strings.Contains(err.Error(), "unknown") {
		t.Fatal(err)
	}
	img, err := s.images.Get(in(t.Context()), host+"/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.mark(in(t.Context()), img, labelPushed); err != nil {
		t.Fatal(err)
	}
	if _, err := Compact(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if from := s.dropped.from(m.Layers[0].Digest); len(from) != 0 {
		t.Errorf("it is to be had from %q", from)
	}
}

// TestARefusalIsNoDamage: what has come of a blob stays for a later pull when the registry answers something else than the rest.
func TestARefusalIsNoDamage(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 300_000)
	host := realRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:2_000_000])
			panic(http.ErrAbortHandler)
		})
	})
	s := open(t)
	r, err := ref.Parse(host + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := s.registries.Client(t.Context(), r, nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &pull{s: s, ref: r, fetcher: fetcher}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(len(content))}
	ctx, done, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	err = p.blob(ctx, d)
	if err == nil || strings.Contains(err.Error(), "other content") || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
	if st, err := s.content.Status(ctx, remotes.MakeRefKey(ctx, d)); err != nil || st.Offset == 0 {
		t.Errorf("what has come is gone: %+v %v", st, err)
	}
}
