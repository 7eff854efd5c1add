package image

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

const (
	// tries is how often a broken download is taken up again where it stopped.
	tries = 5

	// patience is how long a registry may send nothing in the middle of a download.
	patience = 60 * time.Second

	pause = 200 * time.Millisecond
)

// blob fetches one piece of content, verified by size and digest; a broken connection is taken up where it stopped. Of all pulls that
// want it, one fetches it. Addresses of the image's making ("urls") are never asked.
func (p *pull) blob(ctx context.Context, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	d.URLs, d.Data = nil, nil
	unlock, err := p.s.pulls.lock(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.mend(ctx, d); err != nil {
		return err
	}
	if d.Size == 0 {
		return fmt.Errorf("%s: no content has 0 bytes: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	wait := p.s.pause
	for try := 1; ; try++ {
		err := remotes.Fetch(ctx, p.s.content, watchful{p.fetcher, p.s.patience}, d)
		if err == nil || errdefs.IsAlreadyExists(err) {
			return p.s.labelChildren(ctx, d)
		}
		if errdefs.IsFailedPrecondition(err) {
			// The bytes are not what the digest says: those that are here are no ground to go on from.
			_ = p.s.content.Abort(context.WithoutCancel(ctx), remotes.MakeRefKey(ctx, d))
			return fmt.Errorf("the registry sends other content than the digest and size say: %w", err)
		}
		if try == tries || !transient(err) || ctx.Err() != nil {
			return err
		}
		p.o.say(short(d), "Retrying in %s: %s", wait, withoutQuery(err))
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// mend drops what is here but damaged, so that it is fetched anew: files that a crash or a failing disk has cut short, and small ones with
// other content.
func (p *pull) mend(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := p.s.content.Info(ctx, d.Digest); err != nil {
		return nil
	}
	info, err := p.s.backend.Info(ctx, d.Digest)
	if err == nil && info.Size == d.Size && (d.Size > maxJSON || p.s.verify(ctx, d) == nil) {
		return nil
	}
	if err == nil && info.Size != d.Size && p.s.verify(ctx, ocispec.Descriptor{Digest: d.Digest, Size: info.Size}) == nil {
		return fmt.Errorf("%s has %d bytes, the manifest says %d: %w", d.Digest, info.Size, d.Size, errdefs.ErrInvalidArgument)
	}
	p.s.forgetLayers()
	return p.s.discard(ctx, d.Digest)
}

// transient errors are those that a second try may not see.
func transient(err error) bool {
	if errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsInvalidArgument(err) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errdefs.IsUnavailable(err) || isNetwork(err)
}

// watchful gives up a download that has come to a stand.
type watchful struct {
	remotes.Fetcher
	patience time.Duration
}

func (f watchful) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := f.Fetcher.Fetch(ctx, d)
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
