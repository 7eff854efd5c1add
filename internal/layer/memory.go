package layer

import (
	"bufio"
	"context"
	"io"

	"github.com/klauspost/compress/zstd"
)

// smallWindow is what zstd's levels up to 19 ask for.
const smallWindow = 8 << 20

// Memory keeps what unpacking takes in bounds: of the streams that ask for more than others, which only zstd can, one is unpacked at a time.
// Safe for many goroutines.
type Memory struct{ large chan struct{} }

// NewMemory is for all of a process.
func NewMemory() *Memory { return &Memory{make(chan struct{}, 1)} }

// Unpack does what the function of that name does. It may wait for another stream's end; before that, of a stream that asks for more, it waits
// for whole: one that is still coming, and may be stalled, is not to keep others from their turn. nil: all of it is here.
func (m *Memory) Unpack(ctx context.Context, r io.ReadCloser, whole func(context.Context) error, sink Sink) (Sums, error) {
	defer r.Close()
	b := bufio.NewReaderSize(r, 64<<10)
	most := uint64(smallWindow)
	if asksForMore(b) {
		if whole != nil {
			if err := whole(ctx); err != nil {
				return Sums{}, err
			}
		}
		select {
		case m.large <- struct{}{}:
			defer func() { <-m.large }()
		case <-ctx.Done():
			return Sums{}, context.Cause(ctx)
		}
		most = maxWindow
	}
	return unpackWithin(ctx, buffered{b, r}, sink, most)
}

type buffered struct {
	io.Reader
	io.Closer
}

// asksForMore says so of a stream of zstd whose first frame has a large window, or is none.
func asksForMore(b *bufio.Reader) bool {
	head, _ := b.Peek(zstd.HeaderMaxSize) // what is wrong with the stream comes when it is read
	var h zstd.Header
	return isZstd(head) && h.Decode(head) == nil && (h.Skippable || h.WindowSize > smallWindow)
}
