package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDetachReader(t *testing.T) {
	const p, q = "\x10", "\x11"
	rows := []struct {
		name, typed, passed string
		detached            bool
	}{
		{"nothing special", "hello", "hello", false},
		{"both keys", "ab" + p + q + "rest", "ab", true},
		{"first key alone", "a" + p + "b", "a" + p + "b", false},
		{"first key twice", p + p + q, p, true},
		{"first key at the end", "a" + p, "a" + p, false},
		{"second key alone", q + "a", q + "a", false},
		{"the keys with something between", p + "x" + q, p + "x" + q, false},
	}
	keys, err := parseDetachKeys("")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for how, in := range map[string]io.Reader{"at once": strings.NewReader(row.typed), "byte by byte": iotest.OneByteReader(strings.NewReader(row.typed))} {
			got, err := io.ReadAll(&detachReader{in: in, keys: keys})
			if string(got) != row.passed || errors.Is(err, errDetached) != row.detached {
				t.Errorf("%s, %s: passed %q, error %v", row.name, how, got, err)
			}
		}
	}
}

func TestParseDetachKeys(t *testing.T) {
	for text, want := range map[string]string{"": "\x10\x11", "ctrl-a": "\x01", "a,b": "ab", "ctrl-@,ctrl-_,x": "\x00\x1fx", "ctrl-[": "\x1b"} {
		if got, err := parseDetachKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "foo", "a,,b", "ctrl-ab"} {
		if got, err := parseDetachKeys(text); err == nil {
			t.Errorf("%q: %q, want an error", text, got)
		}
	}
}
