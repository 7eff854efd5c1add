package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wherry.dev/wherry/internal/logs"
)

// twoPipes are a program's standard output and error; the ends that it writes to are closed with the test.
func twoPipes(t *testing.T, o *output) (out, errs *os.File) {
	t.Helper()
	s, err := o.open(false, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s[1], s[2]
}

func write(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := io.WriteString(f, text); err != nil {
		t.Fatal(err)
	}
}

// TestOutputOfTwoStreams: what floods one of them keeps nobody from the other, and all that was written before both were closed is in the log.
func TestOutputOfTwoStreams(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	log, err := logs.Create(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := &output{log: log}
	out, errs := twoPipes(t, o)
	if err := o.run(); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		write(t, []*os.File{out, errs}[i%2], fmt.Sprintln("line", i))
	}
	flood, done := strings.Repeat("x", 1<<20), make(chan error)
	go func() {
		_, err := io.WriteString(out, flood)
		done <- err
	}()
	write(t, errs, "in between")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	out.Close()
	errs.Close()
	if n := o.finish(); n != 0 {
		t.Errorf("%d bytes are missing", n)
	}
	text := logged(t, dir)
	if got := text[logs.Stdout]; !strings.HasSuffix(got, flood) || strings.Count(got, "line") != 250 {
		t.Errorf("stdout has %d bytes", len(got))
	}
	if got := text[logs.Stderr]; !strings.HasSuffix(got, "in between") || strings.Count(got, "line") != 250 {
		t.Errorf("stderr has %d bytes", len(got))
	}
}

// TestOutputIsGivenUp: what is passed elsewhere may be held for ever; the end of the container does not wait for it.
func TestOutputIsGivenUp(t *testing.T) {
	log, err := logs.Create(filepath.Join(t.TempDir(), "log"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := &output{log: log}
	twoPipes(t, o)
	if err := o.run(); err != nil {
		t.Fatal(err)
	}
	o.ready.GiveUp(time.Now())
	<-o.over
	o.close()
}

// TestStdinIsItsOwn: a client gets the container's standard input, or an error, and never whatever has its number when the container has ended meanwhile.
func TestStdinIsItsOwn(t *testing.T) {
	s := NewServer(t.TempDir(), refusing{})
	read, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	s.life.stdin = stdin
	_, give, err := s.do(t.Context(), nil, Request{Method: MethodStdin}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	write(t, give, "x")
	give.Close()
	if b, err := io.ReadAll(read); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	if _, give, err := s.do(t.Context(), nil, Request{Method: MethodStdin}, nil); err == nil || give != nil {
		t.Errorf("%v, %v of a container that has ended", give, err)
	}
}
