package layer

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	blockSize = 256 << 10
	blocks    = 4 // on their way, at most
)

// ahead decompresses and hashes in a goroutine of its own, some blocks before what is read.
type ahead struct {
	ready chan block
	free  chan []byte
	stop  chan struct{}
	sums  Sums  // set before ready is closed, like err
	err   error // of closing the decompressor
	now   block
	left  []byte // of now
}

type block struct {
	buf []byte
	n   int
	err error // behind the bytes
}

// readAhead takes plain over; close closes it.
func readAhead(ctx context.Context, plain io.ReadCloser) *ahead {
	a := &ahead{ready: make(chan block, blocks), free: make(chan []byte, blocks), stop: make(chan struct{})}
	for range blocks {
		a.free <- nil // made when it is needed: most layers are small
	}
	go func() {
		defer close(a.ready)
		a.run(ctx, plain)
		a.err = plain.Close()
	}()
	return a
}

func (a *ahead) run(ctx context.Context, plain io.Reader) {
	sum := sha256.New()
	for {
		var b block
		select {
		case b.buf = <-a.free:
		case <-a.stop:
			return
		case <-ctx.Done():
			a.ready <- block{err: context.Cause(ctx)} // there is room: as many as there are blocks
			return
		}
		if b.buf == nil {
			b.buf = make([]byte, blockSize)
		}
		for b.n < len(b.buf) && b.err == nil {
			var n int
			n, b.err = plain.Read(b.buf[b.n:])
			b.n += n
		}
		_, _ = sum.Write(b.buf[:b.n])
		a.sums.Size += int64(b.n)
		if b.err == io.EOF {
			a.sums.Diff = digest.NewDigest(digest.SHA256, sum)
		}
		a.ready <- b
		if b.err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.left) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.free <- a.now.buf
			a.now = block{}
		}
		b, ok := <-a.ready
		if !ok {
			return 0, io.ErrUnexpectedEOF
		}
		a.now, a.left = b, b.buf[:b.n]
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

// close waits for the goroutine.
func (a *ahead) close() (Sums, error) {
	close(a.stop)
	for range a.ready {
	}
	return a.sums, a.err
}
