package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Writer puts parts of a file system into a tar.
type Writer struct {
	tar   *tar.Writer
	ids   IDs
	links map[inode]string // of files with several names: the one that is in the archive
	buf   []byte
}

// NewWriter begins a tar with ids as inside.
func NewWriter(w io.Writer, ids IDs) *Writer {
	return &Writer{tar: tar.NewWriter(w), ids: ids, links: map[inode]string{}, buf: make([]byte, 256<<10)}
}

// Close ends the tar.
func (w *Writer) Close() error { return w.tar.Close() }

// Empty adds an empty file with a name: how layers say that something is gone.
func (w *Writer) Empty(name string) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// Tree adds what is below dir. name is what the directory itself is called in the archive: with "" it is left out and its entries stand
// at the top.
func (w *Writer) Tree(ctx context.Context, dir *os.File, name string, o WalkOptions) error {
	if name != "" {
		if err := w.Add(dir, ".", name); err != nil {
			return err
		}
	}
	return Walk(ctx, dir, o, func(e *Entry) (bool, error) { return w.add(e.Dir, e.Name, below(name, e.Path)) })
}

// below is the name in the archive of what lies at rel below a directory.
func below(name, rel string) string {
	switch name {
	case "":
		return rel
	case "/": // path.Join would take "." away, and clients look for it
		return "/" + rel
	}
	return name + "/" + rel
}

// Add adds one entry of a directory, a directory without what is in it. What is gone, and sockets, are left out.
func (w *Writer) Add(dir *os.File, base, name string) error {
	_, err := w.add(dir, base, name)
	return err
}

// add says whether it was a directory that it added: what follows a link in an archive must not lie below it, whatever is there by then.
// Who unpacks the archive may follow the link.
func (w *Writer) add(dir *os.File, base, name string) (isDir bool, err error) {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, wrap("open", name, unlessGone(err))
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, wrap("stat", name, err)
	}
	h, err := w.header(f, &st, name)
	if err != nil || h == nil {
		return false, wrap("read", name, unlessGone(err))
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return h.Typeflag == tar.TypeDir, wrap("archive", name, w.tar.WriteHeader(h))
	}
	content, err := reopen(f, unix.O_RDONLY)
	if err != nil {
		return false, wrap("open", name, err)
	}
	defer content.Close()
	if err := w.tar.WriteHeader(h); err != nil {
		return false, wrap("archive", name, err)
	}
	return false, wrap("archive", name, w.content(content, h.Size))
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// header describes what is open; nil: nothing that an archive holds.
func (w *Writer) header(f *os.File, st *unix.Stat_t, name string) (*tar.Header, error) {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: w.ids.Inside(int(st.Uid)), Gid: w.ids.Inside(int(st.Gid)),
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		if name[len(name)-1] != '/' {
			h.Name += "/"
		}
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if err != nil {
			return nil, err
		}
		h.Linkname = string(buf[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, nil
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := w.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return h, nil
		}
		w.links[key] = name
	}
	if kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return h, nil
	}
	records, err := readAttributes(f, w.ids)
	h.PAXRecords = records
	return h, err
}

// content copies size bytes. A file that became shorter meanwhile is filled up with zeros, as GNU tar does: the header is out.
func (w *Writer) content(f io.Reader, size int64) error {
	n, err := io.CopyBuffer(onlyWriter{w.tar}, io.LimitReader(f, size), w.buf)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{w.tar}, io.LimitReader(zeros{}, size-n), w.buf)
	return err
}

// onlyWriter hides other methods, so that the given buffer is used.
type onlyWriter struct{ io.Writer }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Stream runs write with the writing end of a pipe in a goroutine of its own, and returns the reading end. Its Close ends the write and
// waits for it; done is called after that. The end of ctx ends both ends, also in the middle of a file: one with holes may have any size.
func Stream(ctx context.Context, write func(context.Context, io.Writer) error, done func()) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	s := &stream{PipeReader: r, cancel: cancel, ended: make(chan struct{})}
	go func() { // ends when r is closed or read to its end, or with ctx; Close waits for it
		defer close(s.ended)
		defer done()
		defer context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })()
		w.CloseWithError(write(ctx, w))
	}()
	return s
}

type stream struct {
	*io.PipeReader
	cancel context.CancelFunc
	ended  chan struct{}
}

func (s *stream) Close() error {
	s.cancel()
	err := s.PipeReader.Close()
	<-s.ended
	return err
}
