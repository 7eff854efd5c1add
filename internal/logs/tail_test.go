package logs

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTail(t *testing.T) {
	dir := t.TempDir()
	write := func(lives ...[]string) {
		for _, lines := range lives {
			w, err := Create(dir, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range lines {
				if err := w.Append(Stream(1+i%2), time.Now(), []byte(line+"\n")); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.End(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(lines ...string) {
		t.Helper()
		if got, err := Tail(dir, 3); err != nil || !reflect.DeepEqual(got, lines) {
			t.Errorf("last lines: %q, %v, not %q", got, err, lines)
		}
	}
	if got, err := Tail(dir+"/none", 3); err != nil || got != nil {
		t.Errorf("of no log: %q, %v", got, err)
	}
	write([]string{"a", "b", "c", "d"})
	want("b", "c", "d")
	write([]string{"e"})
	want("e")
	write(nil)
	want()
	long := make([]string, 3000) // more than is looked at
	for i := range long {
		long[i] = fmt.Sprintf("%d %s", i, strings.Repeat("\xf3", 100))
	}
	write(long)
	want(long[2997:]...)
	write([]string{strings.Repeat("x", 5000)})
	want(strings.Repeat("x", tailLine))
	f, err := os.OpenFile(segment(dir, 1), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write([]byte{1, magic, 0, 0, 9}) // as a power cut leaves it
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if _, err := Tail(dir, 3); err != nil {
		t.Error(err)
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte{1, magic, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'})
	f.Add([]byte{0, magic, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if lines := tailLines(wholeFrames(b), 3); len(lines) > 3 {
			t.Errorf("%d lines", len(lines))
		}
	})
}
