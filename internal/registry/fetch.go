package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher reads a repository's content, from mirrors or the registry itself. It holds it against its size; the digest is for its reader to
// check, who tells by Distrust. It is a remotes.Fetcher. Safe for many goroutines.
type Fetcher struct {
	// Waiting, if not nil, hears that a download has broken off and is taken up again.
	Waiting func(d ocispec.Descriptor, wait time.Duration, err error)

	c         *Client
	endpoints []*endpoint

	mu     sync.Mutex // guards what follows
	served map[digest.Digest][]*endpoint
	bad    map[digest.Digest][]*endpoint
}

// Fetcher reads the repository's content.
func (c *Client) Fetcher(_ context.Context) (*Fetcher, error) {
	endpoints, err := c.able(docker.HostCapabilityPull)
	if err != nil {
		return nil, err
	}
	return &Fetcher{c: c, endpoints: endpoints, served: map[digest.Digest][]*endpoint{}, bad: map[digest.Digest][]*endpoint{}}, nil
}

// Open reads d from an offset on, to its end. A connection that breaks, or brings nothing for a while, is taken up again where it stopped, a
// limited number of times without progress; nothing is asked for twice. Addresses of the image's making (d.URLs) are never asked.
func (f *Fetcher) Open(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	b, err := f.blob(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	if err := b.connect(); err != nil && !b.recover(err) {
		return nil, errors.Join(b.err, b.Close())
	}
	return b, nil
}

// Fetch reads d. What it gives is an io.Seeker; nothing is asked before the first Read.
func (f *Fetcher) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return f.blob(ctx, d, 0)
}

// Distrust tells that what came for a digest was something else. Who served it is not asked for it again: the mirrors that did, and the
// registry itself where none of them is new. false: nobody did, or nobody else is left.
func (f *Fetcher) Distrust(d digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.served[d]) == 0 {
		return false
	}
	liars := slices.DeleteFunc(slices.Clone(f.served[d]), func(e *endpoint) bool { return !e.mirror || slices.Contains(f.bad[d], e) })
	if len(liars) == 0 {
		liars = f.served[d]
	}
	f.bad[d] = append(f.bad[d], liars...)
	delete(f.served, d)
	return slices.ContainsFunc(f.endpoints, func(e *endpoint) bool { return !slices.Contains(f.bad[d], e) })
}

// IsOther says that what came was not what its digest and size say, or that there was nothing to go on with: whoever served it is not to be
// trusted with it. A registry that only refuses to answer is none of that.
func IsOther(err error) bool {
	status := statusOf(err)
	return errdefs.IsFailedPrecondition(err) && (status == 0 || status == http.StatusRequestedRangeNotSatisfiable)
}

// candidates are those that have not sent something else for a digest.
func (f *Fetcher) candidates(d digest.Digest) []*endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.endpoints), func(e *endpoint) bool { return slices.Contains(f.bad[d], e) })
}

func (f *Fetcher) blob(ctx context.Context, d ocispec.Descriptor, offset int64) (*blob, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", clip(d.Digest.String()), err, errdefs.ErrInvalidArgument)
	}
	if d.Size < 0 || offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("read %s from %d of %d bytes: %w", d.Digest, offset, d.Size, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	b := &blob{size: d.Size, at: offset, cancel: cancel}
	b.open = func(at int64) (io.ReadCloser, error) {
		from := f.candidates(d.Digest)
		if b.broke >= breaks {
			slices.SortStableFunc(from, func(x, y *endpoint) int { return x.rank() - y.rank() })
		}
		return f.openAny(ctx, from, d, at)
	}
	wait := f.c.pool.o.Pause
	b.wait = func(failed int, err error) error {
		wait := wait << (failed - 1)
		if f.Waiting != nil {
			f.Waiting(d, wait, err)
		}
		select {
		case <-time.After(wait):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return b, nil
}

// openAny opens d at an offset at the first endpoint that has it.
func (f *Fetcher) openAny(ctx context.Context, from []*endpoint, d ocispec.Descriptor, at int64) (io.ReadCloser, error) {
	return first(from, func(e *endpoint) (io.ReadCloser, error) {
		r, err := e.open(ctx, d, at)
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.served[d.Digest] = append(f.served[d.Digest], e)
		}
		return r, err
	})
}

// open reads d from an offset on at one endpoint.
func (e *endpoint) open(ctx context.Context, d ocispec.Descriptor, at int64) (io.ReadCloser, error) {
	kind := "blobs"
	if isManifest(d.MediaType) {
		kind = "manifests"
	}
	r := e.at(http.MethodGet, kind, d.Digest.String())
	r.header["Accept"] = []string{d.MediaType, "*/*"}
	r.header.Set("Accept-Encoding", "identity")
	if at > 0 {
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	resp, err := e.ask(ctx, r, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	if err := fits(resp, d, at); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if at > 0 && resp.StatusCode == http.StatusOK { // it knows no parts
		if _, err := io.CopyN(io.Discard, resp.Body, at); err != nil {
			resp.Body.Close()
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read up to byte %d: %w", at, err)
		}
	}
	return resp.Body, nil
}

// fits holds the head of an answer against what was asked for, before any of its bytes are read.
func fits(resp *http.Response, d ocispec.Descriptor, at int64) error {
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return fmt.Errorf("the registry sends %s in the coding %q, which was not asked for: %w", d.Digest, clip(coding), errdefs.ErrInvalidArgument)
	}
	length := d.Size
	if resp.StatusCode == http.StatusPartialContent {
		from, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || from != at || total >= 0 && total != d.Size {
			return fmt.Errorf("the registry sends the part %q of %s, and %d- of %d was asked for: %w", clip(resp.Header.Get("Content-Range")), d.Digest, at, d.Size, errdefs.ErrInvalidArgument)
		}
		length -= at
	}
	if resp.ContentLength >= 0 && resp.ContentLength != length {
		return fmt.Errorf("the registry has %d bytes for %s, and the manifest says %d: %w", resp.ContentLength, d.Digest, length, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// parseContentRange reads "bytes 5-9/10"; a total of "*" is -1. https://www.rfc-editor.org/rfc/rfc9110#field.content-range
func parseContentRange(s string) (from, total int64, ok bool) {
	rest, isBytes := strings.CutPrefix(strings.ToLower(strings.TrimSpace(s)), "bytes ")
	span, all, both := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(span, "-")
	if !isBytes || !both || !dash {
		return 0, 0, false
	}
	from, err1 := parseCount(first)
	to, err2 := parseCount(last)
	total, err3 := int64(-1), error(nil)
	if all != "*" {
		total, err3 = parseCount(all)
	}
	ok = err1 == nil && err2 == nil && err3 == nil && from <= to && (total < 0 || to < total)
	return from, total, ok
}

// parseCount reads decimal digits and nothing else.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}
