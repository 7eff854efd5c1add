package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// arrivals are the layers of a pull that may be on their way. They feed the unpacking: what has come of a layer is read from the file that it
// is written to, so that nobody waits for anybody: not the download for the unpacking, and a download that is taken up again goes on in
// the same file.
type arrivals struct {
	p       *pull
	inOrder []*arrival // each digest once
	byKey   map[digest.Digest]*arrival
}

func (p *pull) expect(ctx context.Context, manifest ocispec.Descriptor, layers []ocispec.Descriptor) *arrivals {
	unpacked := p.s.unpackedOnly(ctx, manifest)
	a := &arrivals{p: p, byKey: map[digest.Digest]*arrival{}}
	for _, l := range layers {
		if a.byKey[l.Digest] != nil {
			continue
		}
		one := &arrival{store: p.s.blobs, layer: l, changed: make(chan struct{})}
		a.byKey[l.Digest], a.inOrder = one, append(a.inOrder, one)
		one.unpacked = unpacked[l.Digest]
		_, err := p.s.content.Info(ctx, l.Digest)
		one.old = one.unpacked || err == nil
	}
	a.announce()
	return a
}

// announce tells of the layers, unless all are here: then a pull tells of none, as dockerd's does.
func (a *arrivals) announce() {
	if !slices.ContainsFunc(a.inOrder, func(one *arrival) bool { return !one.old }) {
		return
	}
	for _, one := range a.inOrder {
		if one.old {
			a.p.o.say(short(one.layer), "Already exists")
		} else {
			a.p.o.say(short(one.layer), "Pulling fs layer")
		}
	}
}

func (a *arrivals) close() {
	for _, one := range a.inOrder {
		one.close()
	}
}

func (a *arrivals) open(ctx context.Context, layer ocispec.Descriptor) (stream, error) {
	one := a.byKey[layer.Digest]
	came, err := one.begun(ctx)
	if err != nil {
		return nil, err
	}
	var s stream = came
	if came == nil {
		if s, err = (stored{a.p.s.blobs}).open(ctx, layer); err != nil {
			return nil, err
		}
	}
	if one.old || a.p.o.Progress == nil {
		return s, nil
	}
	return &extracting{stream: s, p: a.p, one: one}, nil
}

func (a *arrivals) whole(ctx context.Context, layer ocispec.Descriptor) error {
	return a.byKey[layer.Digest].whole(ctx)
}

func (a *arrivals) unpacked(layer ocispec.Descriptor) {
	one := a.byKey[layer.Digest]
	if !one.old {
		one.said.Do(func() { a.p.o.say(short(layer), "Pull complete") })
	}
}

// arrival is one layer, and the Ingester that it is downloaded by.
type arrival struct {
	store    *blobs
	layer    ocispec.Descriptor
	old      bool // it was here before
	unpacked bool // and is kept unpacked only
	said     sync.Once

	mu      sync.Mutex    // guards what follows
	changed chan struct{} // closed when something of it has, and then another
	file    *os.File      // what has come; nil until the download begins
	size    int64         // of that
	handed  int64         // up to where the kernel has been told to write it to the disk
	lost    bool          // what had come was not the layer's content, and has gone
	ended   bool
	err     error
}

func (a *arrival) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// Writer makes the content store's writer one whose bytes are read while they come.
func (a *arrival) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := a.store.content.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	st, err := w.Status()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	f := a.store.ingested(st.Ref)
	a.change(func() {
		switch {
		case a.file == nil:
			a.file, a.size = f, st.Offset
			f = nil
		case st.Offset < a.size:
			a.lost = true
		}
	})
	if f != nil {
		_ = f.Close()
	}
	return &arriving{w, a}, nil
}

// ingested opens the file that a download is written to (containerd, plugins/content/local: ingest/<hash>/{ref,data}); nil when it is not
// there. References stand behind a namespace and a number there. Other downloads come and go meanwhile.
func (s *blobs) ingested(ref string) *os.File {
	found, err := filepath.Glob(filepath.Join(s.dir, "ingest", "*", "ref"))
	if err != nil {
		return nil
	}
	for _, path := range found {
		if b, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(b), "/"+ref) {
			continue
		}
		if f, err := os.Open(filepath.Join(filepath.Dir(path), "data")); err == nil {
			return f
		}
	}
	return nil
}

type arriving struct {
	content.Writer
	to *arrival
}

func (w *arriving) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	var file *os.File
	var from, size int64
	w.to.change(func() {
		w.to.size += int64(n)
		if w.to.size-w.to.handed >= stride {
			file, from, size = w.to.file, w.to.handed, w.to.size
			w.to.handed = size
		}
	})
	if file != nil {
		advise(file, func(fd int) error { return unix.SyncFileRange(fd, from, size-from, unix.SYNC_FILE_RANGE_WRITE) }) // begins only
	}
	return n, err
}

// stride is how much of a download is handed to the disk at a time, and dropped from the page cache when it has been unpacked: nobody reads it
// again for long, and its pages are there for what comes next.
const stride = 4 << 20

// advise tells the kernel of a file what nothing depends on. The file may be closed meanwhile.
func advise(f *os.File, fn func(fd int) error) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = fn(int(fd)) })
	}
}

func (w *arriving) Truncate(size int64) error {
	w.to.change(func() { w.to.lost = true })
	return w.Writer.Truncate(size)
}

func (a *arrival) end(err error) { a.change(func() { a.ended, a.err = true, err }) }

func (a *arrival) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		_ = a.file.Close()
		a.file = nil
	}
}

// come is how much has come.
func (a *arrival) come() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.size
}

// wait returns once enough says so, which is called with mu held.
func (a *arrival) wait(ctx context.Context, enough func() bool) error {
	for {
		a.mu.Lock()
		ok, changed := enough(), a.changed
		a.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *arrival) whole(ctx context.Context) error {
	if err := a.wait(ctx, func() bool { return a.ended }); err != nil {
		return err
	}
	return a.err
}

// begun waits for the first that comes; nil: all of it is in the store.
func (a *arrival) begun(ctx context.Context) (*coming, error) {
	if err := a.wait(ctx, func() bool { return a.ended || a.file != nil && !a.lost }); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended && a.err != nil {
		return nil, &notCome{a.err}
	}
	if a.ended && (a.lost || a.file == nil) {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	return &coming{from: a, file: a.file, done: ctx.Done(), cancel: cancel}, nil
}

var errLost = errors.New("what had come was not the layer's content")

// coming reads a layer while it comes.
type coming struct {
	from   *arrival
	file   *os.File
	done   <-chan struct{}
	cancel context.CancelFunc
	at     int64
	kept   int64 // from where on it is in the page cache
}

func (c *coming) Read(b []byte) (int, error) {
	for {
		c.from.mu.Lock()
		a := c.from
		size, lost, ended, err, changed := a.size, a.lost, a.ended, a.err, a.changed
		c.from.mu.Unlock()
		switch {
		case lost:
			return 0, errLost
		case c.at < size:
			n, err := c.file.ReadAt(b[:min(int64(len(b)), size-c.at)], c.at)
			c.at += int64(n)
			if n > 0 {
				err = nil
			}
			if c.at-c.kept >= stride {
				advise(c.file, func(fd int) error { return unix.Fadvise(fd, c.kept, c.at-c.kept, unix.FADV_DONTNEED) }) // what is not yet on the disk stays
				c.kept = c.at
			}
			return n, err
		case ended && err != nil:
			return 0, err
		case ended:
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-c.done:
			return 0, fmt.Errorf("read a layer while it comes: %w", context.Canceled)
		}
	}
}

func (c *coming) Close() error { c.cancel(); return nil }

func (c *coming) spoiled() bool {
	c.from.mu.Lock()
	defer c.from.mu.Unlock()
	return c.from.lost
}

// extracting tells how much of a layer has been read, once all of it has come.
type extracting struct {
	stream
	p    *pull
	one  *arrival
	n    int64
	told time.Time
}

func (e *extracting) Read(b []byte) (int, error) {
	n, err := e.stream.Read(b)
	e.n += int64(n)
	if now := time.Now(); now.Sub(e.told) > 100*time.Millisecond && e.one.here() || err == io.EOF {
		e.told = now
		e.p.o.Progress(Progress{ID: short(e.one.layer), Status: "Extracting", Current: e.n, Total: e.one.layer.Size})
	}
	return n, err
}

func (a *arrival) here() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended && a.err == nil
}
