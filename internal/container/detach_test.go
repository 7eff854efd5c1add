package container

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseDetachKeys(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", "\x10\x11"}, {"ctrl-p,ctrl-q", "\x10\x11"}, {"a", "a"}, {"ctrl-@,ctrl-a,ctrl-[,ctrl-\\,ctrl-_,DEL,x", "\x00\x01\x1b\x1c\x1f\x7fx"}, {"ctrl-a,a", "\x01a"},
	} {
		if got, err := parseDetachKeys(row.text); err != nil || string(got) != row.want {
			t.Errorf("%q: %q, %v; want %q", row.text, got, err, row.want)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "ctrl-pq", "shift-a", "a,", ",", "ctrl-p,,ctrl-q", "ab"} {
		if got, err := parseDetachKeys(bad); err == nil || !strings.Contains(err.Error(), "Invalid detach keys ("+bad+")") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func TestDetacher(t *testing.T) {
	for _, row := range []struct {
		keys, typed, passed string
		detached            bool
	}{
		{"\x10\x11", "hello", "hello", false},
		{"\x10\x11", "he\x10\x11llo", "he", true},
		{"\x10\x11", "\x10\x10\x11x", "\x10", true},
		{"\x10\x11", "a\x10b\x11c\x10", "a\x10b\x11c\x10", false}, // the held key is passed on at the end
		{"aab", "aaab", "a", true},                                // the keys begin within a beginning that went wrong
		{"abab", "abaabab", "aba", true},
		{"abac", "abab", "abab", false},
		{"x", "x", "", true},
	} {
		for name, from := range map[string]io.Reader{"whole": strings.NewReader(row.typed), "a byte at a time": iotest.OneByteReader(strings.NewReader(row.typed))} {
			got, err := io.ReadAll(newDetacher(from, []byte(row.keys)))
			if string(got) != row.passed || errors.Is(err, errDetached) != row.detached {
				t.Errorf("%q in %q, %s: %q, %v", row.keys, row.typed, name, got, err)
			}
		}
	}
}

// FuzzDetacher: all that is typed comes through, up to the first place where the keys are.
func FuzzDetacher(f *testing.F) {
	f.Add([]byte("aab"), []byte("caaabd"), 2)
	f.Add([]byte{16, 17}, []byte{16, 16, 17}, 1)
	f.Fuzz(func(t *testing.T, keys, typed []byte, piece int) {
		if len(keys) == 0 || len(keys) > 64 || piece <= 0 {
			return
		}
		want, _, found := bytes.Cut(typed, keys)
		got, err := io.ReadAll(newDetacher(pieces{bytes.NewReader(typed), piece}, keys))
		if !bytes.Equal(got, want) || errors.Is(err, errDetached) != found {
			t.Fatalf("keys %q in %q: %q, %v; want %q", keys, typed, got, err, want)
		}
	})
}

// pieces reads a few bytes at a time.
type pieces struct {
	r    io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.size)]) }
