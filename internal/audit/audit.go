// Package audit keeps a log of who did what through the engine's API, in which a change shows.
//
// A record is a line of JSON. Each has the SHA-256 of the line before it, so that a line cannot be changed, taken out, added or moved without the next
// one telling; what the last line is, stands apart in the file head, so that lines cannot be cut off at the end. Files are named by the number
// of their first record; the oldest go when all together are too large, and head says which record is the first then. Whoever is root can write all of
// it anew: to be safe from root, keep what Verify says of the last record somewhere else.
//
//	<dir>/00000000000000000001.jsonl   0600, appended to until it is full
//	<dir>/head                         {"seq":…,"hash":…,"first":…,"before":…}
//
// Append has written a record when it returns: the engine's death loses none. It is safe for many goroutines. When it also is on the disk, says Sync.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Record is a line of the log.
type Record struct {
	Seq    uint64            `json:"seq"`
	Time   time.Time         `json:"time"`
	Event  string            `json:"event,omitempty"` // "": a request
	Who    *Who              `json:"who,omitempty"`
	Method string            `json:"method,omitempty"`
	Path   string            `json:"path,omitempty"` // without the version
	Object *Object           `json:"object,omitempty"`
	With   map[string]string `json:"with,omitempty"` // what decided: no secrets, no values of the environment
	Status int               `json:"status,omitempty"`
	Error  string            `json:"error,omitempty"`
	Of     uint64            `json:"of,omitempty"` // the request whose answer went on, and ended with Error
	Prev   string            `json:"prev"`
}

// Who made the request.
type Who struct {
	UID         *uint32 `json:"uid,omitempty"`
	GID         *uint32 `json:"gid,omitempty"`
	PID         int32   `json:"pid,omitempty"`
	Program     string  `json:"program,omitempty"`
	Certificate string  `json:"certificate,omitempty"`
	Serial      string  `json:"serial,omitempty"`
	Address     string  `json:"address,omitempty"`
}

// Object that a request is about.
type Object struct {
	Type string `json:"type"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// Sync says when records are on the disk.
type Sync int

// The kinds of Sync: Soon is within a second of the record, Always before Append returns, Never when the kernel likes.
const (
	Soon Sync = iota
	Always
	Never
)

// Options of Open. Zero sizes mean 128 MiB in files of 16 MiB.
type Options struct {
	Dir     string
	Sync    Sync
	MaxFile int64
	MaxAll  int64
	Log     func(error)
}

// headRecord is what stands apart.
type headRecord struct {
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash"`
	First  uint64 `json:"first"`  // number of the oldest record that is kept
	Before string `json:"before"` // hash of the one before it
}

// Log is an open one.
type Log struct {
	o      Options
	closed chan struct{}
	done   sync.WaitGroup

	mu     sync.Mutex
	file   *os.File
	size   int64
	head   headRecord
	told   headRecord // what the file head says; with Soon it is behind head until the records are on the disk
	headAt *os.File
	failed uint64
	owed   *Record // of damage; nil: it is written
	lost   int     // records that could not be written, since the last one that could
	dirty  bool    // something is not on the disk
}

const (
	suffix   = ".jsonl"
	headName = "head"
	soon     = time.Second
)

// Open continues the log in a directory, which is made where there is none. What is wrong with its end goes into it as a record.
func Open(o Options) (*Log, error) {
	if o.MaxFile <= 0 {
		o.MaxFile = 16 << 20
	}
	if o.MaxAll <= 0 {
		o.MaxAll = 8 * o.MaxFile
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l := &Log{o: o, closed: make(chan struct{})}
	if err := l.resume(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("open the audit log in %s: %w", o.Dir, err)
	}
	if o.Sync == Soon {
		l.done.Add(1)
		go l.syncSoon()
	}
	return l, nil
}

// Append writes a record, whose number, time and hash are filled in here, and gives its number. A record that cannot be written is counted, and told
// of by the next one that can.
func (l *Log) Append(r Record) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, errors.New("the audit log is closed")
	}
	if err := l.tellOwed(); err != nil {
		l.lost++
		l.failed++
		return 0, err
	}
	if l.lost > 0 {
		lost := Record{Event: "lost", With: map[string]string{"records": fmt.Sprint(l.lost)}}
		if err := l.append(&lost); err != nil {
			l.lost++
			l.failed++
			return 0, err
		}
		l.lost = 0
	}
	if err := l.append(&r); err != nil {
		l.lost++
		l.failed++
		return 0, err
	}
	return r.Seq, nil
}

// Counts are how many records the log has had, and how many could not be written since it was opened.
func (l *Log) Counts() (records, lost uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.Seq, l.failed
}

// tellOwed writes what was found when the log was opened, and could not be written then.
func (l *Log) tellOwed() error {
	if l.owed == nil {
		return nil
	}
	if err := l.append(l.owed); err != nil {
		return err
	}
	l.owed = nil
	if l.o.Sync == Soon { // the head may be what was damaged
		return l.sync()
	}
	return nil
}

func (l *Log) append(r *Record) error {
	if l.size >= l.o.MaxFile {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	r.Seq, r.Time, r.Prev = l.head.Seq+1, time.Now().UTC(), l.head.Hash
	line, err := encode(r)
	for _, most := range []int{100, 0} { // a line that is longer than all would end each reading of the log
		if err == nil && len(line) >= maxLine {
			r.shorten(most)
			line, err = encode(r)
		}
	}
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if n, err := l.file.Write(line); err != nil {
		if n > 0 { // a disk that is full has room for a part of it
			_ = l.file.Truncate(l.size)
		}
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.size += int64(len(line))
	l.head.Seq, l.head.Hash = r.Seq, hashOf(line)
	switch l.o.Sync {
	case Always:
		return l.sync()
	case Soon:
		l.dirty = true
		return nil
	}
	return l.writeHead(l.head)
}

// shorten cuts off all words of who asked, those in With to a number of bytes; 0: they are left out. In JSON a byte is six at most.
func (r *Record) shorten(most int) {
	short := map[string]string{"left-out": "the record would have been too long"}
	for name, value := range r.With {
		if most > 0 {
			short[name] = Clip(value, most)
		}
	}
	r.With, r.Method, r.Path, r.Error, r.Event = short, Clip(r.Method, 20), Clip(r.Path, 1000), Clip(r.Error, 200), Clip(r.Event, 20)
	if o := r.Object; o != nil {
		r.Object = &Object{Type: Clip(o.Type, 20), ID: Clip(o.ID, 100), Name: Clip(o.Name, 200)}
	}
	if r.Who != nil {
		who := *r.Who
		for _, text := range []*string{&who.Program, &who.Certificate, &who.Serial, &who.Address} {
			*text = Clip(*text, 200)
		}
		r.Who = &who
	}
}

// Clip cuts a text off behind some bytes, and shows that.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// encode gives the line with its end.
func encode(r *Record) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return b.Bytes(), err
}

// hashOf is of a line, without its end.
func hashOf(line []byte) string {
	sum := sha256.Sum256(bytes.TrimSuffix(line, []byte("\n")))
	return hex.EncodeToString(sum[:])
}

// writeHead replaces the head in place: it always has the same length. Where it is to be on the disk, the records that it tells of are there first:
// the kernel may write a file at any moment, and a head that tells of more than there is reads like a log that was cut off.
func (l *Log) writeHead(head headRecord) error {
	b, err := json.Marshal(head)
	if err == nil {
		_, err = l.headAt.WriteAt(fmt.Appendf(nil, "%-255s\n", b), 0)
	}
	if err != nil {
		return fmt.Errorf("write the head of the audit log: %w", err)
	}
	l.told = head
	return nil
}

// sync puts what was written on the disk: first the records, then what is said about them.
func (l *Log) sync() error {
	err := unix.Fdatasync(int(l.file.Fd()))
	if err == nil {
		err = l.writeHead(l.head)
	}
	if err == nil {
		err = unix.Fdatasync(int(l.headAt.Fd()))
	}
	if err != nil {
		return fmt.Errorf("sync the audit log: %w", err)
	}
	l.dirty = false
	return nil
}

func (l *Log) syncSoon() {
	defer l.done.Done()
	t := time.NewTicker(soon)
	defer t.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-t.C:
		}
		if err := l.syncBeside(); err != nil && !errors.Is(err, os.ErrClosed) {
			l.o.Log(fmt.Errorf("sync the audit log: %w", err))
		}
	}
}

// syncBeside is sync while nobody waits for the disk. A file that is rotated away meanwhile is synced by that.
func (l *Log) syncBeside() error {
	l.mu.Lock()
	file, headAt, head, dirty := l.file, l.headAt, l.head, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if file == nil || !dirty {
		return nil
	}
	if err := file.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	var err error
	if l.told.Seq < head.Seq {
		err = l.writeHead(head)
	}
	l.mu.Unlock()
	return errors.Join(err, headAt.Sync())
}

// rotate begins a new file, and removes the oldest ones.
func (l *Log) rotate() error {
	if l.o.Sync != Never {
		if err := l.sync(); err != nil {
			return err
		}
	}
	next, err := l.create(l.head.Seq + 1)
	if err != nil {
		return err
	}
	_ = l.file.Close()
	l.file, l.size = next, 0
	return l.removeOldest()
}

func (l *Log) create(seq uint64) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.o.Dir, fmt.Sprintf("%020d%s", seq, suffix)), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if dir, err := os.Open(l.o.Dir); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
	return f, nil
}

// removeOldest keeps all files together below their bound. The head names the new first record before the old ones go.
func (l *Log) removeOldest() error {
	files, err := l.files()
	if err != nil {
		return err
	}
	for len(files) > 1 && int64(len(files))*l.o.MaxFile > l.o.MaxAll {
		first, err := firstRecord(files[1])
		if err != nil && len(files) > 2 {
			return fmt.Errorf("remove the oldest records: %w", err)
		}
		l.head.First, l.head.Before = first.Seq, first.Prev
		if err != nil { // the next file is the new one, and empty
			l.head.First, l.head.Before = l.head.Seq+1, l.head.Hash
		}
		if err := l.writeHead(l.head); err != nil {
			return err
		}
		if err := os.Remove(files[0]); err != nil {
			return err
		}
		files = files[1:]
	}
	return nil
}

// files are the paths of the log's files, the oldest first.
func (l *Log) files() ([]string, error) {
	entries, err := os.ReadDir(l.o.Dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && e.Type().IsRegular() {
			out = append(out, filepath.Join(l.o.Dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}

// Close ends the log; what was appended is on the disk then.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.file == nil {
		l.mu.Unlock()
		return nil
	}
	err := l.sync()
	l.closeFiles()
	l.mu.Unlock()
	close(l.closed)
	l.done.Wait()
	return err
}

func (l *Log) closeFiles() {
	for _, f := range []*os.File{l.file, l.headAt} {
		if f != nil {
			f.Close()
		}
	}
	l.file = nil
}
