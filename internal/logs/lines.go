package logs

import (
	"bytes"
	"time"
)

// Line is one line of output, with its newline unless it is the last and unfinished.
type Line struct {
	Stream Stream
	Time   time.Time // when its first byte was read
	Text   []byte    // valid until the next call
}

// maxLine is the longest line that is held together; longer ones are handed out in pieces.
const maxLine = 1 << 20

// Splitter cuts entries into lines, each stream for itself.
type Splitter struct {
	partial [Stderr + 1][]byte
	began   [Stderr + 1]time.Time
}

// Add hands out the lines that an entry completes.
func (s *Splitter) Add(e Entry, fn func(Line) error) error {
	data := e.Data
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		if len(s.partial[e.Stream]) == 0 {
			s.began[e.Stream] = e.Time
		}
		if i < 0 {
			s.partial[e.Stream] = append(s.partial[e.Stream], data...)
			if len(s.partial[e.Stream]) < maxLine {
				return nil
			}
			i, data = len(data)-1, nil
		} else {
			s.partial[e.Stream] = append(s.partial[e.Stream], data[:i+1]...)
			data = data[i+1:]
		}
		if err := s.flush(e.Stream, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *Splitter) flush(stream Stream, fn func(Line) error) error {
	line := Line{Stream: stream, Time: s.began[stream], Text: s.partial[stream]}
	s.partial[stream] = s.partial[stream][:0]
	return fn(line)
}

// Pending says that there are unfinished lines.
func (s *Splitter) Pending() bool { return len(s.partial[Stdout])+len(s.partial[Stderr]) > 0 }

// Flush hands out unfinished lines.
func (s *Splitter) Flush(fn func(Line) error) error {
	for _, stream := range []Stream{Stdout, Stderr} {
		if len(s.partial[stream]) > 0 {
			if err := s.flush(stream, fn); err != nil {
				return err
			}
		}
	}
	return nil
}
