package archive

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func TestDecompress(t *testing.T) {
	const text = "some text, some text\n"
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, err := io.WriteString(w, text)
	must(t, err, w.Close())
	z, err := zstd.NewWriter(&zs)
	must(t, err)
	_, err = io.WriteString(z, text)
	must(t, err, z.Close())
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	must(t, err)
	skippable := append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00hi"), zs.Bytes()...)
	for name, b := range map[string][]byte{"gzip": gz.Bytes(), "zstd": zs.Bytes(), "zstd after a skippable frame": skippable, "bzip2": bz, "plain": []byte(text)} {
		r, err := Decompress(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(r)
		if string(got) != text || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		r.Close()
	}
	if _, err := Decompress(strings.NewReader("\xfd7zXZ\x00 and so on")); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "unxz") {
		t.Errorf("xz: %v", err)
	}
	if _, err := Decompress(strings.NewReader("\x1f\x8b\x08 no")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("damaged gzip: %v", err)
	}
	if r, err := Decompress(strings.NewReader("")); err != nil {
		t.Error(err)
	} else if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
		t.Errorf("nothing: %q, %v", b, err)
	}
}

// bzipped is made by bzip2(1); the standard library only reads it.
const bzipped = "QlpoOTFBWSZTWYS/qigAAAdRgAAQQAQCAoxAIAAhKAn6kIMmIbwrSTwi8UJ8XckU4UJCEv6ooA=="
