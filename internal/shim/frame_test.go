package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// pair is both ends of a connection.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestFramesCarryFiles(t *testing.T) {
	a, b := pair(t)
	one, other := NewConn(a), NewConn(b)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sent := Request{N: 7, Method: MethodExec, Exec: "x", Process: &specs.Process{Args: []string{strings.Repeat("long", 100_000)}}, Streams: 6}
	go func() { _ = one.Send(sent, w, w); w.Close() }()
	var got Request
	files, err := other.Receive(&got)
	if err != nil || got.N != 7 || got.Process.Args[0] != sent.Process.Args[0] || got.Streams != 6 {
		t.Fatalf("%v: %d bytes of argument", err, len(got.Process.Args[0]))
	}
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		if _, err := f.WriteString("through"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if text, _ := io.ReadAll(r); string(text) != "throughthrough" {
		t.Fatalf("%q", text)
	}
}

// TestTooLargeAFrameIsNotSent: the connection stays, for others to be sent and for the other side to be told.
func TestTooLargeAFrameIsNotSent(t *testing.T) {
	_, c, _ := serve(t)
	err := c.Send(Request{N: 1, Method: MethodExec, Process: &specs.Process{Args: []string{strings.Repeat("<", maxFrame/6)}}}) // six bytes each, in JSON
	if !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if resp := ask(t, c, Request{N: 2, Method: MethodState}); resp.Error != "" {
		t.Fatal(resp.Error)
	}

	s := NewServer(t.TempDir(), refusing{})
	s.execs.byID["x"] = &execution{process: ended{}, note: json.RawMessage(`"` + strings.Repeat("x", maxFrame) + `"`), done: make(chan struct{})}
	a, b := pair(t)
	s.clients = 1
	go s.client(t.Context(), NewConn(a))
	if resp := ask(t, NewConn(b), Request{N: 3, Method: MethodExecs}); !strings.Contains(resp.Error, ErrTooLarge.Error()) {
		t.Fatalf("%+v", resp)
	}
}

// ended is a process of which nothing is asked but its number.
type ended struct{ Process }

func (ended) Pid() int { return 1 }

// TestManySendersOneFrameAtATime: answers to several requests are written at the same time.
func TestManySendersOneFrameAtATime(t *testing.T) {
	a, b := pair(t)
	one, other := NewConn(a), NewConn(b)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				_ = one.Send(Response{N: uint64(n), Error: strings.Repeat("e", 1000*n)})
			}
		}()
	}
	for range 400 {
		var r Response
		if _, err := other.Receive(&r); err != nil || len(r.Error) != 1000*int(r.N) {
			t.Fatalf("%v: frame %d has %d bytes", err, r.N, len(r.Error))
		}
	}
	wg.Wait()
}

func TestBadFrames(t *testing.T) {
	for name, bytes := range map[string][]byte{"too long": binary.BigEndian.AppendUint32(nil, maxFrame+1), "cut off": {0, 0, 0, 9, '{'}, "no JSON": {0, 0, 0, 2, '}', '{'}, "half a length": {0, 0}, "nothing": {}} {
		a, b := pair(t)
		_, _ = a.Write(bytes)
		a.Close()
		_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
		var r Request
		if _, err := NewConn(b).Receive(&r); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), ExitFile)
	want := Exit{Code: 137, Signal: 9, OOMKilled: true, OOMVictim: "tail", At: time.Now().UTC(), Started: true}
	if err := WriteJSON(path, want); err != nil {
		t.Fatal(err)
	}
	var got Exit
	if err := ReadJSON(path, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v %+v", err, got)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
		t.Fatalf("%d files", len(list))
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, &got); err == nil {
		t.Fatal("an empty file is taken for an exit")
	}
}

// FuzzReceive: whatever comes over the socket is an error or a request.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0, 0, 0, 12, '{', '"', 'n', '"', ':', '1', ',', '"', 'm', '"', ':', '2', '}'})
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := pair(t)
		if len(b) > 64<<10 {
			return
		}
		go func() { _, _ = x.Write(b); x.Close() }()
		var r Request
		_, _ = NewConn(y).Receive(&r)
	})
}
