package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// tailRead is how much of the newest segment's end is looked at for the last lines: they are for people.
	tailRead = 2 * (HeaderSize + MaxData)
	// tailLine is what is kept of a line, in bytes.
	tailLine = 500
)

// Tail is the last lines of the last life of a container, n at most, each cut where it is very long. It takes as long for a large log as for
// a small one: what has just been rotated away is not looked at.
func Tail(dir string, n int) ([]string, error) {
	numbers, err := segments(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(numbers) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the end of the log %s: %w", dir, err)
	}
	f, err := os.Open(segment(dir, numbers[len(numbers)-1]))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // compressed meanwhile: nothing was written after it
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(fi.Size(), tailRead))
	if _, err := f.ReadAt(b, fi.Size()-int64(len(b))); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the end of the log %s: %w", dir, err)
	}
	return tailLines(wholeFrames(b), n), nil
}

// wholeFrames cuts the beginning off until what is left is frames to its end; what a power cut has torn is none.
func wholeFrames(b []byte) []byte {
	budget := maxTries
	for at := range b {
		if len(b)-at >= HeaderSize && b[at+1] == magic && chained(b[at:], &budget) {
			return b[at:]
		}
	}
	return nil
}

// maxTries bounds the headers that are read: a program may print what looks like many.
const maxTries = 1 << 20

func chained(b []byte, budget *int) bool {
	for len(b) > 0 {
		if *budget--; *budget < 0 || len(b) < HeaderSize {
			return false
		}
		h, ok := parseHeader(b)
		if !ok || len(b) < HeaderSize+h.length {
			return false
		}
		b = b[HeaderSize+h.length:]
	}
	return true
}

// tailLines are the last lines of frames; an end before the last frame belongs to an earlier life.
func tailLines(b []byte, n int) (lines []string) {
	var split Splitter
	keep := func(l Line) error {
		text := string(l.Text[:min(len(l.Text), tailLine)])
		for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
			text = text[:len(text)-1]
		}
		if len(lines) == n {
			lines = append(lines[:0], lines[1:]...)
		}
		lines = append(lines, text)
		return nil
	}
	for len(b) > 0 {
		h, _ := parseHeader(b)
		data := b[HeaderSize : HeaderSize+h.length]
		b = b[HeaderSize+h.length:]
		switch {
		case h.stream != end:
			_ = split.Add(Entry{Stream: h.stream, Data: data}, keep)
		case len(b) > 0:
			split, lines = Splitter{}, nil
		}
	}
	_ = split.Flush(keep)
	return lines
}
