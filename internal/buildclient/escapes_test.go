package buildclient

import (
	"bytes"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// TestEscapesAreTakenOut: whole, byte by byte, and never more than what steers the terminal.
func TestEscapesAreTakenOut(t *testing.T) {
	for in, want := range map[string]string{
		"plain\tünï 漢字\r\n":                        "plain\tünï 漢字\r\n",
		"\x1b[2J\x1b[1;1Hover":                     "over",
		"\x1b[31mred\x1b[0m":                       "red",
		"\x1b]0;title\x07a":                        "a",
		"\x1b]52;c;cGFzdGU=\x1b\\b":                "b",
		"\x1bP1$r0m\x1b\\c":                        "c",
		"\x1b(B\x1b7\x1bMd":                        "d",
		"\u009b2Je\u009d":                          "2Je",
		"a\x08\x08\x07\x00\x7fb":                   "ab",
		"\x1b]" + strings.Repeat("x", 999) + "\nn": "\nn",
		"\x1b[" + strings.Repeat("1;", 999) + "mn": "n",
	} {
		var e escapes
		if got := string(e.take([]byte(in))); got != want {
			t.Errorf("%q became %q, not %q", in, got, want)
		}
		e = escapes{}
		var got []byte
		for i := range len(in) {
			got = append(got, e.take([]byte(in[i:i+1]))...)
		}
		if string(got) != want {
			t.Errorf("in pieces %q became %q, not %q", in, got, want)
		}
	}
	e := escapes{colours: true}
	if got := string(e.take([]byte("\x1b[1;31mred\x1b[0m\x1b[2K"))); got != "\x1b[1;31mred\x1b[0m" {
		t.Errorf("with colours: %q", got)
	}
}

// TestBuildsSteerNoTerminal: neither by what a step prints nor by its name, which is a line of the Dockerfile.
func TestBuildsSteerNoTerminal(t *testing.T) {
	var out bytes.Buffer
	w, err := newWatcher(&out, "plain", false)
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan *client.SolveStatus)
	done := make(chan error)
	go func() { done <- w.follow(t.Context(), from) }()
	step := digest.FromString("step")
	from <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: step, Name: "RUN echo \x1b]0;owned\x07x"}},
		Logs: []*client.VertexLog{{Vertex: step, Data: []byte("one\x1b[2")}}}
	from <- &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: step, Data: []byte("Jtwo\n")}}}
	close(from)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.ContainsAny(text, "\x1b\x07") || !strings.Contains(text, "onetwo") {
		t.Errorf("%q", text)
	}
	if tail := string(w.steps[step].tail); tail != "onetwo\n" {
		t.Errorf("of its end is kept %q", tail)
	}
}
