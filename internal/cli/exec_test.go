package cli

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
)

func echo(stdin io.Reader, stdout, stderr io.Writer) int {
	fmt.Fprint(stderr, "to stderr\n")
	n, _ := io.Copy(stdout, stdin)
	return int(n)
}

func TestExec(t *testing.T) {
	e := newScriptedEngine(echo)
	got := runWherry(t, serveRecorder(t, e), "four", "exec", "-i", "c", "cat", "-u")
	if got != (outcome{4, "four", "to stderr\n"}) {
		t.Errorf("%+v", got)
	}
	if asked := strings.Join(e.requests(), ", "); asked != "POST /wherry/exec/c" {
		t.Errorf("asked %s", asked)
	}
	e = newScriptedEngine(echo)
	if got := runWherry(t, serveRecorder(t, e), "four", "exec", "c", "cat"); got != (outcome{0, "", "to stderr\n"}) {
		t.Errorf("without -i no input is sent: %+v", got)
	}
}

func TestExecFailures(t *testing.T) {
	for message, code := range map[string]int{
		`exec: "nope": executable file not found in $PATH`: 127, "exec /x: permission denied": 126, "container c is not running": 1, `chdir to cwd ("/x"): no such file or directory`: 126,
	} {
		for _, args := range [][]string{{"exec", "c", "x"}, {"exec", "-d", "c", "x"}} {
			e := newScriptedEngine(echo)
			e.startErr = message
			if got := runWherry(t, serveRecorder(t, e), "", args...); got != (outcome{code, "", "wherry: " + message + "\n"}) {
				t.Errorf("%v: %+v, want status %d", args, got, code)
			}
		}
	}
}

func TestAttach(t *testing.T) {
	e := newScriptedEngine(echo)
	e.state = "running"
	if got := runWherry(t, serveRecorder(t, e), "four", "attach", "c"); got != (outcome{4, "four", "to stderr\n"}) {
		t.Errorf("%+v", got)
	}
	e = newScriptedEngine(echo)
	e.state = "running"
	if got := runWherry(t, serveRecorder(t, e), "four", "attach", "--no-stdin", "c"); got != (outcome{0, "", "to stderr\n"}) {
		t.Errorf("--no-stdin: %+v", got)
	}
	for state, want := range map[string]string{"exited": "wherry start -ai c", "paused": "wherry unpause c"} {
		e := newScriptedEngine(echo)
		e.state = state
		if got := runWherry(t, serveRecorder(t, e), "", "attach", "c"); got.code != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", state, got)
		}
	}
}

func TestStartAttached(t *testing.T) {
	e := newScriptedEngine(echo)
	e.state = "exited"
	if got := runWherry(t, serveRecorder(t, e), "four", "start", "-ai", "c"); got != (outcome{4, "four", "to stderr\n"}) {
		t.Errorf("%+v", got)
	}
	asked := e.requests()
	if last := asked[len(asked)-1]; last != "POST /containers/ID/start" {
		t.Errorf("it is attached before it starts: %v", asked)
	}
	if got := runWherry(t, serveRecorder(t, e), "", "start", "-a", "c", "d"); got.code != 1 || !strings.Contains(got.stderr, "only one container") {
		t.Errorf("%+v", got)
	}
}

func TestDemultiplexErrors(t *testing.T) {
	whole := func(id byte, text string) []byte {
		head := []byte{id, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
		return append(head, text...)
	}
	for name, row := range map[string]struct {
		in         []byte
		out, wrong string
	}{
		"whole":             {append(whole(1, "a"), whole(2, "b")...), "a", ""},
		"an empty frame":    {append(whole(1, ""), whole(1, "b")...), "b", ""},
		"cut in a header":   {append(whole(1, "a"), 1, 0), "a", "read a frame"},
		"cut in a frame":    {whole(1, "abc")[:9], "a", "copy output"},
		"the engine's word": {append(whole(1, "a"), whole(3, "Error grabbing logs: broken")...), "a", "Error grabbing logs: broken"},
		"no such stream":    {whole(9, "a"), "", "no stream 9"},
	} {
		var out bytes.Buffer
		err := demultiplex(&out, io.Discard, bufio.NewReader(bytes.NewReader(row.in)))
		if out.String() != row.out || (err == nil) != (row.wrong == "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

func FuzzDemultiplex(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 2, 'h', 'i', 2, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{3, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var stdout, stderr bytes.Buffer
		_ = demultiplex(&stdout, &stderr, bufio.NewReader(bytes.NewReader(data)))
		if stdout.Len()+stderr.Len() > len(data) {
			t.Errorf("%d bytes became %d", len(data), stdout.Len()+stderr.Len())
		}
	})
}
