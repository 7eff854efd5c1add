package build

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/util/tracing"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/registry"
)

// contextHost is where BuildKit loads the archives from that clients have sent: never a machine's name, as it has no letters that one may have.
const contextHost = "build_context.invalid"

// contexts are the archives that clients have sent along with their builds. BuildKit loads them by an address that has their digest: what
// was sent before it has already. All other addresses are loaded as ever.
type contexts struct {
	mu   sync.Mutex // guards what follows
	sent map[string]*sentContext

	once    sync.Once
	outward http.RoundTripper // reaches no address that answers to this machine alone
}

// sentContext is an archive in an unnamed file.
type sentContext struct {
	file  *os.File
	size  int64
	users int
}

// add writes an archive to the disk and returns its address. drop gives it up.
func (c *contexts) add(dir string, body io.Reader) (address string, drop func(), err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("keep the build's context in %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "context")
	sum := sha256.New()
	var size int64
	if err = receive(io.MultiWriter(f, sum), body); err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("receive the build's context: %w", err), f.Close())
	}
	key := hex.EncodeToString(sum.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent == nil {
		c.sent = map[string]*sentContext{}
	}
	if old := c.sent[key]; old != nil {
		old.users++
		_ = f.Close()
	} else {
		c.sent[key] = &sentContext{file: f, size: size, users: 1}
	}
	return "http://" + contextHost + "/" + key, sync.OnceFunc(func() { c.drop(key) }), nil
}

// receive copies an archive. One that begins with an extended header, as those that Python makes, BuildKit would take for a Dockerfile, as it
// looks at the first two blocks alone; it knows anything compressed, so such a one is wrapped, not made smaller.
func receive(w io.Writer, body io.Reader) error {
	r := bufio.NewReaderSize(body, 64<<10)
	if head, _ := r.Peek(512); !extended(head) { // an error comes again with the copy
		_, err := io.Copy(w, r)
		return err
	}
	z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, r)
	return errors.Join(err, z.Close())
}

// extended tells of the first block of a tar file whether it is a header about the next one: of pax, or of GNU's long names.
func extended(head []byte) bool {
	return len(head) == 512 && string(head[257:262]) == "ustar" && strings.IndexByte("xgLK", head[156]) >= 0
}

// ignored are the files of an archive at an address that are not for COPY.
func (c *contexts) ignored(address, dockerfile string) ([]string, error) {
	c.mu.Lock()
	one := c.sent[path.Base(address)]
	c.mu.Unlock()
	return ignored(io.NewSectionReader(one.file, 0, one.size), dockerfile) // the caller keeps it
}

func (c *contexts) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.sent[key]
	if one.users--; one.users == 0 {
		delete(c.sent, key)
		_ = one.file.Close()
	}
}

// RoundTrip serves what was sent.
func (c *contexts) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != contextHost {
		return c.transport(r).RoundTrip(r)
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	c.mu.Lock()
	one := c.sent[key]
	var file *os.File
	var err error
	if one != nil {
		var fd int
		if fd, err = unix.FcntlInt(one.file.Fd(), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			file = os.NewFile(uintptr(fd), "context")
		}
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	resp := &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, StatusCode: http.StatusNotFound, Body: http.NoBody, Header: http.Header{}}
	if one == nil {
		return resp, nil
	}
	etag := `"` + key + `"`
	resp.Header.Set("Etag", etag)
	resp.Header.Set("Content-Type", "application/x-tar")
	resp.StatusCode, resp.ContentLength = http.StatusOK, one.size
	switch {
	case strings.Contains(r.Header.Get("If-None-Match"), etag):
		resp.StatusCode, resp.ContentLength = http.StatusNotModified, 0
	case r.Method != http.MethodHead:
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(file, 0, one.size), file}
		return resp, nil
	}
	return resp, file.Close()
}

// transport is how an address is loaded. Where ADD and contexts go is the Dockerfile's and the client's to say; a server elsewhere that redirects sends nobody
// to the services of this machine, or to its cloud's metadata service, whose answers are credentials. What a proxy connects to is the proxy's to decide.
func (c *contexts) transport(r *http.Request) http.RoundTripper {
	asked := r
	for asked.Response != nil && asked.Response.Request != nil {
		asked = asked.Response.Request
	}
	host := asked.URL.Hostname()
	own, err := netip.ParseAddr(host)
	if asked == r || host == "localhost" || err == nil && registry.Inward(own) != "" {
		return tracing.DefaultTransport
	}
	if proxy, err := http.ProxyFromEnvironment(r); err != nil || proxy != nil {
		return tracing.DefaultTransport
	}
	c.once.Do(func() {
		dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, ControlContext: refuseInward}
		c.outward = tracing.NewTransport(&http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 15 * time.Second,
			IdleConnTimeout: 30 * time.Second, MaxIdleConns: 16})
	})
	return c.outward
}

// refuseInward is the dialer's: it sees the address that a name has at this moment.
func refuseInward(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if kind := registry.Inward(to.Addr()); kind != "" {
		return fmt.Errorf("a server redirects the build to %s, %s: refused; name that address in the Dockerfile if it is meant", to, kind)
	}
	return nil
}
