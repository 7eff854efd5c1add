package retar

import (
	"bytes"
	stdgzip "compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// Way is how a tar is compressed, such that the same tar becomes the same bytes. It is written down in stores: a name means the same for ever,
// which a test holds.
type Way string

// The ways that are known: none, that of layers which this engine makes, and those of Go's own library, which Docker and containerd use.
const (
	Plain  Way = "plain"
	Fast   Way = "gzip-fast-1"
	Go     Way = "gzip-go-1"
	GoFast Way = "gzip-go-fast-1"
)

// WaysOf are those by which a blob may have been made that begins with head (ten bytes do). Most of all that compresses cannot be told, nor done
// again: each program, version and number of threads has bytes of its own.
func WaysOf(head []byte) []Way {
	const (
		fastest   = 4   // RFC 1952, XFL
		anySystem = 255 // what Go's libraries say (OS)
	)
	switch {
	case len(head) >= 10 && bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		switch {
		case head[9] != anySystem:
			return nil
		case head[8] == fastest:
			return []Way{Fast, GoFast}
		}
		return []Way{Go}
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), bytes.HasPrefix(head, []byte("BZh")):
		return nil
	}
	return []Way{Plain}
}

// Writer compresses what is written to it. Close ends the stream, and leaves w open.
func (way Way) Writer(w io.Writer) (io.WriteCloser, error) {
	switch way {
	case Plain:
		return plain{w}, nil
	case Fast:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case Go:
		return stdgzip.NewWriter(w), nil
	case GoFast:
		return stdgzip.NewWriterLevel(w, stdgzip.BestSpeed)
	}
	return nil, fmt.Errorf("compress as %q: this version does not know how", string(way))
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }
