package container

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// errDetached: the client has typed the keys that let go of a process and leave it running.
var errDetached = errors.New("detached")

// parseDetachKeys reads keys such as "ctrl-p,ctrl-q" or "a"; "" means these two.
func parseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		return []byte{'p' & 0x1f, 'q' & 0x1f}, nil
	}
	var keys []byte
	for _, key := range strings.Split(text, ",") {
		control, isControl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case key == "DEL":
			keys = append(keys, 0x7f)
		case isControl && len(control) == 1 && strings.Contains("abcdefghijklmnopqrstuvwxyz@[\\]^_", control):
			keys = append(keys, control[0]&0x1f)
		default:
			return nil, invalid("Invalid detach keys (%s) provided: %q is no key: write single characters or ctrl- and a letter or one of @[\\]^_, separated by commas", text, key)
		}
	}
	return keys, nil
}

// detacher passes on what is typed until the detach keys come: then Read returns errDetached. The beginning of the keys is held back
// until it is clear that they are not meant.
type detacher struct {
	from io.Reader
	keys []byte
	held int    // so many of the keys have come
	out  []byte // clear to pass on
	err  error  // to return when out is empty
	buf  [4096]byte
}

func newDetacher(from io.Reader, keys []byte) *detacher { return &detacher{from: from, keys: keys} }

func (d *detacher) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.from.Read(d.buf[:])
		d.take(d.buf[:n])
		if err != nil && d.err == nil {
			d.out = append(d.out, d.keys[:d.held]...) // they were not meant
			d.held, d.err = 0, err
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

// take sorts what was typed. When a beginning of the keys goes wrong, the keys may still begin later in it.
func (d *detacher) take(typed []byte) {
	d.out = make([]byte, 0, len(typed)+d.held)
	for _, b := range typed {
		seen := append(append([]byte{}, d.keys[:d.held]...), b)
		for len(seen) > 0 && !bytes.HasPrefix(d.keys, seen) {
			d.out = append(d.out, seen[0])
			seen = seen[1:]
		}
		d.held = len(seen)
		if d.held == len(d.keys) {
			d.held, d.err = 0, errDetached
			return
		}
	}
}
