package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	o.Dir = dir
	if o.Log == nil {
		o.Log = func(err error) { t.Log(err) }
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func add(t *testing.T, l *Log, n int) {
	t.Helper()
	uid := uint32(1000)
	for i := range n {
		r := Record{Who: &Who{UID: &uid, PID: 7, Program: "/usr/bin/docker"}, Method: "POST", Path: "/containers/web/start", Status: 204,
			Object: &Object{Type: "container", ID: fmt.Sprintf("%064x", i), Name: fmt.Sprint("web", i)}}
		if _, err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, l *Log) Report {
	t.Helper()
	r, err := l.Verify(t.Context(), Mark{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func lines(t *testing.T, path string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(b, nil), []byte("\n"))
}

const firstFile = "00000000000000000001.jsonl"

// TestTamperingShows edits, deletes, swaps, adds and truncates lines of a log of ten records, as it is open and after the engine's next start.
func TestTamperingShows(t *testing.T) {
	rows := []struct {
		name    string
		change  func(l [][]byte) [][]byte
		line    int
		problem string
	}{
		{"nothing", func(l [][]byte) [][]byte { return l }, 0, ""},
		{"a word", func(l [][]byte) [][]byte { l[3] = bytes.Replace(l[3], []byte("1000"), []byte("1001"), 1); return l }, 4, "record 4 was changed"},
		{"a space", func(l [][]byte) [][]byte { l[0] = append([]byte(" "), l[0]...); return l }, 1, "record 1 was changed"},
		{"the last line", func(l [][]byte) [][]byte { l[9] = bytes.Replace(l[9], []byte("204"), []byte("500"), 1); return l }, 10, "record 10 was changed"},
		{"one is out", func(l [][]byte) [][]byte { return append(l[:4:4], l[5:]...) }, 5, "records 5 to 5 are missing before it"},
		{"the first is out", func(l [][]byte) [][]byte { return l[1:] }, 1, "records 1 to 1 are missing before it"},
		{"two have changed places", func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, 3, "records 3 to 3 are missing before it"},
		{"one is there twice", func(l [][]byte) [][]byte { return append(l[:5:5], l[4:]...) }, 6, "record 5 stands behind record 5"},
		{"no record", func(l [][]byte) [][]byte { l[6] = []byte("hello\n"); return l }, 7, "no record"},
		{"the end is cut off", func(l [][]byte) [][]byte { return l[:7] }, 8, "records 8 to 10 are missing at the end"},
		{"within a line", func(l [][]byte) [][]byte { l[9] = l[9][:20]; return l }, 10, "the line has no end"},
		{"all", func(l [][]byte) [][]byte { return nil }, 1, "records 1 to 10 are missing at the end"},
		{"a new number", func(l [][]byte) [][]byte {
			l[5] = bytes.Replace(l[5], []byte(`"seq":6`), []byte(`"seq":16`), 1)
			return l
		}, 6, "records 6 to 15 are missing before it"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, Options{})
			add(t, l, 10)
			path := filepath.Join(dir, firstFile)
			changed := bytes.Join(row.change(lines(t, path)), nil)
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			r := verify(t, l)
			if row.problem == "" {
				if !r.OK || r.Records != 10 || r.Last != 10 || len(r.Hash) != 64 {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.OK || r.File != firstFile && row.name != "all" || r.Line != row.line || !strings.Contains(r.Problem, row.problem) {
				t.Errorf("%+v, want line %d: %s", r, row.line, row.problem)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir, Options{})
			add(t, l, 3)
			if r := verify(t, l); r.OK || r.Problem == "" && len(r.Told) == 0 {
				t.Errorf("after the next start nothing is to be seen: %+v", r)
			}
		})
	}
}

// TestHead is set back, damaged, and taken away.
func TestHead(t *testing.T) {
	for name, change := range map[string]func(path string, old []byte) error{
		"set back": func(path string, old []byte) error { return os.WriteFile(path, old, 0o600) },
		"damaged":  func(path string, old []byte) error { return os.WriteFile(path, []byte("nonsense"), 0o600) },
		"removed":  func(path string, old []byte) error { return os.Remove(path) },
	} {
		dir := t.TempDir()
		l := open(t, dir, Options{})
		add(t, l, 3)
		path := filepath.Join(dir, headName)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		add(t, l, 3)
		if err := errors.Join(l.Close(), change(path, old)); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir, Options{})
		add(t, l, 1)
		r := verify(t, l)
		// A head that was only set back looks as after a power cut: the records themselves still follow from each other.
		if want := name == "set back"; r.OK != want || r.Problem != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestHeadComesAfterItsRecords: after a power cut a head that tells of more than there is would look like a log that was cut off. The other way
// round nothing is wrong.
func TestHeadComesAfterItsRecords(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	head := func() (of headRecord, ahead bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		of, err := readHead(l.headAt)
		if err != nil {
			t.Fatal(err)
		}
		return of, l.dirty && of.Seq == l.head.Seq
	}
	for range 3 {
		add(t, l, 1)
		if h, ahead := head(); ahead {
			t.Errorf("the head tells of record %d, which may not be on the disk", h.Seq)
		}
		if r := verify(t, l); !r.OK {
			t.Errorf("before a sync: %+v", r)
		}
	}
	early, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.syncBeside(); err != nil {
		t.Fatal(err)
	}
	if h, _ := head(); h.Seq != 3 {
		t.Errorf("after a sync the head tells of record %d", h.Seq)
	}
	if r := verify(t, l); !r.OK {
		t.Errorf("after a sync: %+v", r)
	}
	if err := errors.Join(l.Close(), os.WriteFile(filepath.Join(dir, headName), early, 0o600)); err != nil { // as kill -9 leaves it
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	if h, _ := head(); h.Seq != 3 {
		t.Errorf("after kill -9 the head tells of record %d", h.Seq)
	}
	if r := verify(t, l); !r.OK {
		t.Errorf("after kill -9: %+v", r)
	}
}

// TestOpenedOnAFullDisk: an engine starts on a full disk, too; what was wrong with the end of the log is told by the first record for which
// there is room.
func TestOpenedOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path, fill := filepath.Join(dir, firstFile), filepath.Join(dir, "fill")
	l := open(t, dir, Options{})
	for range 100 { // up to the end of a block: the next record needs one more
		if l.size%4096 > 4096-200 {
			break
		}
		add(t, l, 1)
	}
	records := l.head.Seq
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	head, err := os.OpenFile(filepath.Join(dir, headName), os.O_WRONLY, 0)
	if err == nil {
		_, err = head.Write(bytes.Repeat([]byte("x"), 256))
		head.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(fill)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	if _, err := l.Append(Record{Event: "engine started"}); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	add(t, l, 1)
	if r := verify(t, l); r.Problem != "" || r.Records != records+3 || len(r.Told) != 1 {
		t.Errorf("%d records, then %+v", records, r)
	}
	b, err := os.ReadFile(path)
	if told := bytes.Index(b, []byte(`"event":"damage"`)); err != nil || told < 0 || bytes.Index(b, []byte(`"event":"lost"`)) < told {
		t.Errorf("%v: %s", err, b)
	}
}

// TestKilled: what Append has returned for is there, without a Close.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{Sync: Never})
	add(t, l, 5)
	again := open(t, dir, Options{})
	add(t, again, 5)
	if r := verify(t, again); !r.OK || r.Records != 10 {
		t.Errorf("%+v", r)
	}
	// Killed between the record and the head.
	_ = again.Close()
	path, head := filepath.Join(dir, firstFile), filepath.Join(dir, headName)
	old, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	add(t, l, 1)
	if err := errors.Join(l.Close(), os.WriteFile(head, old, 0o600)); err != nil {
		t.Fatal(err)
	}
	// And in the middle of the next record.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seq":12,"ti`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = open(t, dir, Options{})
	add(t, l, 1)
	r := verify(t, l)
	if !r.OK || r.Problem != "" || r.Records != 13 || len(r.Told) != 0 || len(r.Cut) != 1 || !strings.Contains(r.Cut[0], "torn: 13 bytes") {
		t.Errorf("%+v", r)
	}
	// Who cuts off what had been told does harm, be it in the middle of a record.
	_ = l.Close()
	if b, err := os.ReadFile(path); err != nil || os.WriteFile(path, b[:len(b)-20], 0o600) != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	if r := verify(t, l); r.OK || len(r.Told) != 2 || len(r.Cut) != 1 {
		t.Errorf("cut off: %+v", r)
	}
}

// TestNoLineIsTooLong: words of who asked, however many, make no record that ends the reading of the log; short ones stay.
func TestNoLineIsTooLong(t *testing.T) {
	long := strings.Repeat("\x01", 100_000)
	many := map[string]string{"privileged": "true"}
	for i := range 40 {
		many[fmt.Sprint("word", i)] = long
	}
	tooMany := map[string]string{}
	for i := range 5000 {
		tooMany[fmt.Sprint("word", i)] = long
	}
	uid := uint32(7)
	dir := t.TempDir()
	l := open(t, dir, Options{})
	for name, r := range map[string]Record{
		"method": {Method: long}, "path": {Path: long}, "object": {Object: &Object{Type: "container", ID: long, Name: long}}, "error": {Error: long},
		"who": {Who: &Who{UID: &uid, Program: long, Certificate: long, Serial: long, Address: long}}, "words": {With: many}, "too many words": {With: tooMany},
		"all": {Method: long, Path: long, Object: &Object{ID: long, Name: long}, Error: long, With: many, Who: &Who{UID: &uid, Program: long}},
	} {
		if _, err := l.Append(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := verify(t, l); !r.OK || r.Records != 8 {
		t.Errorf("%+v", r)
	}
	read, kept := 0, 0
	if err := l.Read(t.Context(), Query{}, func(line []byte) error {
		read++
		kept += bytes.Count(line, []byte(`"privileged":"true"`))
		return nil
	}); err != nil || read != 8 || kept != 2 {
		t.Errorf("%d records, %d of 2 short words: %v", read, kept, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	add(t, l, 1)
	if r := verify(t, l); !r.OK || r.Records != 9 {
		t.Errorf("after a start: %+v", r)
	}
}

// TestRotation: files are bounded, the oldest go, and the chain goes on.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxFile: 1000, MaxAll: 4000}
	l := open(t, dir, o)
	add(t, l, 100)
	files, err := l.files()
	if err != nil || len(files) != 4 {
		t.Fatalf("%v %v", files, err)
	}
	r := verify(t, l)
	if !r.OK || r.First < 80 || r.Last != 100 || r.Records != r.Last-r.First+1 {
		t.Errorf("%+v", r)
	}
	_ = l.Close()
	l = open(t, dir, o)
	add(t, l, 1)
	if r := verify(t, l); !r.OK || r.Last != 101 {
		t.Errorf("after a start: %+v", r)
	}
	// Somebody removes a file.
	files, _ = l.files()
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, l); r.OK || r.Line != 1 || !strings.Contains(r.Problem, "are missing before it") {
		t.Errorf("the oldest file is gone: %+v", r)
	}
	_ = l.Close()
	files, _ = l.files()
	if err := os.Remove(files[len(files)-1]); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, o)
	if r := verify(t, l); r.OK || r.Problem == "" {
		t.Errorf("the newest file is gone: %+v", r)
	}
}

// TestExpected: who keeps a record's hash elsewhere sees that the log was written anew.
func TestExpected(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	add(t, l, 5)
	mark := Mark{Seq: 5, Hash: verify(t, l).Hash}
	add(t, l, 5)
	for want, m := range map[string]Mark{"": mark, "another hash": {4, mark.Hash}, "is missing": {11, mark.Hash}} {
		r, err := l.Verify(t.Context(), m)
		if err != nil || r.OK != (want == "") || !strings.Contains(r.Problem, want) {
			t.Errorf("%v: %+v %v", m, r, err)
		}
	}
}

func TestRead(t *testing.T) {
	l := open(t, t.TempDir(), Options{MaxFile: 1000, MaxAll: 1 << 20})
	add(t, l, 20)
	uid := uint32(0)
	if _, err := l.Append(Record{Who: &Who{UID: &uid}, Method: "DELETE", Path: "/containers/x", Object: &Object{Type: "container", Name: "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(Record{Who: &Who{Certificate: "ci"}, Method: "POST", Path: "/containers/create"}); err != nil {
		t.Fatal(err)
	}
	count := func(q Query) (n int) {
		t.Helper()
		if err := l.Read(t.Context(), q, func([]byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	other := uint32(1000)
	for name, row := range map[string]struct {
		q    Query
		want int
	}{
		"all": {Query{}, 22}, "root": {Query{UID: &uid}, 1}, "a user": {Query{UID: &other}, 20}, "a certificate": {Query{Certificate: "ci"}, 1},
		"a name": {Query{Object: "web3"}, 1}, "an id": {Query{Object: fmt.Sprintf("%064x", 3)}, 1}, "another": {Query{Object: "web"}, 0},
	} {
		if got := count(row.q); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
	stop := errors.New("enough")
	if err := l.Read(t.Context(), Query{}, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestLostRecordsAreTold: a log that could not be written to says so as soon as it can.
func TestLostRecordsAreTold(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	add(t, l, 1)
	path := filepath.Join(dir, firstFile)
	whole := l.file
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	l.file = readOnly
	for range 3 {
		if _, err := l.Append(Record{Method: "POST", Path: "/x"}); err == nil {
			t.Fatal("it was written")
		}
	}
	l.file = whole
	add(t, l, 1)
	if r := verify(t, l); !r.OK || r.Records != 3 {
		t.Errorf("%+v", r)
	}
	if b, _ := os.ReadFile(path); !bytes.Contains(b, []byte(`"event":"lost","with":{"records":"3"}`)) {
		t.Errorf("%s", b)
	}
}

func TestManyAtOnce(t *testing.T) {
	l := open(t, t.TempDir(), Options{MaxFile: 5000, MaxAll: 1 << 30, Sync: Always})
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() { add(t, l, 25) })
	}
	for range 5 {
		if r := verify(t, l); !r.OK {
			t.Errorf("meanwhile: %+v", r)
		}
	}
	g.Wait()
	if r := verify(t, l); !r.OK || r.Records != 200 {
		t.Errorf("%+v", r)
	}
	long := strings.Repeat("x", 100_000)
	if _, err := l.Append(Record{Path: long, With: map[string]string{"a": long}}); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, l); !r.OK || r.Records != 201 {
		t.Errorf("%+v", r)
	}
}
