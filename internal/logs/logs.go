// Package logs writes and reads a container's output: raw frames in rotated segments, rendered on reading.
//
// A folder holds segments 00000001.log, 00000002.log, … of frames:
//
//	0        1         4              8                     16
//	stream   0xf3 …    length (u32)   time (ns, i64)        data
//
// in the machine's byte order; complete segments are compressed (00000001.log.gz). Stream 0 marks the end of one life of the container. Frames without
// data at the beginning of a segment are of the streams whose last line goes on in it. One Writer appends (the shim); any number of Readers
// read, also while it is written, and hold the segments that they have yet to read open: rotation never takes them away, and no reader
// ever slows the writer. A reader that follows has a shared lock on the newest segment that it has open, and the writer leaves what is
// newer until the reader has opened it too. A torn last frame, after a power cut, ends a segment.
package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stream says which of the process's streams a frame came from.
type Stream uint8

const (
	end    Stream = 0
	Stdout Stream = 1
	Stderr Stream = 2
)

// HeaderSize are the bytes before a frame's data.
const HeaderSize = 16

const (
	magic = 0xf3

	// MaxData is the longest data of one frame.
	MaxData = 64 << 10

	defaultMaxSize  = 20 << 20
	defaultMaxFiles = 5

	maxBehind = 128 << 20 // bytes that followers may be behind with opening
)

// Entry is a piece of output as it was read from the process: raw bytes, not lines.
type Entry struct {
	Stream Stream
	Time   time.Time
	Data   []byte // valid until the next call
}

// Writer appends entries to the newest segment in dir and rotates. One writer per directory (the shim). Safe for many goroutines.
type Writer struct {
	dir      string
	maxSize  int64
	maxFiles int

	mu     sync.Mutex // guards what follows
	file   *os.File
	number int
	oldest int
	pin    *os.File // a segment that a follower is at; nil when none is known
	size   int64
	open   [Stderr + 1]bool // the stream's last line has no end yet
	packer *packer          // nil until there is something to compress
}

// Create continues a folder of segments, or begins one; zero limits are 20 MiB and 5 segments.
func Create(dir string, maxSize int64, maxFiles int) (*Writer, error) {
	if maxSize <= 0 {
		maxSize = defaultMaxSize
	}
	if maxFiles <= 0 {
		maxFiles = defaultMaxFiles
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	tidy(dir)
	numbers, err := segments(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, maxSize: maxSize, maxFiles: maxFiles, oldest: 1}
	next := 1
	if len(numbers) > 0 {
		w.oldest = numbers[0]
		next = numbers[len(numbers)-1] + 1
		if f, size, ok := continueSegment(dir, numbers[len(numbers)-1], maxSize); ok {
			w.file, w.size, w.number = f, size, numbers[len(numbers)-1]
			w.pack()
			return w, nil
		}
	}
	return w, w.begin(next)
}

// pack has complete segments compressed, if there are any.
func (w *Writer) pack() {
	if w.number == w.oldest {
		return
	}
	if w.packer == nil {
		w.packer = newPacker()
		go w.packer.run(w)
	}
	w.packer.nudge()
}

// newest is the number of the segment that is being written.
func (w *Writer) newest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.number
}

// continueSegment opens a segment that is whole and has room.
func continueSegment(dir string, number int, maxSize int64) (*os.File, int64, bool) {
	f, err := os.OpenFile(segment(dir, number), os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, false
	}
	whole, err := wholeSize(f)
	fi, statErr := f.Stat()
	if err != nil || statErr != nil || fi.Size() != whole || whole >= maxSize {
		f.Close()
		return nil, 0, false
	}
	return f, whole, true
}

func segment(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.log", number))
}

func segments(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		name, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), ".gz"), ".log")
		if n, err := strconv.Atoi(name); ok && err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

func (w *Writer) begin(number int) error {
	f, err := os.OpenFile(segment(w.dir, number), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin a log segment: %w", err)
	}
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.number, w.size = f, number, 0
	w.removeOld()
	w.pack()
	return nil
}

// removeOld removes the segments that are too many, the oldest first, and stops where a follower has yet to open the next.
func (w *Writer) removeOld() {
	for w.oldest <= w.number-w.maxFiles {
		if w.waits() && w.number-w.oldest < w.maxFiles+w.patience() {
			return
		}
		_ = os.Remove(segment(w.dir, w.oldest))
		_ = os.Remove(packed(w.dir, w.oldest))
		w.oldest++
	}
}

// waits says whether a follower has not got beyond the oldest segment, or beyond one that was removed all the same.
func (w *Writer) waits() bool {
	if w.pin == nil {
		at, err := openSource(w.dir, w.oldest)
		if err != nil {
			return !errors.Is(err, os.ErrNotExist)
		}
		w.pin = at.file
	}
	if errors.Is(unix.Flock(int(w.pin.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return true
	}
	w.pin.Close()
	w.pin = nil
	return false
}

// patience is how many segments more than asked for are kept for followers that have yet to open them: a follower may be stopped.
func (w *Writer) patience() int { return int(min(max(16, maxBehind/w.maxSize), 1000)) }

// Append writes one entry.
func (w *Writer) Append(s Stream, t time.Time, p []byte) error {
	frame := make([]byte, HeaderSize+len(p))
	copy(frame[HeaderSize:], p)
	return w.AppendFrame(s, t, frame)
}

// AppendFrame writes one entry without copying: the first HeaderSize bytes of frame are room for its header.
func (w *Writer) AppendFrame(s Stream, t time.Time, frame []byte) error {
	head(frame, s, t)
	return w.write(frame)
}

// AppendTold is AppendFrame behind an entry of its own that says what is missing before it. Both are written, or none.
func (w *Writer) AppendTold(told Entry, s Stream, t time.Time, frame []byte) error {
	both := append(make([]byte, HeaderSize, HeaderSize+len(told.Data)+len(frame)), told.Data...)
	head(both, told.Stream, told.Time)
	head(frame, s, t)
	return w.write(append(both, frame...))
}

func head(frame []byte, s Stream, t time.Time) {
	clear(frame[:HeaderSize])
	frame[0], frame[1] = byte(s), magic
	binary.NativeEndian.PutUint32(frame[4:], uint32(len(frame)-HeaderSize))
	binary.NativeEndian.PutUint64(frame[8:], uint64(t.UnixNano()))
}

func (w *Writer) write(frames []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size >= w.maxSize {
		if err := w.begin(w.number + 1); err != nil {
			return err
		}
	}
	whole := frames
	if w.size == 0 {
		whole = append(w.unfinished(), frames...)
	}
	n, err := w.file.Write(whole)
	if err != nil && n > 0 {
		_ = w.file.Truncate(w.size) // a full disk: no torn frame in the middle
	}
	if err != nil {
		return err
	}
	w.size += int64(n)
	for len(frames) > 0 {
		h, _ := parseHeader(frames)
		if next := HeaderSize + h.length; h.length > 0 {
			w.open[h.stream] = frames[next-1] != '\n'
		}
		frames = frames[HeaderSize+h.length:]
	}
	return nil
}

// unfinished are empty frames: a segment begins with one of each stream that goes on in the middle of a line.
func (w *Writer) unfinished() (frames []byte) {
	for _, s := range []Stream{Stdout, Stderr} {
		if w.open[s] {
			frame := make([]byte, HeaderSize)
			head(frame, s, time.Now())
			frames = append(frames, frame...)
		}
	}
	return frames
}

// End marks that no output follows in this life of the container; followers then finish. A later Create continues the directory.
func (w *Writer) End() error {
	if err := w.AppendFrame(end, time.Now(), make([]byte, HeaderSize)); err != nil {
		return err
	}
	if w.packer != nil {
		w.packer.end()
	}
	if w.pin != nil {
		w.pin.Close()
		w.pin = nil
	}
	return w.file.Close()
}
