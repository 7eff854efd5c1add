package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"

	"wherry.dev/wherry/internal/inflate"
)

// maxWindow bounds the memory that a zstd stream can ask for; zstd(1) makes up to 128 MiB with --long.
const maxWindow = 128 << 20

// Decompress looks at the first bytes of a stream and returns what they say it holds: gzip, zstd or bzip2, decompressed in process, or
// the stream as it is.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	is := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case is("\x1f\x8b\x08"):
		z, err := inflate.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return z, nil
	case is("\x28\xb5\x2f\xfd"), len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return z.IOReadCloser(), nil
	case is("BZh"):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case is("\xfd7zXZ\x00"):
		return nil, fmt.Errorf("the archive is compressed with xz, which is not read here: decompress it first (unxz), or use gzip or zstd: %w", errdefs.ErrInvalidArgument)
	}
	return io.NopCloser(b), nil
}
