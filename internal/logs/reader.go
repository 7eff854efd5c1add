package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ReadOptions choose where reading starts. The zero value reads all that is there and stops.
type ReadOptions struct {
	// Follow waits for more until End is met (of the life that is current) or the context ends.
	Follow  *Watcher
	FromEnd bool  // skip what is there already (attach)
	Lives   bool  // go on after the end of a life, even where nothing follows yet: the caller's context tells when all is over
	From    Place // what is before it is left out
}

// Place is one between two entries. The zero value is before the first one.
type Place struct {
	Segment int
	Offset  int64 // bytes of the segment, as it is when it is not compressed
}

// Reader reads entries in order. It pins the segments that it has yet to read by open descriptors, so rotation never takes them away
// from a slow reader, and it never slows the writer. For one goroutine.
type Reader struct {
	dir   string
	o     ReadOptions
	buf   []byte // bytes read from the first file and not yet handed out
	data  []byte // the buffer
	full  bool   // it was after the last look
	ended bool
	last  bool // the context has ended: what is there by then is still read

	watch   int32         // the watcher's number of the folder, when following
	changed chan struct{} // the folder or a segment has changed

	mu     sync.Mutex // guards what follows: the watcher opens new segments at once, however slow the reader is
	files  []*source  // the first is being read
	newest int        // number of the last in files
	held   *os.File   // the last in files, locked; nil when not following
	lost   bool       // what follows the last in files is gone
	behind bool       // the last look did not open all that there was
}

// maxPinned is how many segments one reader holds open: descriptors are the engine's, and it needs them for others too. The writer keeps
// what follows for a while.
const maxPinned = 2048

// fewPinned is how many segments a follower holds open where descriptors or the disk get scarce.
const fewPinned = 8

// ErrLost says that a reader was so slow that output is gone.
var ErrLost = errors.New("output was printed faster than it was read, and some of it is gone")

// Open opens the segments of a folder. A folder that is not there yet is empty.
func Open(dir string, o ReadOptions) (*Reader, error) {
	r := &Reader{dir: dir, o: o}
	if o.Follow != nil {
		if err := r.startWatch(); err != nil {
			return nil, err
		}
	}
	if err := r.openNew(); err != nil {
		r.Close()
		return nil, err
	}
	var err error
	if o.FromEnd {
		err = r.seekEnd()
	} else if o.From != (Place{}) {
		err = r.seek(o.From)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// seek leaves out what is before a place.
func (r *Reader) seek(to Place) error {
	for f := r.current(); f != nil && f.number < to.Segment; f = r.current() {
		r.leave()
	}
	for f := r.current(); f != nil && f.number == to.Segment && f.taken < to.Offset; {
		if _, _, err := r.frame(); err == io.EOF || err == errDamaged {
			break
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Place is where the reader is: behind the entry that was handed out last.
func (r *Reader) Place() Place {
	if f := r.current(); f != nil {
		return Place{f.number, f.taken}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return Place{Segment: r.newest + 1}
}

// Lost says that what is to be read begins behind a place: what was between them is gone.
func (r *Reader) Lost(from Place) bool {
	f := r.current()
	return f != nil && f.number > max(from.Segment, 1)
}

func (r *Reader) startWatch() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	r.changed = make(chan struct{}, 1)
	return r.o.Follow.add(r)
}

// notify is the watcher's: new segments are opened at once, however slow the reader is.
func (r *Reader) notify(segments bool) {
	if segments {
		_ = r.openNew()
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// openNew opens the segments that have come since the last call.
func (r *Reader) openNew() error {
	numbers, err := segments(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behind = true
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n <= r.newest {
			continue
		}
		if len(r.files) >= maxPinned || r.o.Follow != nil && len(r.files) >= fewPinned && r.o.Follow.scarce(r.dir) {
			return nil
		}
		if r.newest != 0 && n != r.newest+1 {
			r.lost = true
			return nil
		}
		f, err := openSource(r.dir, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away just now
		}
		if err != nil {
			return err
		}
		if r.o.Follow != nil {
			r.o.Follow.pinned.Add(1)
			r.hold(f.file)
		}
		r.files, r.newest = append(r.files, f), n
	}
	r.behind = false
	return nil
}

// needsLook says that nobody has opened what may have come: a follower's watcher does so as soon as there is a new segment.
func (r *Reader) needsLook() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.o.Follow == nil || r.last || r.behind
}

// hold locks the newest segment, and only then lets go of the one before it: at each moment the writer sees how far this reader is.
func (r *Reader) hold(f *os.File) {
	for range 10 { // the writer tries the lock for a moment
		if !errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if r.held != nil {
		_ = unix.Flock(int(r.held.Fd()), unix.LOCK_UN)
	}
	r.held = f
}

func (r *Reader) seekEnd() error {
	for r.segments() > 1 {
		r.leave()
	}
	f := r.current()
	if f == nil {
		return nil
	}
	if f.gz {
		r.leave() // it is complete
		return nil
	}
	at, err := wholeSize(f.file)
	if err == nil {
		_, err = f.file.Seek(at, io.SeekStart)
	}
	return err
}

// current is the segment being read, nil where there is none yet.
func (r *Reader) current() *source {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return nil
	}
	return r.files[0]
}

func (r *Reader) segments() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.files)
}

func (r *Reader) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// leave goes on to the next segment.
func (r *Reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[0].Close()
	if r.o.Follow != nil {
		r.o.Follow.pinned.Add(-1)
	}
	r.files, r.buf = r.files[1:], nil
}

// Last goes on to the segment that the last n lines begin in, or one before it, and says how many lines there are before them, as a Splitter
// hands them out; unfinished ones count. It is called before Next. It takes as long as those segments are large, however many there are.
func (r *Reader) Last(n int) (skip int, err error) {
	r.mu.Lock()
	files := slices.Clone(r.files)
	r.mu.Unlock()
	var t tally
	at := len(files)
	for at > 0 && !t.whole(n) {
		at--
		if err := t.before(files[at]); err != nil {
			return 0, err
		}
		if err := files[at].rewind(); err != nil {
			return 0, err
		}
	}
	for range at {
		r.leave()
	}
	return max(0, t.lines()-n), nil
}

// tally counts lines of segments, from the last one to earlier ones.
type tally struct {
	ended   int // lines that end there
	streams [Stderr + 1]struct {
		any       bool
		open      int  // 1: its last line has no end
		first     int  // lines before the end of its first one
		continued bool // its first line begins in an earlier segment
	}
}

func (t *tally) lines() int { return t.ended + t.streams[Stdout].open + t.streams[Stderr].open }

// whole says that the last n lines are there, each from its beginning.
func (t *tally) whole(n int) bool {
	skip := t.lines() - n
	for _, s := range t.streams {
		if s.continued && !(s.any && s.first < skip) {
			return false
		}
	}
	return skip >= 0 && t.lines() > 0
}

// before adds the segment that is before those that were added.
func (t *tally) before(f *source) error {
	var split Splitter
	var s tally
	count := func(l Line) error {
		if of := &s.streams[l.Stream]; !of.any {
			of.any, of.first = true, s.ended
		}
		s.ended++
		return nil
	}
	begun := false
	err := scan(f, func(h header, data []byte) {
		switch {
		case h.stream == end:
		case len(data) > 0:
			begun = true
			_ = split.Add(Entry{Stream: h.stream, Data: data}, count)
		case !begun:
			s.streams[h.stream].continued = true
		}
	})
	if err != nil {
		return err
	}
	for _, stream := range []Stream{Stdout, Stderr} {
		of, later := &s.streams[stream], &t.streams[stream]
		switch {
		case later.any: // what is unfinished here ends there
			of.open = later.open
			if !of.any {
				of.any, of.first = true, s.ended+later.first
			}
		case len(split.partial[stream]) > 0:
			of.open = 1
			if !of.any {
				of.any, of.first = true, s.ended+t.lines()
			}
		}
	}
	s.ended += t.ended
	*t = s
	return nil
}

type header struct {
	stream Stream
	length int
	time   int64
}

func parseHeader(b []byte) (header, bool) {
	h := header{stream: Stream(b[0]), length: int(binary.NativeEndian.Uint32(b[4:])), time: int64(binary.NativeEndian.Uint64(b[8:]))}
	return h, b[1] == magic && h.stream <= Stderr && h.length <= MaxData
}

// scan reads a segment's whole frames.
func scan(f *source, fn func(header, []byte)) error {
	r := &Reader{files: []*source{f}}
	for {
		h, data, err := r.frame()
		if err == io.EOF || err == errDamaged {
			return nil
		}
		if err != nil {
			return err
		}
		fn(h, data)
	}
}

// wholeSize is where a segment's last whole frame ends.
func wholeSize(f *os.File) (int64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	size := int64(0)
	err := scan(&source{file: f}, func(h header, _ []byte) { size += int64(HeaderSize + h.length) })
	return size, err
}

var errDamaged = errors.New("a damaged frame")

// frame reads the next frame of the first file; io.EOF where no whole one is there yet.
func (r *Reader) frame() (header, []byte, error) {
	for {
		if len(r.buf) >= HeaderSize {
			h, ok := parseHeader(r.buf)
			if !ok {
				return h, nil, errDamaged
			}
			if whole := HeaderSize + h.length; len(r.buf) >= whole {
				data := r.buf[HeaderSize:whole]
				r.buf = r.buf[whole:]
				r.current().taken += int64(whole)
				return h, data, nil
			}
		}
		if err := r.fill(); err != nil {
			return header{}, nil, err
		}
	}
}

// fill reads more of the first file behind what is left in the buffer. A quiet follower has a small one: there may be a thousand of them.
func (r *Reader) fill() error {
	switch {
	case r.data == nil:
		r.data = make([]byte, smallBuffer)
	case r.full && len(r.data) < largeBuffer:
		larger := make([]byte, min(4*len(r.data), largeBuffer))
		copy(larger, r.buf)
		r.data, r.buf = larger, larger[:len(r.buf)]
	}
	n := copy(r.data, r.buf)
	got, err := r.current().Read(r.data[n:])
	r.buf = r.data[:n+got]
	r.full = n+got == len(r.data)
	if got > 0 {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

const (
	smallBuffer = 8 << 10
	largeBuffer = 2 * (HeaderSize + MaxData)
)

// Next returns io.EOF at the end.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for {
		if e, err := r.next(ctx); err != nil || len(e.Data) > 0 {
			return e, err
		}
	}
}

func (r *Reader) next(ctx context.Context) (Entry, error) {
	for !r.ended {
		if r.current() != nil {
			h, data, err := r.frame()
			switch {
			case err == nil && h.stream == end:
				if err := r.afterEnd(); err != nil {
					return Entry{}, err
				}
				continue
			case err == nil:
				return Entry{Stream: h.stream, Time: time.Unix(0, h.time), Data: data}, nil
			case err != io.EOF && err != errDamaged:
				return Entry{}, err
			}
		}
		more, err := r.advance(ctx)
		if err != nil {
			return Entry{}, err
		}
		if !more {
			break
		}
	}
	return Entry{}, io.EOF
}

// afterEnd: a follower stops at the end of the current life, that is when nothing follows the mark.
func (r *Reader) afterEnd() error {
	if err := r.openNew(); err != nil {
		return err
	}
	if r.o.Follow == nil || r.o.Lives || len(r.buf) > 0 || r.segments() > 1 {
		return nil
	}
	if err := r.fill(); err == io.EOF {
		r.ended = true
	} else if err != nil {
		return err
	}
	return nil
}

// advance goes on to the next segment, or waits for more.
func (r *Reader) advance(ctx context.Context) (bool, error) {
	before := r.segments()
	if before > 1 {
		// The next segment is there, so this one is complete: what a look finds now is the rest of it.
		if r.fill() == io.EOF {
			r.leave()
		}
		return true, nil
	}
	if r.needsLook() {
		if err := r.openNew(); err != nil {
			return false, err
		}
	}
	if r.segments() > before {
		return true, nil
	}
	if r.isLost() {
		return false, ErrLost
	}
	if r.o.Follow == nil {
		return false, nil
	}
	select {
	case <-r.changed:
		return true, nil
	case <-ctx.Done():
		if !r.last { // what was written before the context ended counts
			r.last = true
			return true, nil
		}
		return false, context.Cause(ctx)
	}
}

// Pin opens what is there now: it can be read even when the folder is removed afterwards. Unlike the other methods it may be called beside
// them.
func (r *Reader) Pin() error { return r.openNew() }

// Close gives the descriptors back.
func (r *Reader) Close() error {
	if r.o.Follow != nil {
		r.o.Follow.drop(r)
		r.o.Follow.pinned.Add(-int64(len(r.files)))
	}
	for _, f := range r.files {
		f.Close()
	}
	return nil
}
