package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tries is how often something is tried before its error counts.
const tries = 5

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
	if errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsInvalidArgument(err) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errdefs.IsUnavailable(err) || isNetwork(err)
}

// Fetcher reads a repository's content. It verifies nothing; a download that comes to a stand ends. It is a remotes.Fetcher.
type Fetcher struct {
	next     remotes.Fetcher
	patience time.Duration
}

// Open reads d from an offset on.
func (f *Fetcher) Open(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := f.Fetch(ctx, d)
	if err != nil || offset == 0 {
		return r, err
	}
	if _, err := r.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Fetch reads d. What it gives is an io.Seeker, before the first Read. Addresses of the image's making (d.URLs) are never asked.
func (f *Fetcher) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	d.URLs, d.Data = nil, nil
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := f.next.Fetch(ctx, d)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stalled := fmt.Errorf("the registry has sent nothing for %s: %w", f.patience, errdefs.ErrUnavailable)
	w := &watched{r: r, patience: f.patience, cancel: cancel, stalled: func() bool { return context.Cause(ctx) == stalled }, err: stalled}
	w.timer = time.AfterFunc(f.patience, func() { cancel(stalled) })
	return w, nil
}

// watched is a download whose every read has to come in time.
type watched struct {
	r        io.ReadCloser
	timer    *time.Timer
	patience time.Duration
	cancel   context.CancelCauseFunc
	stalled  func() bool
	err      error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.timer.Reset(w.patience)
	if err != nil && err != io.EOF && w.stalled() {
		return n, w.err
	}
	return n, err
}

// Seek is how a download goes on where it stopped.
func (w *watched) Seek(offset int64, whence int) (int64, error) {
	s, ok := w.r.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("this registry gives no parts of a layer: %w", errdefs.ErrNotImplemented)
	}
	return s.Seek(offset, whence)
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	return w.r.Close()
}
