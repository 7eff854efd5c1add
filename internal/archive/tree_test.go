package archive

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTree: whatever is done in a tree between two looks, the second says what a walk says.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	tree := &Tree{Own: 1}
	rest := func() { time.Sleep(settled + 20*time.Millisecond) }
	look := func(what string, remembered bool) {
		t.Helper()
		got, err := tree.Measure(t.Context(), dir)
		must(t, err)
		f := openDir(t, dir)
		length, err := Size(t.Context(), f)
		must(t, err)
		used, err := Used(t.Context(), f, nil)
		must(t, err)
		if got != (Sizes{length, used}) {
			t.Errorf("%s: %v, a walk says %d and %d", what, got, length, used)
		}
		if last := tree.last.Load(); (last != nil) != remembered {
			t.Errorf("%s: remembered: %v", what, last != nil)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, n int) { must(t, os.WriteFile(at(name), make([]byte, n), 0o600)) }
	must(t, os.MkdirAll(at("own/theirs/deep/er"), 0o700))
	write("own/theirs/deep/a", 5000)
	look("just made", false)
	rest()
	look("at rest", true)
	for _, step := range []struct {
		what string
		do   func()
		kept bool // no name is read anew
	}{
		{"nothing", func() {}, true},
		{"a file grows", func() { write("own/theirs/deep/a", 50000) }, true},
		{"a hole is filled", func() {
			must(t, os.Truncate(at("own/theirs/deep/a"), 1<<20))
			f, err := os.OpenFile(at("own/theirs/deep/a"), os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(make([]byte, 300000), 100000)
			must(t, err, f.Sync(), f.Close())
		}, true},
		{"a new file deep below", func() { write("own/theirs/deep/er/b", 9000) }, false},
		{"a second name", func() { must(t, os.Link(at("own/theirs/deep/er/b"), at("own/theirs/c"))) }, false},
		{"one name less", func() { must(t, os.Remove(at("own/theirs/deep/er/b"))) }, false},
		{"another file under the same name", func() { write("own/n", 70000); must(t, os.Rename(at("own/n"), at("own/theirs/c"))) }, false},
		{"a directory becomes a link", func() {
			must(t, os.Rename(at("own/theirs/deep"), at("own/theirs/old")), os.Symlink("/usr/bin", at("own/theirs/deep")))
		}, false},
		{"a directory goes", func() { must(t, os.RemoveAll(at("own"))) }, false},
		{"all goes", func() { must(t, os.Remove(dir), os.Mkdir(dir, 0o700)) }, false},
	} {
		before := tree.last.Load()
		step.do()
		look(step.what, step.kept)
		if after := tree.last.Load(); (before == after) != step.kept {
			t.Errorf("%s: names were read: %v", step.what, before != after)
		}
		rest()
		look(step.what+", at rest", true)
	}
	for i := range maxMet {
		write(fmt.Sprint(i), 1)
	}
	rest()
	look("many", false)
}

// TestTreeTrustsNoPath: who owns a directory changes what lies on the way to a name while it is looked at.
func TestTreeTrustsNoPath(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "theirs/deep"), 0o700), os.WriteFile(filepath.Join(dir, "theirs/deep/a"), nil, 0o600))
	f := openDir(t, dir)
	for own, fails := range []bool{true, true, false} {
		var st unix.Stat_t
		must(t, os.Rename(filepath.Join(dir, "theirs"), filepath.Join(dir, "x")), os.Symlink("x", filepath.Join(dir, "theirs")))
		in := inside{root: int(f.Fd()), fd: -1}
		if err := in.stat("theirs/deep/a", own, &st); (err != nil) != fails {
			t.Errorf("own %d: %v", own, err)
		}
		in.leave()
		must(t, os.Remove(filepath.Join(dir, "theirs")), os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "theirs")))
	}
}

// TestTreeWhileItChanges: with someone at work all the time, the last look is right.
func TestTreeWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	tree := &Tree{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			name := filepath.Join(dir, fmt.Sprint(rand.IntN(5)))
			switch rand.IntN(4) {
			case 0:
				_ = os.RemoveAll(name)
			case 1:
				_ = os.Mkdir(name, 0o700)
			case 2:
				_ = os.WriteFile(name, make([]byte, rand.IntN(20000)), 0o600)
			default:
				_ = os.WriteFile(filepath.Join(name, "x"), make([]byte, rand.IntN(20000)), 0o600)
			}
		}
	}()
	for working := true; working; {
		select {
		case <-done:
			working = false
		default:
		}
		_, err := tree.Measure(t.Context(), dir)
		must(t, err)
	}
	for range 3 {
		got, err := tree.Measure(t.Context(), dir)
		must(t, err)
		if length, err := Size(t.Context(), openDir(t, dir)); err != nil || got.Length != length {
			t.Errorf("%d, a walk says %d (%v)", got.Length, length, err)
		}
		time.Sleep(settled + 20*time.Millisecond)
	}
}
