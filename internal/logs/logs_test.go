package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func readAll(t *testing.T, dir string, o ReadOptions) string {
	t.Helper()
	r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	for {
		e, err := r.Next(t.Context())
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(e.Data)
	}
}

// follow is a watcher for the time of a test.
func follow(t *testing.T) *Watcher {
	w := &Watcher{}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func writer(t *testing.T, dir string, size int64, files int) *Writer {
	t.Helper()
	w, err := Create(dir, size, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a segment may still be compressed: that ends before its folder goes
		if w.packer == nil {
			return
		}
		select {
		case <-w.packer.stop:
		default:
			w.packer.end()
		}
	})
	return w
}

func TestReadOptions(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 0, 0)
	start := time.Now()
	for i := range 5 {
		if err := w.Append(Stdout, start.Add(time.Duration(i)*time.Second), []byte(fmt.Sprintf("line %d\n", i))); err != nil {
			t.Fatal(err)
		}
	}
	rows := []struct {
		name string
		o    ReadOptions
		want string
	}{
		{"all", ReadOptions{}, "line 0\nline 1\nline 2\nline 3\nline 4\n"},
		{"from the end", ReadOptions{FromEnd: true}, ""},
	}
	for _, row := range rows {
		if got := readAll(t, dir, row.o); got != row.want {
			t.Errorf("%s: %q, not %q", row.name, got, row.want)
		}
	}
}

func TestFollowEndsWithTheLife(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 0, 0)
	got := make(chan string)
	r, err := Open(dir, ReadOptions{Follow: follow(t)})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer r.Close()
		var out strings.Builder
		for {
			e, err := r.Next(t.Context())
			if err != nil {
				got <- out.String()
				return
			}
			out.Write(e.Data)
		}
	}()
	for i := range 100 {
		if err := w.Append(Stdout, time.Now(), []byte{byte('a' + i%26)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if s := <-got; len(s) != 100 {
		t.Fatalf("%d bytes of 100", len(s))
	}
	// A second life: its follower begins at its own output.
	w = writer(t, dir, 0, 0)
	r, err = Open(dir, ReadOptions{Follow: follow(t), FromEnd: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_ = w.Append(Stderr, time.Now(), []byte("second"))
	e, err := r.Next(t.Context())
	if err != nil || string(e.Data) != "second" || e.Stream != Stderr {
		t.Fatalf("%v %q", err, e.Data)
	}
}

func TestSlowReaderLosesNothing(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 64<<10, 3)
	r, err := Open(dir, ReadOptions{Follow: follow(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var want bytes.Buffer
	read := func() (string, error) {
		e, err := r.Next(t.Context())
		return string(e.Data), err
	}
	var got bytes.Buffer
	for i := range 40000 {
		line := fmt.Sprintf("a line of some length, number %d\n", i)
		want.WriteString(line)
		if err := w.Append(Stdout, time.Now(), []byte(line)); err != nil {
			t.Fatal(err)
		}
		if i%40 == 0 { // far slower than the writer
			s, err := read()
			if err != nil {
				t.Fatal(err)
			}
			got.WriteString(s)
		}
	}
	_ = w.End()
	for {
		s, err := read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(s)
	}
	if got.String() != want.String() {
		t.Fatalf("%d bytes of %d", got.Len(), want.Len())
	}
	// What was kept for the reader goes with the next rotations after it has gone.
	r.Close()
	w = writer(t, dir, 64<<10, 3)
	for range 4 {
		if err := w.Append(Stdout, time.Now(), make([]byte, MaxData)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.End()
	if n, _ := segments(dir); len(n) > 3 {
		t.Fatalf("%d segments are left, 3 are the limit", len(n))
	}
}

func TestTornFrameEndsItsSegment(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 0, 0)
	_ = w.Append(Stdout, time.Now(), []byte("whole\n"))
	f, err := os.OpenFile(segment(dir, 1), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte{1, magic, 0, 0, 200, 0, 0, 0, 1, 2, 3})
	f.Close()
	w = writer(t, dir, 0, 0)
	_ = w.Append(Stdout, time.Now(), []byte("after\n"))
	if got := readAll(t, dir, ReadOptions{}); got != "whole\nafter\n" {
		t.Fatalf("%q", got)
	}
}

func TestFollowStopsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	writer(t, dir, 0, 0)
	r, err := Open(dir, ReadOptions{Follow: follow(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestSplitterKeepsStreamsApart(t *testing.T) {
	var s Splitter
	var got []string
	add := func(l Line) error { got = append(got, fmt.Sprintf("%d%s", l.Stream, l.Text)); return nil }
	for _, e := range []Entry{{Stdout, time.Now(), []byte("he")}, {Stderr, time.Now(), []byte("x\ny")}, {Stdout, time.Now(), []byte("llo\n\n")}} {
		if err := s.Add(e, add); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Flush(add)
	if want := "2x\n|1hello\n|1\n|2y"; strings.Join(got, "|") != want {
		t.Fatalf("%q", got)
	}
}

// lastLines is how a reader of the last n lines prints them, and in how many segments it looked for them.
func lastLines(t *testing.T, dir string, n int) (lines []string, segments int) {
	t.Helper()
	r, err := Open(dir, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	skip, err := r.Last(n)
	if err != nil {
		t.Fatal(err)
	}
	segments = r.segments()
	var split Splitter
	keep := func(l Line) error {
		if skip--; skip < 0 {
			lines = append(lines, fmt.Sprintf("%d %s", l.Stream, l.Text))
		}
		return nil
	}
	for {
		e, err := r.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err == nil {
			err = split.Add(e, keep)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = split.Flush(keep)
	return lines, segments
}

// TestLastLines are whole wherever their segments begin and end, and those before them are not read.
func TestLastLines(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		w := writer(t, dir, 20+rng.Int64N(200), 1000)
		often := 1 + rng.IntN(40) // of so many entries one is on stderr
		for i := range 300 {
			stream := Stdout
			if rng.IntN(often) == 0 {
				stream = Stderr
			}
			text := fmt.Sprintf("%d", i)
			for rng.IntN(2) == 0 {
				text += fmt.Sprintf("\n%d.", rng.IntN(10))
			}
			if rng.IntN(3) > 0 {
				text += "\n"
			}
			if err := w.Append(stream, time.Now(), []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		last := []byte("the last") // is unfinished, or not
		if seed%2 == 0 {
			last = append(last, '\n')
		}
		if err := errors.Join(w.Append(Stderr, time.Now(), []byte("\n")), w.Append(Stdout, time.Now(), last)); err != nil {
			t.Fatal(err)
		}
		all, of := lastLines(t, dir, math.MaxInt)
		for _, n := range []int{0, 1, 2, 3, 10, 100, len(all) - 1, len(all), len(all) + 1} {
			got, looked := lastLines(t, dir, n)
			if want := all[len(all)-min(n, len(all)):]; !slices.Equal(got, want) {
				t.Fatalf("seed %d: the last %d of %d lines are %q, want %q", seed, n, len(all), got, want)
			}
			if n <= 10 && often <= 3 && looked > of/2 {
				t.Errorf("seed %d: for the last %d lines %d segments of %d were read", seed, n, looked, of)
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte{1, magic, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 'h', 'i'})
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segment(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := readAll(t, dir, ReadOptions{}); len(out) > len(b) {
			t.Fatal("more came out than is there")
		}
		r, err := Open(dir, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if n, err := r.Last(0); err != nil || n > len(b) {
			t.Fatalf("%d lines of %d bytes, %v", n, len(b), err)
		}
	})
}

// TestRotationWaitsForFollowers: what a follower has yet to open stays, however many segments there should be; no follower, no waiting.
func TestRotationWaitsForFollowers(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 100, 2)
	count := func() int {
		t.Helper()
		list, err := segments(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	fill := func(n int) {
		t.Helper()
		for range n {
			if err := w.Append(Stdout, time.Now(), make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(10)
	if n := count(); n != 2 {
		t.Fatalf("%d segments without a follower", n)
	}
	r, err := Open(dir, ReadOptions{Follow: follow(t), FromEnd: true})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock() // it is not given the time to open anything
	fill(20)
	n := count()
	r.mu.Unlock()
	if n != 21 {
		t.Fatalf("%d segments for a follower that is 20 behind", n)
	}
	for total := 0; total < 2000; {
		e, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += len(e.Data)
	}
	if err := r.openNew(); err != nil {
		t.Fatal(err)
	}
	fill(1)
	if n := count(); n > 3 {
		t.Fatalf("%d segments for a follower that has opened all", n)
	}
	r.mu.Lock()
	fill(1200)
	n = count()
	r.mu.Unlock()
	if n < 1000 || n > w.maxFiles+w.patience()+1 {
		t.Fatalf("%d segments for a follower that is stopped", n)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	fill(1)
	if n := count(); n != 2 {
		t.Fatalf("%d segments after the follower", n)
	}
}

// TestFollowersShareAnInstance: more followers than a user has inotify instances, of one folder and of many.
func TestFollowersShareAnInstance(t *testing.T) {
	w := follow(t)
	var readers []*Reader
	var dirs []string
	for i := range 300 {
		if i%3 == 0 {
			dirs = append(dirs, t.TempDir())
		}
		r, err := Open(dirs[len(dirs)-1], ReadOptions{Follow: w})
		if err != nil {
			t.Fatalf("follower %d: %v", i, err)
		}
		readers = append(readers, r)
	}
	for i, dir := range dirs {
		if err := writer(t, dir, 0, 0).Append(Stdout, time.Now(), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range readers {
		e, err := r.Next(t.Context())
		if err != nil || len(e.Data) != 1 || e.Data[0] != byte(i/3) {
			t.Fatalf("follower %d: %q, %v", i, e.Data, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.watches) != 0 {
		t.Errorf("%d folders are still watched", len(w.watches))
	}
	if _, err := Open(dirs[0], ReadOptions{}); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dirs[0], ReadOptions{Follow: w}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a follower after the end: %v", err)
	}
}

// TestOverflow: when the kernel's queue was too short, followers look by themselves.
func TestOverflow(t *testing.T) {
	dir, w := t.TempDir(), follow(t)
	r, err := Open(dir, ReadOptions{Follow: w})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.mu.Lock() // its goroutine tells nothing now
	if err := writer(t, dir, 0, 0).Append(Stdout, time.Now(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	w.mu.Unlock()
	w.tell(map[int32]uint32{-1: 1 << 14})
	if r.segments() != 1 {
		t.Error("the new segment is not opened")
	}
}

// TestReaderFarBehind holds a bounded number of descriptors, gets all that it holds, and is told that the rest is gone.
func TestReaderFarBehind(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 0, 0)
	if err := errors.Join(w.Append(Stdout, time.Now(), []byte("x")), w.file.Close()); err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= maxPinned+2; n++ {
		if n == maxPinned+1 {
			continue // rotated away
		}
		if err := os.Link(segment(dir, 1), segment(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(dir, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n := r.segments(); n != maxPinned {
		t.Errorf("%d segments are held", n)
	}
	for n := 0; ; n++ {
		e, err := r.Next(t.Context())
		if err == nil && string(e.Data) == "x" {
			continue
		}
		if n != maxPinned || !errors.Is(err, ErrLost) {
			t.Errorf("after %d entries: %q, %v", n, e.Data, err)
		}
		return
	}
}

// TestLastFrameBeforeRotation: what is written after a reader has met the end of a segment, and before the next one begins, is read.
func TestLastFrameBeforeRotation(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 60, 9)
	r, err := Open(dir, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	add := func(text string) {
		t.Helper()
		if err := w.Append(Stdout, time.Now(), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	add("one")
	if e, err := r.Next(t.Context()); err != nil || string(e.Data) != "one" {
		t.Fatal(e, err)
	}
	if _, _, err := r.frame(); err != io.EOF { // the end, for now
		t.Fatal(err)
	}
	add("two")
	add("three, which makes it full")
	add("four")
	if err := r.openNew(); err != nil { // the watcher's work
		t.Fatal(err)
	}
	if more, err := r.advance(t.Context()); !more || err != nil {
		t.Fatal(more, err)
	}
	var got []string
	for {
		e, err := r.Next(t.Context())
		if err != nil {
			break
		}
		got = append(got, string(e.Data))
	}
	if want := "two|three, which makes it full|four"; strings.Join(got, "|") != want {
		t.Errorf("%q", got)
	}
}

// TestFollowersShareWhatIsScarce: clients that have stopped reading hold a bounded number of descriptors together, and not the last of a disk;
// they are told that output is gone, and who reads loses nothing.
func TestFollowersShareWhatIsScarce(t *testing.T) {
	t.Run("descriptors", func(t *testing.T) {
		var watcher Watcher
		last := followAll(t, &watcher, t.TempDir(), 1100, func() { watcher.most.Store(40) }) // more than the writer keeps for who is behind
		if n := watcher.pinned.Load(); n > 40+2*fewPinned {
			t.Errorf("%d segments are held", n)
		}
		for {
			if _, err := last.Next(t.Context()); errors.Is(err, ErrLost) {
				break
			} else if err != nil {
				t.Fatalf("who did not read is told %v", err)
			}
		}
	})
	t.Run("disk", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if err := os.WriteFile(filepath.Join(dir, "filling"), make([]byte, 15<<20+512<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		var watcher Watcher
		followAll(t, &watcher, filepath.Join(dir, "logs"), 60, func() {})
		if n := watcher.pinned.Load(); n > 3*fewPinned {
			t.Errorf("%d segments are held", n)
		}
	})
}

// followAll writes lines into segments of their own, while one follower reads and two do not; it returns the last of these.
func followAll(t *testing.T, watcher *Watcher, dir string, lines int, limit func()) *Reader {
	t.Helper()
	var followers []*Reader
	for range 3 {
		r, err := Open(dir, ReadOptions{Follow: watcher})
		if err != nil {
			t.Fatal(err)
		}
		followers = append(followers, r)
	}
	t.Cleanup(func() {
		for _, r := range followers {
			r.Close()
		}
		if n := watcher.pinned.Load(); n != 0 {
			t.Errorf("%d segments are held by nobody", n)
		}
		watcher.Close()
	})
	limit()
	w := writer(t, dir, 1, 1)
	for range lines {
		if err := w.Append(Stdout, time.Now(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if e, err := followers[0].Next(t.Context()); err != nil || string(e.Data) != "x" {
			t.Fatalf("who reads at once gets %q, %v", e.Data, err)
		}
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	return followers[2]
}
