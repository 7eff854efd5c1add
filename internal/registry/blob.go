package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

const (
	// tries is how often something is tried before its error counts.
	tries = 5

	// progress is how much a download has to bring for its failures before that to be forgotten.
	progress = 1 << 20

	// trickle is how much of an answer has to come within the time of patience: a registry that sends a byte now and then is as good as gone.
	trickle = 4 << 10

	// breaks of a download are how many may be before the registry itself is asked first, and its mirrors after it.
	breaks = 2
)

// blob is a download that goes on where it stopped.
type blob struct {
	size, at int64
	cancel   context.CancelCauseFunc
	open     func(at int64) (io.ReadCloser, error)
	wait     func(failed int, err error) error

	body   io.ReadCloser // nil: to be opened
	failed int
	broke  int   // how often it has broken off in the middle
	since  int64 // bytes since the last failure
	err    error // that it ended with
}

func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.err != nil {
			return 0, b.err
		}
		if b.at == b.size && b.body == nil {
			return 0, io.EOF
		}
		if b.body == nil {
			if err := b.connect(); err != nil {
				b.recover(err)
				continue
			}
		}
		// One byte more than is expected, so that more than that is seen.
		n, err := b.body.Read(p[:min(int64(len(p)), b.size-b.at+1)])
		b.at += int64(n)
		if b.since += int64(n); b.since >= progress {
			b.failed = 0
		}
		switch {
		case b.at > b.size:
			b.err = fmt.Errorf("the registry sends more than the %d bytes that the manifest says: %w", b.size, errdefs.ErrFailedPrecondition)
			return 0, b.err
		case err == nil:
			return n, nil
		case errors.Is(err, io.EOF) && b.at == b.size:
			b.disconnect()
			b.err = io.EOF
			return n, io.EOF
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		b.disconnect()
		b.broke++
		b.recover(err)
		if n > 0 {
			return n, nil
		}
	}
}

func (b *blob) connect() error {
	body, err := b.open(b.at)
	if err != nil {
		return err
	}
	b.body = body
	return nil
}

func (b *blob) disconnect() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// recover waits where a further try may do better, and says whether one is to be made; else err is what the download ended with.
func (b *blob) recover(err error) bool {
	b.since = 0
	b.failed++
	switch {
	case !transient(err):
		b.err = err
	case b.failed >= tries:
		b.err = &exhausted{err}
	default:
		b.err = b.wait(b.failed, err)
	}
	return b.err == nil
}

// Seek sets from where on the next Read reads.
func (b *blob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 || offset > b.size {
		return b.at, fmt.Errorf("seek to %d of %d bytes: %w", offset, b.size, errdefs.ErrInvalidArgument)
	}
	if offset != b.at {
		b.disconnect()
		b.at = offset
		if b.err == io.EOF {
			b.err = nil
		}
	}
	return b.at, nil
}

func (b *blob) Close() error {
	b.disconnect()
	b.cancel(nil)
	return nil
}

// exhausted is an error that has been tried often enough.
type exhausted struct{ error }

func (e *exhausted) Unwrap() error { return e.error }

// Retry calls f until it succeeds or its error is one that a further try would meet too, at most five times. say, if not nil, hears of
// each wait.
func (p *Pool) Retry(ctx context.Context, say func(wait time.Duration, err error), f func() error) error {
	wait := p.o.Pause
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == tries || !transient(err) || ctx.Err() != nil {
			return err
		}
		if say != nil {
			say(wait, withoutQuery(err))
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// transient errors are those that a second try may not see.
func transient(err error) bool {
	if enough := (*exhausted)(nil); errors.As(err, &enough) {
		return false
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsInvalidArgument(err) || errors.Is(err, context.Canceled) {
		return false
	}
	if s := statusOf(err); s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable {
		return false // that has been waited for (patient)
	}
	return broken(err) || errdefs.IsUnavailable(err) || isNetwork(err)
}
