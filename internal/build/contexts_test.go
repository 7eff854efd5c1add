package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/util/archiveutil"
)

// TestContextsOfAnyTar: whatever way a tar file begins, BuildKit sees from its first KiB that it is one, and it is the same bytes.
func TestContextsOfAnyTar(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"plain":     {Name: "Dockerfile"},
		"pax":       {Name: "Dockerfile", ModTime: time.Unix(1, 500), Format: tar.FormatPAX},
		"long name": {Name: strings.Repeat("d/", 200) + "f", Format: tar.FormatGNU},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, got bytes.Buffer
			w := tar.NewWriter(&sent)
			h.Mode, h.Size = 0o644, 1
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte("x")); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			if err := receive(&got, bytes.NewReader(sent.Bytes())); err != nil {
				t.Fatal(err)
			}
			if !archiveutil.IsArchive(got.Bytes()[:1024]) {
				t.Error("BuildKit would take it for a Dockerfile")
			}
			kept := got.Bytes()
			if archiveutil.HasGzipPrefix(kept) {
				z, err := gzip.NewReader(&got)
				if err != nil {
					t.Fatal(err)
				}
				if kept, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(kept, sent.Bytes()) {
				t.Error("it is another file")
			}
		})
	}
	var got bytes.Buffer
	if err := receive(&got, strings.NewReader("FROM scratch\n")); err != nil || got.String() != "FROM scratch\n" {
		t.Errorf("a Dockerfile alone: %q, %v", got.String(), err)
	}
}
