// Package logs writes and reads a container's output: raw frames in rotated segments, rendered on reading.
package logs

import (
	"context"
	"time"
)

// Stream says which of the process's streams a frame came from.
type Stream uint8

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Entry is a piece of output as it was read from the process: raw bytes, not lines.
type Entry struct {
	Stream Stream
	Time   time.Time
	Data   []byte // valid until the next call
}

// Writer appends entries to the newest segment in dir and rotates. One writer per directory (the shim).
type Writer struct{}

func Create(dir string, maxSize int64, maxFiles int) (*Writer, error) { panic("not written yet") }
func (w *Writer) Append(s Stream, t time.Time, p []byte) error        { panic("not written yet") }

// End marks that no output follows in this life of the container; followers then finish. A later Create continues the directory.
func (w *Writer) End() error { panic("not written yet") }

// Reader reads entries in order. It pins the segments that it has yet to read by open descriptors, so rotation never takes them away
// from a slow reader, and it never slows the writer.
type Reader struct{}

// ReadOptions choose where reading starts. The zero value reads all that is there and stops.
type ReadOptions struct {
	Follow       bool // wait for more until End is met (of the life that is current) or the context ends
	FromEnd      bool // skip what is there already (attach)
	Tail         int  // with HasTail: only the last Tail lines
	HasTail      bool
	Since, Until time.Time
}

func Open(dir string, o ReadOptions) (*Reader, error) { panic("not written yet") }

// Next returns io.EOF at the end.
func (r *Reader) Next(ctx context.Context) (Entry, error) { panic("not written yet") }
func (r *Reader) Close() error                            { panic("not written yet") }
