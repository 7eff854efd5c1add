package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// resume opens the last file and the head, and notes as a record what the end of the log lacks.
func (l *Log) resume() (err error) {
	if l.headAt, err = os.OpenFile(filepath.Join(l.o.Dir, headName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	head, headErr := readHead(l.headAt)
	l.told = head
	files, err := l.files()
	if err != nil {
		return err
	}
	if len(files) == 0 && head.Seq == 0 && headErr == nil {
		l.head = headRecord{First: 1}
		if err := l.writeHead(l.head); err != nil {
			return err
		}
		l.file, err = l.create(1)
		return err
	}
	var found lastRecord
	if len(files) > 0 {
		if found, err = l.openLast(files[len(files)-1]); err != nil {
			return err
		}
		if found.seq == 0 && !found.garbled && len(files) > 1 { // the last file was just begun
			before, err := readLast(files[len(files)-2])
			if err != nil {
				return err
			}
			found.seq, found.hash = before.seq, before.hash
		}
	} else if l.file, err = l.create(head.Seq + 1); err != nil {
		return err
	}
	if headErr == nil && head.First == 0 {
		headErr = errors.New("the head was taken away")
	}
	if headErr == nil && found.seq > head.Seq && follows(files[len(files)-1], head) {
		head.Seq, head.Hash = found.seq, found.hash // the end came between the sync of the records and that of the head, or before both
	}
	return l.join(head, headErr, found)
}

// follows says that the records of a file behind the head's follow from it.
func follows(path string, head headRecord) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	c := &chain{head: headRecord{First: ^uint64(0)}} // wherever the file begins
	first, err := firstRecord(path)
	joined := err == nil && first.Seq == head.Seq+1 && first.Prev == head.Hash
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		c.record(path, 0, s.Bytes())
		joined = joined || c.seq == head.Seq && c.hash == head.Hash
		if c.broken != nil {
			return false
		}
	}
	return joined
}

// Events of the log itself, written when an engine starts and finds its end not as it should be.
const (
	damageEvent = "damage" // somebody was at it, or the disk
	cutEvent    = "cut"    // a record was begun and did not get whole, as a power cut leaves it
)

// join continues behind what was found. That it is not what the head says goes into the log: the records between are lost, and their numbers with them.
func (l *Log) join(head headRecord, headErr error, found lastRecord) error {
	l.head = headRecord{Seq: found.seq, Hash: found.hash, First: max(head.First, 1), Before: head.Before}
	with := map[string]string{}
	switch {
	case found.garbled:
		with["changed"] = fmt.Sprintf("the last line is no record; the last one was %d, with the hash %s", head.Seq, head.Hash)
		l.head.Seq = head.Seq
	case headErr != nil:
		with["head"] = headErr.Error()
	case head.Seq > found.seq:
		with["missing"] = fmt.Sprintf("records %d to %d, of which the last had the hash %s", found.seq+1, head.Seq, head.Hash)
		l.head.Seq = head.Seq
	case head.Seq == found.seq && head.Hash != found.hash, head.Seq+1 == found.seq && head.Hash != found.prev, head.Seq+1 < found.seq:
		with["changed"] = fmt.Sprintf("the end of the log is not record %d with the hash %s, which was the last", head.Seq, head.Hash)
	}
	event := damageEvent
	if found.torn > 0 {
		if len(with) == 0 { // all that was told is there: the engine, or its host, ended in the middle of a record that nobody had heard of
			event = cutEvent
		}
		with["torn"] = fmt.Sprintf("%d bytes of a record that was not whole", found.torn)
	}
	switch {
	case len(with) > 0:
	case l.head == l.told:
		return nil
	case l.o.Sync == Never:
		return l.writeHead(l.head)
	default: // an engine that was killed wrote what is not on the disk yet
		return l.sync()
	}
	for what, text := range with {
		if event == damageEvent {
			l.o.Log(fmt.Errorf("the audit log in %s was damaged since it was last written: %s: %s", l.o.Dir, what, text))
		}
	}
	l.owed = &Record{Event: event, With: with}
	if err := l.tellOwed(); err != nil { // a full disk keeps no engine from starting: the next record that can be written tells it first
		l.o.Log(err)
	}
	return nil
}

func readHead(f *os.File) (h headRecord, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || len(b) == 0 {
		return h, err
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return headRecord{}, errors.New("the head could not be read")
	}
	return h, nil
}

// lastRecord is what is known of the end of a file.
type lastRecord struct {
	seq        uint64
	hash, prev string
	torn       int64 // bytes behind the last whole line
	garbled    bool  // the line is no record
}

// openLast opens a file to append to, and takes a torn line off its end.
func (l *Log) openLast(path string) (lastRecord, error) {
	last, err := readLast(path)
	if err != nil {
		return last, err
	}
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return last, err
	}
	if l.size, err = l.file.Seek(0, io.SeekEnd); err != nil {
		return last, err
	}
	if last.torn > 0 {
		l.size -= last.torn
		err = l.file.Truncate(l.size)
	}
	return last, err
}

// maxLine bounds a record: its parts are bounded where they are made.
const maxLine = 64 << 10

func readLast(path string) (out lastRecord, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return out, err
	}
	from := max(0, size-2*maxLine)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return out, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	out.torn = int64(len(tail) - end)
	if end == 0 {
		return out, nil
	}
	line := tail[bytes.LastIndexByte(tail[:end-1], '\n')+1 : end]
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		out.garbled, out.hash = true, hashOf(line)
		return out, nil
	}
	out.seq, out.hash, out.prev = r.Seq, hashOf(line), r.Prev
	return out, nil
}

func firstRecord(path string) (r Record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, maxLine)).Decode(&r)
	return r, err
}
