// Package retar makes a layer's tar again, byte for byte, from the files that it was unpacked to and a record of all that is not in them, and
// compresses it again as it was.
//
// A record is a zstd stream of a first line and parts: bytes that stand in the tar (headers, padding, whatever else), and contents of files, which
// stand in the files. Both are passed on as they are read, so that memory grows with neither. A record says nothing of whether its files are
// still what they were: whoever makes a tar holds it against its digest. Everything is safe for many goroutines, since nothing is shared.
package retar

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A part is a number and what follows it. The number's last bit is its kind, the others are its length: what follows is so many bytes of the
// tar, or the name of the file (a length, and bytes) that so many bytes are the content of. A part of the tar without bytes is the end.
const (
	firstLine = "wherry retar 1\n"

	bytesOfTar  = 0
	bytesOfFile = 1
)

const (
	mostLiteral = 64 << 10 // of a part
	longestName = 4 << 10
	window      = 1 << 20 // of the record's compression
)

// Record reads a tar to its end, and writes what is needed to make it again.
func Record(w io.Writer, from io.Reader) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window))
	if err != nil {
		return err
	}
	defer z.Close()
	r := &recorder{from: from, out: bufio.NewWriter(z)}
	if _, err := r.out.WriteString(firstLine); err != nil {
		return err
	}
	if err := r.entries(); err != nil {
		return fmt.Errorf("record a tar: %w", err)
	}
	if err := errors.Join(r.flush(), r.number(0, bytesOfTar), r.out.Flush()); err != nil {
		return fmt.Errorf("write the record of a tar: %w", err)
	}
	return z.Close()
}

// recorder stands between a tar and its reader, and notes what that reads of it.
type recorder struct {
	from    io.Reader
	out     *bufio.Writer
	literal []byte // noted, and not written yet
	inFile  bool   // what is read is the content of a file
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	if r.inFile {
		return n, err
	}
	if len(r.literal)+n > mostLiteral {
		if err := r.flush(); err != nil {
			return 0, err
		}
	}
	r.literal = append(r.literal, b[:n]...)
	return n, err
}

func (r *recorder) entries() error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, r) // the padding of its end
			return err
		}
		if err != nil {
			return err
		}
		if !isFile(h) {
			continue // content of other kinds is read as part of the tar
		}
		if err := errors.Join(r.flush(), r.file(h)); err != nil {
			return err
		}
		r.inFile = true
		_, err = io.Copy(io.Discard, t)
		r.inFile = false
		if err != nil {
			return err
		}
	}
}

// isFile says that an entry's content stands in the tar as it does in a file: that of a sparse file has no holes there.
func isFile(h *tar.Header) bool {
	if h.Typeflag != tar.TypeReg || h.Size == 0 || len(h.Name) > longestName {
		return false
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return true
}

func (r *recorder) file(h *tar.Header) error {
	name := path.Clean("/" + h.Name)[1:]
	b := binary.AppendUvarint(nil, uint64(len(name)))
	if err := r.number(uint64(h.Size), bytesOfFile); err != nil {
		return err
	}
	_, err := r.out.Write(append(b, name...))
	return err
}

func (r *recorder) flush() error {
	if len(r.literal) == 0 {
		return nil
	}
	if err := r.number(uint64(len(r.literal)), bytesOfTar); err != nil {
		return err
	}
	_, err := r.out.Write(r.literal)
	r.literal = r.literal[:0]
	return err
}

func (r *recorder) number(n, kind uint64) error {
	_, err := r.out.Write(binary.AppendUvarint(nil, n<<1|kind))
	return err
}

// Make writes a tar again. open gives the content of a file by its clean path, without a slash before it.
func Make(w io.Writer, record io.Reader, open func(name string) (io.ReadCloser, error)) error {
	z, err := zstd.NewReader(record, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return fmt.Errorf("read the record of a tar: %w", err)
	}
	defer z.Close()
	r := bufio.NewReader(z)
	first := make([]byte, len(firstLine))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != firstLine {
		return fmt.Errorf("read the record of a tar: it is none, or one of another version (%w)", errors.Join(err, errBroken))
	}
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("read the record of a tar: %w", wanted(err))
		}
		size := n >> 1
		switch {
		case size > math.MaxInt64/2:
			return fmt.Errorf("read the record of a tar: a part of %d bytes: %w", size, errBroken)
		case n&1 == bytesOfFile:
			err = file(w, r, int64(size), open)
		case size == 0:
			return nil
		default:
			_, err = io.CopyN(w, r, int64(size))
			err = wanted(err)
		}
		if err != nil {
			return fmt.Errorf("make a tar again: %w", err)
		}
	}
}

var errBroken = errors.New("the record is damaged")

// wanted says that what ended was not at its end.
func wanted(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func file(w io.Writer, r *bufio.Reader, size int64, open func(name string) (io.ReadCloser, error)) error {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return wanted(err)
	}
	if n > longestName {
		return fmt.Errorf("a name of %d bytes: %w", n, errBroken)
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(r, name); err != nil {
		return wanted(err)
	}
	f, err := open(string(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(w, f, size); err != nil {
		return fmt.Errorf("%s has not the %d bytes that the tar has of it: %w", name, size, wanted(err))
	}
	return nil
}
