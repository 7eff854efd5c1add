package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// errDetached ends a stream whose user typed the detach keys.
var errDetached = errors.New("detached; it goes on running")

// parseDetachKeys reads a list such as ctrl-p,ctrl-q: single characters, and ctrl- with a letter or one of @ [ \ ] ^ _.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = "ctrl-p,ctrl-q"
	}
	var keys []byte
	for _, word := range strings.Split(s, ",") {
		char, ctrl := strings.CutPrefix(word, "ctrl-")
		switch {
		case !ctrl && len(word) == 1:
			keys = append(keys, word[0])
		case ctrl && len(char) == 1 && char[0] >= 'a' && char[0] <= 'z':
			keys = append(keys, char[0]-'a'+1)
		case ctrl && len(char) == 1 && char[0] >= '@' && char[0] <= '_':
			keys = append(keys, char[0]-'@')
		default:
			return nil, fmt.Errorf("--detach-keys %s: %q is no key: write keys such as ctrl-p,ctrl-q or a,b", s, word)
		}
	}
	return keys, nil
}

// detachReader passes input on until the keys are typed one after the other, and then gives errDetached. Keys that turn out to be the
// beginning of something else are passed on late, but whole.
type detachReader struct {
	in   io.Reader
	keys []byte

	held    int    // how many of keys were just typed
	pending []byte // to be given before anything is read
	err     error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.pending) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(len(p), 1))
		n, err := d.in.Read(buf)
		d.take(buf[:n])
		if d.err == nil && err != nil {
			d.pending = append(d.pending, d.keys[:d.held]...)
			d.held, d.err = 0, err
		}
	}
	n := copy(p, d.pending)
	d.pending = d.pending[n:]
	return n, nil
}

func (d *detachReader) take(typed []byte) {
	for _, b := range typed {
		if b != d.keys[d.held] {
			d.pending = append(d.pending, d.keys[:d.held]...)
			d.held = 0
			if b != d.keys[0] {
				d.pending = append(d.pending, b)
				continue
			}
		}
		if d.held++; d.held == len(d.keys) {
			d.err = errDetached
			return
		}
	}
}
