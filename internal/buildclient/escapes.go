package buildclient

import (
	"strings"

	"github.com/moby/buildkit/client"
)

// escapes takes out of what a program prints what would reach the terminal around the build: it may move the cursor, write over what stands
// there, or set the title. Output comes in pieces that may end in the middle of a sequence.
type escapes struct {
	colours bool   // are left in
	open    []byte // the beginning of a sequence whose end has not come
}

// longest is what a sequence may be long; what is longer is thrown away as it comes, to its end.
const longest = 64

func (e *escapes) take(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		switch {
		case len(e.open) > 0:
			out = e.within(out, c)
		case c == 0x1b || c == 0xc2: // the latter begins the control characters of U+0080 to U+009F, and others
			e.open = append(e.open, c)
		case c == '\n' || c == '\t' || c == '\r' || c >= 0x20 && c != 0x7f:
			out = append(out, c)
		}
	}
	return out
}

// within takes a byte of a sequence. CSI ends with a letter, a string such as a title with BEL or ESC \, all others with their second byte
// that is no intermediate one.
func (e *escapes) within(out []byte, c byte) []byte {
	if e.open[0] == 0xc2 {
		e.open = e.open[:0]
		if c >= 0x80 && c <= 0x9f {
			return out
		}
		return append(out, 0xc2, c)
	}
	kind := byte(0)
	if len(e.open) > 1 {
		kind = e.open[1]
	}
	ends := false
	switch {
	case c == 0x18 || c == 0x1a: // cancelled
		ends = true
	case kind == 0:
		ends = !strings.ContainsRune("[]PX^_", rune(c)) && (c < 0x20 || c > 0x2f)
	case kind == '[':
		ends = c >= 0x40 && c <= 0x7e || c == '\n'
	case strings.ContainsRune("]PX^_", rune(kind)):
		ends = c == 7 || c == '\n' || c == '\\' && e.open[len(e.open)-1] == 0x1b
	default:
		ends = c >= 0x30
	}
	e.open = append(e.open, c)
	if len(e.open) > longest {
		e.open = append(e.open[:2], c)
	}
	if !ends {
		return out
	}
	if kind == '[' && c == 'm' && e.colours {
		out = append(out, e.open...)
	}
	if c == '\n' {
		out = append(out, c)
	}
	e.open = e.open[:0]
	return out
}

func unescaped(s string) string { return string((&escapes{}).take([]byte(s))) }

// clean leaves in what the engine tells nothing that steers a terminal: names come from Dockerfiles, and output from anybody.
func (w *watcher) clean(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		v.Name, v.Error = unescaped(v.Name), unescaped(v.Error)
	}
	for _, st := range s.Statuses {
		st.ID, st.Name = unescaped(st.ID), unescaped(st.Name)
	}
	for _, warning := range s.Warnings {
		warning.Short = []byte(unescaped(string(warning.Short)))
	}
	for _, l := range s.Logs {
		e := w.output[l.Vertex]
		if e == nil {
			e = &escapes{colours: w.colours}
			w.output[l.Vertex] = e
		}
		l.Data = e.take(l.Data)
	}
}
