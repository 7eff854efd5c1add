package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// demultiplex takes frames apart: a byte for the stream, three of nothing, the length in four, then so many of output.
func demultiplex(stdout, stderr io.Writer, in *bufio.Reader) error {
	return demultiplexNotes(stdout, stderr, nil, in)
}

// demultiplexNotes is demultiplex where the engine's own notes come between output; hear nil: there are none.
func demultiplexNotes(stdout, stderr io.Writer, hear func([]byte) error, in *bufio.Reader) error {
	j := joiner{in: in}
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return j.flush()
			}
			return errors.Join(j.flush(), fmt.Errorf("read a frame of output: %w", err))
		}
		size := int(binary.BigEndian.Uint32(head[4:]))
		if head[0] == noteStream && hear != nil {
			b, err := readSized(in, size)
			if err == nil {
				err = hear(b)
			}
			if err != nil {
				return errors.Join(j.flush(), err)
			}
			continue
		}
		switch head[0] {
		case 0, 1:
			if err := j.pass(stdout, size); err != nil {
				return err
			}
		case 2:
			if err := j.pass(stderr, size); err != nil {
				return err
			}
		case 3:
			text, err := io.ReadAll(io.LimitReader(in, int64(min(size, 1<<16))))
			return errors.Join(j.flush(), errors.New(strings.TrimSpace(string(text))), err)
		default:
			return errors.Join(j.flush(), fmt.Errorf("read output: there is no stream %d", head[0]))
		}
	}
}

// maxNote bounds one note, in bytes.
const maxNote = 1 << 20

// readNote reads a frame that must be a note.
func readNote(in io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	if head[0] != noteStream {
		return nil, fmt.Errorf("a frame of stream %d is where a note is due", head[0])
	}
	return readSized(in, int(binary.BigEndian.Uint32(head[4:])))
}

func readSized(in io.Reader, size int) ([]byte, error) {
	if size > maxNote {
		return nil, fmt.Errorf("a note of %d bytes is too long", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, fmt.Errorf("read a note of the engine's: %w", err)
	}
	return b, nil
}

// joiner writes what came together in one go: a program's lines are a frame each, and a write each would be slow.
type joiner struct {
	in   *bufio.Reader
	to   io.Writer
	held []byte // for to, not written yet
}

// pass moves so many bytes of output on. It holds them back only while more has come already.
func (j *joiner) pass(to io.Writer, size int) error {
	if j.to != to {
		if err := j.flush(); err != nil {
			return err
		}
		j.to = to
	}
	for size > 0 {
		if j.in.Buffered() == 0 {
			if err := j.flush(); err != nil {
				return err
			}
		}
		if _, err := j.in.Peek(1); err != nil {
			return errors.Join(j.flush(), fmt.Errorf("copy output: %w", err))
		}
		data, err := j.in.Peek(min(size, j.in.Buffered()))
		if err != nil {
			return fmt.Errorf("copy output: %w", err)
		}
		j.held = append(j.held, data...)
		size -= len(data)
		if _, err := j.in.Discard(len(data)); err != nil {
			return fmt.Errorf("copy output: %w", err)
		}
		if j.in.Buffered() < 8 || len(j.held) >= 1<<16 {
			if err := j.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *joiner) flush() error {
	if len(j.held) == 0 {
		return nil
	}
	_, err := j.to.Write(j.held)
	j.held = j.held[:0]
	if err != nil {
		return fmt.Errorf("copy output: %w", err)
	}
	return nil
}
