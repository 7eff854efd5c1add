package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

// Query is what Read gives; the zero value is everything.
type Query struct {
	Since, Until time.Time
	UID          *uint32
	Certificate  string // its name
	Object       string // a name, or the beginning of an id
}

// Matches says that a record is asked for.
func (q *Query) Matches(r *Record) bool {
	switch {
	case !q.Since.IsZero() && r.Time.Before(q.Since), !q.Until.IsZero() && r.Time.After(q.Until):
		return false
	case (q.UID != nil || q.Certificate != "") && !q.by(r.Who):
		return false
	case q.Object != "":
		return r.Object != nil && (r.Object.Name == q.Object || r.Object.ID == q.Object || len(q.Object) >= 4 && strings.HasPrefix(r.Object.ID, q.Object))
	}
	return true
}

func (q *Query) by(w *Who) bool {
	return w != nil && (q.UID != nil && w.UID != nil && *w.UID == *q.UID || q.Certificate != "" && w.Certificate == q.Certificate)
}

// Read calls fn with the lines of records that a query asks for, the oldest first, as they stand in the log.
func (l *Log) Read(ctx context.Context, q Query, fn func(line []byte) error) error {
	s, err := l.snapshot()
	if err != nil {
		return err
	}
	for i, path := range s.files {
		limit := int64(1) << 62
		if i == len(s.files)-1 {
			limit = s.size
		}
		if err := readFile(ctx, path, limit, q, fn); err != nil {
			return err
		}
	}
	return nil
}

func readFile(ctx context.Context, path string, limit int64, q Query, fn func([]byte) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // rotated away meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, limit))
	s.Buffer(nil, maxLine)
	for s.Scan() && ctx.Err() == nil {
		var r Record
		if json.Unmarshal(s.Bytes(), &r) != nil || !q.Matches(&r) {
			continue // Verify tells of lines that are none
		}
		if err := fn(s.Bytes()); err != nil {
			return err
		}
	}
	return errors.Join(s.Err(), ctx.Err())
}
