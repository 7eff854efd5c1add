package inflate

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
)

// BenchmarkRead measures on the file that GZ names, a layer say, and on text of its own without it.
func BenchmarkRead(b *testing.B) {
	raw := compressed(b, contents()["mixed"], 6)
	if name := os.Getenv("GZ"); name != "" {
		var err error
		if raw, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	rows := []struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		{"own", func(r io.Reader) (io.Reader, error) { return NewReader(r) }},
		{"klauspost", func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) }},
		{"std", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	}
	buf := make([]byte, 128<<10)
	for _, row := range rows {
		b.Run(row.name, func(b *testing.B) {
			for range b.N {
				z, err := row.open(bytes.NewReader(raw))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{z}, buf)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
	}
}
