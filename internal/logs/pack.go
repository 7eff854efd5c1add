package logs

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Segments that are complete are compressed in the background: 00000001.log becomes 00000001.log.gz, which is named only when all of it is
// on disk. Until the plain one is removed both are there, and at each moment one of them is.

func packed(dir string, number int) string { return segment(dir, number) + ".gz" }

// packer compresses for one writer. Its goroutine begins with the first rotation and ends with the writer.
type packer struct {
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

func newPacker() *packer {
	return &packer{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

func (p *packer) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// end stops at once: what is half compressed is begun anew by the next writer.
func (p *packer) end() {
	close(p.stop)
	<-p.done
}

func (p *packer) run(w *Writer) {
	defer close(p.done)
	yield()
	for {
		select {
		case <-p.stop:
			return
		case <-p.wake:
		}
		numbers, err := segments(w.dir)
		if err != nil {
			continue
		}
		for _, n := range numbers {
			if n >= w.newest() {
				break
			}
			if err := p.pack(w.dir, n); errors.Is(err, errStopped) {
				return
			}
		}
		debug.FreeOSMemory() // a shim is small again afterwards
	}
}

// yield has the calling goroutine run, on a thread of its own that ends with it, only when nobody else wants the processor: a program that prints
// fast is not slowed down by the compression of what it has printed, and what has been rotated away by then is never compressed.
func yield() {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // of this thread alone (setpriority(2), "C library/kernel differences")
}

var errStopped = errors.New("stopped")

// pack compresses one segment, unless it is compressed already, or a follower has yet to go on from it.
func (p *packer) pack(dir string, number int) error {
	in, err := os.Open(segment(dir, number))
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := os.Stat(packed(dir, number)); err == nil {
		return os.Remove(segment(dir, number)) // killed between the two
	}
	if followed(in) {
		return nil
	}
	temporary := packed(dir, number) + ".new"
	if err := p.write(temporary, in); err != nil {
		os.Remove(temporary)
		return err
	}
	if followed(in) {
		return os.Remove(temporary)
	}
	if err := os.Rename(temporary, packed(dir, number)); err != nil {
		return err
	}
	if err := os.Remove(segment(dir, number)); errors.Is(err, fs.ErrNotExist) {
		return os.Remove(packed(dir, number)) // rotated away meanwhile
	}
	return nil
}

// followed says that a follower stands at a segment.
func followed(f *os.File) bool {
	if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return true
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	return false
}

func (p *packer) write(path string, in io.Reader) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("compress a log segment: %w", err)
	}
	defer out.Close()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for {
		select {
		case <-p.stop:
			return errStopped
		default:
		}
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := z.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(z.Close(), out.Sync())
}

// tidy removes what a writer that was killed left half compressed.
func tidy(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "*.log.gz.new"))
	for _, path := range left {
		os.Remove(path)
	}
}

// source is one segment, plain or compressed, to be read from its beginning.
type source struct {
	number int
	taken  int64 // bytes that were handed out
	file   *os.File
	gz     bool
	z      *gzip.Reader
}

// openSource opens a segment in whichever form it has: it may change from one to the other between two looks. fs.ErrNotExist: it has neither.
func openSource(dir string, number int) (*source, error) {
	var err error
	for range 3 {
		var f *os.File
		if f, err = os.Open(segment(dir, number)); !errors.Is(err, fs.ErrNotExist) {
			return &source{number: number, file: f}, err
		}
		if f, err = os.Open(packed(dir, number)); !errors.Is(err, fs.ErrNotExist) {
			return &source{number: number, file: f, gz: true}, err
		}
	}
	return nil, err
}

// Read ends where compressed bytes are damaged, as it does at a torn frame.
func (s *source) Read(b []byte) (int, error) {
	if !s.gz {
		return s.file.Read(b)
	}
	if s.z == nil {
		z, err := gzip.NewReader(bufio.NewReaderSize(s.file, 64<<10))
		if err != nil {
			return 0, endOf(err)
		}
		s.z = z
	}
	n, err := s.z.Read(b)
	return n, endOf(err)
}

func endOf(err error) error {
	var path *fs.PathError
	if err != nil && !errors.As(err, &path) {
		return io.EOF
	}
	return err
}

func (s *source) rewind() error {
	s.z, s.taken = nil, 0
	_, err := s.file.Seek(0, io.SeekStart)
	return err
}

func (s *source) Close() error { return s.file.Close() }
