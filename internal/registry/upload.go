package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxMounts is how many repositories are asked to lend a blob before it is sent.
const maxMounts = 3

// Pusher writes content into a repository. Safe for many goroutines.
type Pusher struct {
	// Waiting, if not nil, hears that an upload has broken off and is taken up again.
	Waiting func(d ocispec.Descriptor, wait time.Duration, err error)

	pool *Pool
	to   *endpoint
}

// Pusher writes into the client's repository: at the registry itself, or at a mirror that the settings name for it.
func (c *Client) Pusher(_ context.Context) (*Pusher, error) {
	endpoints, err := c.able(docker.HostCapabilityPush)
	if err != nil {
		return nil, err
	}
	return &Pusher{pool: c.pool, to: endpoints[0]}, nil
}

// Upload is a piece of content for a registry.
type Upload struct {
	ocispec.Descriptor
	Content io.ReaderAt
	From    func() []string  // repositories of the same registry that may have it; nil: none. Asked once it is known that this one has it not
	Sent    func(have int64) // hears how many bytes the registry is thought to have; nil: nobody does
}

// Outcome says how a blob came to a repository.
type Outcome struct {
	Existed bool   // it was there
	Mounted string // the repository that lent it, "" for none
}

// Blob brings a piece of content into the repository: nothing is sent when it is there, or when another repository of the registry can lend
// it. An upload that breaks goes on where the registry says that it is.
//
//	HEAD  blobs/D                        200: there
//	POST  blobs/uploads/?mount=D&from=R  201: lent          202: Location
//	PUT   Location&digest=D              201: all of it at once
//	GET   Location                       204: Range 0-N     after a break
//	PATCH Location, Content-Range        202: Location      the rest, or a part
//	PUT   Location&digest=D              201: no more
func (p *Pusher) Blob(ctx context.Context, u Upload) (Outcome, error) {
	there, err := p.has(ctx, "blobs", u.Digest)
	if err != nil || there {
		return Outcome{Existed: there}, err
	}
	s := &session{p: p, Upload: u}
	defer s.takeOver() // a connection that is given up may read on
	if u.From != nil {
		s.lenders = u.From()
	}
	best := int64(0)
	for failed := 0; ; {
		err := s.step(ctx)
		if err == nil && (s.done || s.mounted != "") {
			return Outcome{Mounted: s.mounted}, nil
		}
		if s.offset-best >= progress { // an upload that begins anew is none yet
			failed, best = 0, s.offset
		}
		if err == nil {
			continue
		}
		if failed++; failed >= tries || !transient(err) || ctx.Err() != nil {
			return Outcome{}, err
		}
		wait := p.pool.o.Pause << (failed - 1)
		if p.Waiting != nil {
			p.Waiting(u.Descriptor, wait, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return Outcome{}, context.Cause(ctx)
		}
	}
}

// Has says whether the repository has a manifest or index.
func (p *Pusher) Has(ctx context.Context, d digest.Digest) (bool, error) {
	return p.has(ctx, "manifests", d)
}

func (p *Pusher) has(ctx context.Context, kind string, d digest.Digest) (bool, error) {
	r := p.to.at(http.MethodHead, kind, d.String())
	r.scope = p.to.scope("pull,push")
	r.header["Accept"] = manifestTypes()
	resp, err := p.to.do(ctx, r)
	if err != nil {
		return false, err
	}
	drain(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return false, nil
	}
	return false, newStatusError(resp)
}

// Manifest puts a manifest or index under a tag, or under its digest where tag is "". What it refers to has to be there.
func (p *Pusher) Manifest(ctx context.Context, d ocispec.Descriptor, content []byte, tag string) error {
	name := tag
	if name == "" {
		name = d.Digest.String()
	}
	r := p.to.at(http.MethodPut, "manifests", name)
	r.scope = p.to.scope("pull,push")
	r.header.Set("Content-Type", d.MediaType)
	r.size = int64(len(content))
	r.body = func(context.Context) io.ReadCloser { return io.NopCloser(strings.NewReader(string(content))) }
	return p.pool.Retry(ctx, nil, func() error {
		resp, err := p.to.ask(ctx, r, http.StatusCreated, http.StatusOK, http.StatusAccepted)
		if err != nil {
			return err
		}
		drain(resp)
		return sameDigest(resp, d.Digest)
	})
}

func sameDigest(resp *http.Response, d digest.Digest) error {
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != d.String() && strings.HasPrefix(got, d.Algorithm().String()+":") {
		return fmt.Errorf("the registry has taken %s as %q: %w", d, clip(got), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// session is an upload under way.
type session struct {
	Upload
	p       *Pusher
	lenders []string // that have not been asked yet
	at      *url.URL // nil: not begun
	offset  int64    // what the registry has
	chunk   int64    // at most so much at once; 0: everything
	resumed bool
	unsure  bool // offset has to be asked for
	ending  bool // all was to be there, and no answer said so: it may be
	done    bool
	mounted string

	mu   sync.Mutex // guards Content, Sent and what follows
	turn int        // of the part that may be read
}

// takeOver ends the reading of earlier parts, and gives the number for the next.
func (s *session) takeOver() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	return s.turn
}

// step does what is next.
func (s *session) step(ctx context.Context) error {
	switch {
	case s.ending:
		there, err := s.p.has(ctx, "blobs", s.Digest)
		s.ending, s.done = err != nil, there
		return err
	case s.at == nil:
		return s.begin(ctx)
	case s.unsure:
		return s.status(ctx)
	case s.offset == 0 && s.chunk == 0, s.offset == s.Size:
		return s.put(ctx)
	}
	return s.patch(ctx)
}

// begin asks for a place to send to, or for another repository's blob.
func (s *session) begin(ctx context.Context) error {
	s.offset, s.resumed, s.unsure = 0, false, false
	e := s.p.to
	for i, from := range s.lenders {
		if i == maxMounts {
			break
		}
		r := e.at(http.MethodPost, "blobs", "uploads")
		r.url.Path += "/"
		r.url.RawQuery = url.Values{"mount": {s.Digest.String()}, "from": {from}}.Encode()
		r.scope = e.scope("pull,push") + " repository:" + from + ":pull"
		resp, err := e.do(ctx, r)
		if err != nil && (!errors.Is(err, docker.ErrInvalidAuthorization) || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			continue
		}
		drain(resp)
		if resp.StatusCode == http.StatusCreated && sameDigest(resp, s.Digest) == nil {
			s.mounted = from
			if s.at != nil {
				s.cancel(ctx, s.at)
			}
			return nil
		}
		if resp.StatusCode == http.StatusAccepted && s.at == nil { // this one lends nothing: an upload has begun instead
			err = s.next(resp)
		} else if resp.StatusCode == http.StatusAccepted {
			s.drop(ctx, resp)
		}
		if err != nil {
			return err
		}
	}
	if s.lenders = nil; s.at != nil {
		return nil
	}
	r := e.at(http.MethodPost, "blobs", "uploads")
	r.url.Path += "/"
	r.scope = e.scope("pull,push")
	resp, err := e.ask(ctx, r, http.StatusAccepted)
	if err != nil {
		return err
	}
	drain(resp)
	return s.next(resp)
}

// drop gives an upload up that an answer has begun.
func (s *session) drop(ctx context.Context, resp *http.Response) {
	if at, err := s.p.to.location(resp); err == nil {
		s.cancel(ctx, at)
	}
}

// cancel does so, if the registry lets it: else it forgets the upload by itself.
func (s *session) cancel(ctx context.Context, at *url.URL) {
	e, where := s.p.to, *at
	if resp, err := e.do(ctx, request{method: http.MethodDelete, url: &where, header: http.Header{}, scope: e.scope("pull,push")}); err == nil {
		drain(resp)
	}
}

// next takes the place of what is next from an answer.
func (s *session) next(resp *http.Response) error {
	at, err := s.p.to.location(resp)
	if err != nil {
		return err
	}
	s.at = at
	if least, err := parseCount(resp.Header.Get("OCI-Chunk-Min-Length")); err == nil && s.chunk > 0 {
		s.chunk = max(s.chunk, min(least, 1<<30))
	}
	return nil
}

// put sends everything that is left, which ends the upload.
func (s *session) put(ctx context.Context) error {
	resp, err := s.send(ctx, http.MethodPut, s.Size)
	if err != nil {
		s.unsure, s.ending = true, true
		return err
	}
	defer drain(resp)
	switch status := resp.StatusCode; {
	case status == http.StatusCreated, status == http.StatusOK, status == http.StatusNoContent:
		s.told(s.Size)
		s.done = true
		return sameDigest(resp, s.Digest)
	case status == http.StatusRequestEntityTooLarge && s.chunk == 0:
		s.chunk, s.at = s.p.pool.o.Chunk, nil
		return nil
	case status == http.StatusBadRequest && s.resumed:
		s.at = nil // what it had was not what it said
		return fmt.Errorf("the registry has lost its place in the upload: %w: %w", newStatusError(resp), errdefs.ErrUnavailable)
	}
	s.ending = true
	return s.refused(resp)
}

// patch sends the rest, or the next part of it.
func (s *session) patch(ctx context.Context) error {
	end := s.Size
	if s.chunk > 0 {
		end = min(end, s.offset+s.chunk)
	}
	sent := end
	resp, err := s.send(ctx, http.MethodPatch, end)
	if err != nil {
		s.unsure = true
		return err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusCreated {
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			s.unsure = true
			return fmt.Errorf("%w: %w", newStatusError(resp), errdefs.ErrUnavailable)
		}
		return s.refused(resp)
	}
	if have, ok := parseUploadRange(resp.Header.Get("Range")); ok {
		if have > end || have <= s.offset {
			return fmt.Errorf("the registry says that it has %d bytes, and %d were sent: %w", have, end, errdefs.ErrFailedPrecondition)
		}
		end = have
	}
	least := min(s.offset+progress, sent)
	s.offset = end
	s.told(end)
	if err := s.next(resp); err != nil || end >= least {
		return err
	}
	return fmt.Errorf("the registry has taken next to nothing of what was sent: %w", errdefs.ErrUnavailable)
}

// refused decides what an unexpected answer means for the upload.
func (s *session) refused(resp *http.Response) error {
	err := newStatusError(resp)
	if resp.StatusCode == http.StatusNotFound { // the upload is not known any more
		s.at = nil
		return fmt.Errorf("the registry has forgotten the upload: %w", errdefs.ErrUnavailable)
	}
	s.unsure = true
	return err
}

// send sends the bytes up to end.
func (s *session) send(ctx context.Context, method string, end int64) (*http.Response, error) {
	e, at, begin := s.p.to, *s.at, s.offset
	if end > begin { // content that has to come from elsewhere does so before the registry waits for it
		s.takeOver()
		if _, err := s.Content.ReadAt(make([]byte, 1), begin); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read %s: %w", s.Digest, err)
		}
	}
	r := request{method: method, url: &at, header: http.Header{}, scope: e.scope("pull,push"), size: end - begin}
	if method == http.MethodPut {
		at.RawQuery = strings.TrimPrefix(at.RawQuery+"&digest="+url.QueryEscape(s.Digest.String()), "&")
	} else {
		r.header.Set("Content-Range", fmt.Sprintf("%d-%d", begin, end-1))
	}
	r.header.Set("Content-Type", "application/octet-stream")
	if r.size >= 1<<20 {
		r.header.Set("Expect", "100-continue") // an answer that says no need not be heard after all of it
	}
	r.body = func(context.Context) io.ReadCloser {
		return &part{s: s, Reader: io.NewSectionReader(s.Content, begin, end-begin), at: begin, turn: s.takeOver()}
	}
	if r.size == 0 {
		r.body = func(context.Context) io.ReadCloser { return http.NoBody }
	}
	return e.do(ctx, r)
}

func (s *session) told(have int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(have)
}

// tell is called with mu held.
func (s *session) tell(have int64) {
	if s.Sent != nil {
		s.Sent(have)
	}
}

// part is what one request sends.
type part struct {
	io.Reader
	s    *session
	at   int64
	turn int
}

func (p *part) Read(b []byte) (int, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.turn != p.s.turn {
		return 0, errors.New("another request goes on with this content")
	}
	n, err := p.Reader.Read(b)
	p.at += int64(n)
	p.s.tell(p.at)
	return n, err
}

func (p *part) Close() error { return nil }

// status asks how much of a broken upload has come. A registry that has next to nothing, or does not know, is sent everything anew.
func (s *session) status(ctx context.Context) error {
	e, at := s.p.to, *s.at
	resp, err := e.do(ctx, request{method: http.MethodGet, url: &at, header: http.Header{}, scope: e.scope("pull,push")})
	if err != nil {
		return err
	}
	drain(resp)
	have, ok := parseUploadRange(resp.Header.Get("Range"))
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK || !ok || have <= 1 || have > s.Size {
		s.at = nil
		return nil
	}
	s.offset, s.resumed, s.unsure = have, true, false
	s.told(have)
	if resp.Header.Get("Location") == "" {
		return nil
	}
	return s.next(resp)
}

// parseUploadRange reads how many bytes a registry has from "0-N", N being the last one.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks
func parseUploadRange(s string) (int64, bool) {
	from, last, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "bytes="), "-")
	n, err := strconv.ParseUint(last, 10, 62)
	return int64(n) + 1, ok && from == "0" && err == nil
}

// location reads where an upload goes on: at the registry, however it writes its own address, or over TLS at the same site. The
// credentials stay at the registry.
func (e *endpoint) location(resp *http.Response) (*url.URL, error) {
	s := resp.Header.Get("Location")
	u, err := resp.Request.URL.Parse(s)
	switch {
	case s == "" || err != nil || u.Host == "" || len(s) > 16<<10 || u.User != nil:
		return nil, fmt.Errorf("the registry names %q as the place of an upload, which is no address: %w", clip(s), errdefs.ErrInvalidArgument)
	case sameHost(u.Host, e.host, u.Scheme), strings.EqualFold(u.Host, e.host):
		u.Scheme, u.Host = e.base.Scheme, e.host
	case u.Scheme == "https" && site(u.Hostname()) != "" && site(u.Hostname()) == site(hostname(e.host)):
	default:
		return nil, fmt.Errorf("registry %s wants the upload at %s, which is elsewhere: refused; where it stands behind a proxy, it has to be told its own address: %w",
			e.host, clip(origin(u)), errdefs.ErrPermissionDenied)
	}
	u.Fragment = ""
	return u, nil
}
