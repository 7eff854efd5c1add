package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Report is what Verify has found.
type Report struct {
	OK      bool
	Records uint64
	First   uint64 // number of the oldest record
	Last    uint64 // of the newest whole one that follows from it
	Hash    string // of the newest
	File    string `json:",omitempty"` // where the first broken line is; "": none is broken, and what was expected is not kept any more
	Line    int    `json:",omitempty"`
	Problem string `json:",omitempty"`
	// Told are damages that the engine found when it started, and wrote down: the chain goes on behind them.
	Told []string `json:",omitempty"`
	// Cut are records that an engine had begun when it, or its host, ended: no harm, as nobody had been told of what they were for.
	Cut []string `json:",omitempty"`
}

// Mark is a record as an earlier Report named it, for who has kept that somewhere else.
type Mark struct {
	Seq  uint64
	Hash string
}

// snapshot is the log as it is at one moment.
type snapshot struct {
	files []string
	size  int64 // of the last file
	head  headRecord
}

func (l *Log) snapshot() (s snapshot, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return s, errors.New("the audit log is closed")
	}
	s.head, s.size = l.head, l.size
	s.files, err = l.files()
	if head, err := readHead(l.headAt); err != nil || head != l.told {
		s.head = head // somebody wrote to it
	}
	return s, err
}

// chain follows the records.
type chain struct {
	Report
	head   headRecord
	expect Mark
	seq    uint64
	hash   string
	where  string // of the record before
	line   int
	broken error
}

// Verify reads the whole log and holds each line against the next, the end against the head, and a record against what is expected of it, unless
// that is zero. It ends at the first line that is wrong.
func (l *Log) Verify(ctx context.Context, expect Mark) (Report, error) {
	s, err := l.snapshot()
	if err != nil {
		return Report{}, err
	}
	c := &chain{head: s.head, expect: expect}
	for i, path := range s.files {
		limit := int64(1) << 62
		if i == len(s.files)-1 {
			limit = s.size
		}
		if err := c.file(ctx, path, limit); err != nil {
			return c.Report, err
		}
		if c.broken != nil {
			break
		}
	}
	if c.broken == nil {
		c.end()
	}
	c.Last, c.Hash = c.seq, c.hash
	c.OK = c.broken == nil && len(c.Told) == 0
	if c.broken != nil {
		c.Problem = c.broken.Error()
	}
	return c.Report, nil
}

func (c *chain) wrong(file string, line int, format string, args ...any) {
	c.File, c.Line, c.broken = file, line, fmt.Errorf(format, args...)
}

func (c *chain) file(ctx context.Context, path string, limit int64) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // rotated away meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	name := filepath.Base(path)
	r := bufio.NewReaderSize(io.LimitReader(f, limit), maxLine)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			c.wrong(name, n, "the line has no end")
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			c.wrong(name, n, "the line is longer than any record")
			return nil
		case err != nil:
			return err
		}
		if c.record(name, n, line); c.broken != nil {
			return ctx.Err()
		}
	}
}

// record holds a line against the one before.
func (c *chain) record(file string, n int, line []byte) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		c.wrong(file, n, "the line is no record: %v", err)
		return
	}
	began := c.Records > 0
	switch {
	case !began && r.Seq > c.head.First:
		c.wrong(file, n, "records %d to %d are missing before it", c.head.First, r.Seq-1)
		return
	case !began && r.Seq == c.head.First && r.Prev != c.head.Before:
		c.wrong(file, n, "record %d does not follow from what was there before", r.Seq)
		return
	case began && r.Seq <= c.seq:
		c.wrong(file, n, "record %d stands behind record %d", r.Seq, c.seq)
		return
	case began && r.Seq > c.seq+1 && (r.Event != damageEvent || r.Prev != c.hash):
		c.wrong(file, n, "records %d to %d are missing before it", c.seq+1, r.Seq-1)
		return
	case began && r.Prev != c.hash:
		c.wrong(c.where, c.line, "record %d was changed after it was written (or what record %d says of it)", c.seq, r.Seq)
		return
	}
	if !began {
		c.First = r.Seq
	}
	for what, text := range r.With {
		note := fmt.Sprintf("record %d, %s: %s: %s", r.Seq, r.Time.Format("2006-01-02 15:04:05"), what, text)
		switch r.Event {
		case damageEvent:
			c.Told = append(c.Told, note)
		case cutEvent:
			c.Cut = append(c.Cut, note)
		}
	}
	c.Records++
	if r.Seq == c.expect.Seq && hashOf(line) != c.expect.Hash {
		c.wrong(file, n, "record %d has another hash than was expected: it was written anew", r.Seq)
	}
	c.seq, c.hash, c.where, c.line = r.Seq, hashOf(line), file, n
}

// end holds the last record against the head.
func (c *chain) end() {
	switch {
	case c.seq < c.head.Seq:
		c.wrong(c.where, c.line+1, "records %d to %d are missing at the end: the file was cut off", c.seq+1, c.head.Seq)
	case c.seq > c.head.Seq:
		c.wrong(c.where, c.line, "the head says that record %d is the last, this is %d: it was set back, or records were added", c.head.Seq, c.seq)
	case c.hash != c.head.Hash:
		c.wrong(c.where, c.line, "record %d was changed after it was written (or the head)", c.seq)
	case c.expect.Seq > c.seq:
		c.wrong(c.where, c.line, "record %d, which was expected, is missing: the last is %d", c.expect.Seq, c.seq)
	case c.expect.Seq != 0 && c.expect.Seq < c.First:
		c.broken = fmt.Errorf("record %d, which was expected, has gone with the oldest ones (audit.max-size): the log begins with %d, and nothing in it is wrong; expect a newer one", c.expect.Seq, c.First)
	}
}
