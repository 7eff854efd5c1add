package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"

	"wherry.dev/wherry/internal/inflate"
)

const (
	// What a stream may become: honest layers rarely shrink to less than a tenth; deflate's own limit, which bombs reach, is a thousandth.
	freeBytes = 512 << 20
	maxRatio  = 200

	maxWindow = 128 << 20 // memory that a zstd stream may ask for; zstd itself asks for no more unless told to
)

// Decompress reads a stream that is plain or compressed with gzip, zstd or bzip2, all within this process. It refuses to go on when the
// stream grows out of proportion.
func Decompress(r io.Reader) (io.ReadCloser, error) { return decompress(r, maxWindow) }

func decompress(r io.Reader, window uint64) (io.ReadCloser, error) {
	in := &counted{r: r}
	b := bufio.NewReaderSize(in, 64<<10)
	head, err := b.Peek(10)
	if err != nil && err != io.EOF {
		return nil, err
	}
	out := &budgeted{in: in, close: func() error { return nil }}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		z, err := inflate.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("read as gzip: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		out.r, out.close = z, z.Close
	case isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("read as zstd: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		out.r, out.close = z, func() error { z.Close(); return nil }
	case bytes.HasPrefix(head, []byte("BZh")):
		out.r = bzip2.NewReader(b)
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("it is compressed with xz, which this engine does not read: decompress it with xz -d, or use gzip or zstd: %w", errdefs.ErrInvalidArgument)
	default:
		out.r, out.plain = b, true
	}
	return out, nil
}

// isZstd: a frame, or one of those that are passed over.
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// budgeted holds what comes out against what went in.
type budgeted struct {
	in    *counted
	r     io.Reader
	close func() error
	n     int64
	plain bool
}

func (b *budgeted) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if !b.plain && b.n > freeBytes+maxRatio*b.in.n {
		return 0, fmt.Errorf("%d MiB of compressed data have become %d MiB already, over %d times as much: refused as a decompression bomb: %w",
			b.in.n>>20, b.n>>20, maxRatio, errdefs.ErrInvalidArgument)
	}
	return n, err
}

func (b *budgeted) Close() error { return b.close() }
