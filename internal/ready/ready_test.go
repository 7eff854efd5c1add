package ready

import (
	"io"
	"os"
	"testing"
	"time"
)

func pipes(t *testing.T) (l *List, read, write [2]*os.File) {
	t.Helper()
	var err error
	for i := range read {
		if read[i], write[i], err = Pipe(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			read[i].Close()
			write[i].Close()
		})
	}
	if l, err = New(read[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, read, write
}

func put(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := io.WriteString(f, text); err != nil {
		t.Fatal(err)
	}
}

// TestOrder: of two pipes that both wait to be read, the one that was written to first comes first, whichever it is and whatever came before.
func TestOrder(t *testing.T) {
	l, read, w := pipes(t)
	out, errs := w[0], w[1]
	take := func(next func() (int, bool)) string {
		l.GiveUp(time.Now().Add(10 * time.Second))
		for {
			i, ok := next()
			if !ok {
				t.Fatal("nothing is announced")
			}
			b := make([]byte, 64)
			n, err := Read(read[i], b)
			if l.Hung(i) && n > 0 {
				l.Again(i)
			}
			if err == nil {
				return string(b[:n])
			}
		}
	}
	for i := range 100 {
		first, second := out, errs
		if i%3 == 0 {
			first, second = errs, out
		}
		put(t, first, "first")
		put(t, second, "second")
		if i%2 == 0 {
			put(t, first, "+")
		}
		next := l.Next
		if i%5 == 0 {
			next = l.Now
		}
		got := take(next) + " " + take(next)
		if want := [2]string{"first+ second", "first second"}[i%2]; got != want {
			t.Fatalf("round %d: %q, not %q", i, got, want)
		}
	}
	if _, ok := l.Now(); ok {
		t.Error("there is more than was written")
	}
	out.Close()
	put(t, errs, "last")
	errs.Close()
	if got := take(l.Next) + take(l.Next) + take(l.Next); got != "last" {
		t.Errorf("at the end: %q", got)
	}
	l.End(0)
	if !l.Left() {
		t.Error("none is left of two, one of which has ended")
	}
	l.End(1)
	if _, ok := l.Next(); ok || l.Left() {
		t.Error("there is more than all")
	}
}

// TestGivenUp: a pipe that somebody holds for ever is not waited for; what is in it is there all the same, and reading may go on.
func TestGivenUp(t *testing.T) {
	l, read, w := pipes(t)
	put(t, w[1], "x")
	l.GiveUp(time.Now().Add(-time.Second))
	if _, ok := l.Next(); ok {
		t.Error("reading was given up, and goes on")
	}
	b := make([]byte, 8)
	if i, ok := l.Now(); !ok || i != 1 {
		t.Errorf("%d, %v of what is there", i, ok)
	} else if n, err := Read(read[i], b); err != nil || string(b[:n]) != "x" {
		t.Errorf("%q, %v", b[:n], err)
	}
	l.GiveUp(time.Time{})
	go io.WriteString(w[0], "y")
	if i, ok := l.Next(); !ok || i != 0 {
		t.Errorf("%d, %v", i, ok)
	}
	go l.Close()
	if _, ok := l.Next(); ok {
		t.Error("the list is closed, and has something")
	}
}
