package explain

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Store is the directory of the records.
type Store struct{ Dir string }

// How much is kept of builds: the records that were written last.
const (
	mostRecords = 64
	mostBytes   = 64 << 20
)

// DefaultStore is the user's, "" where there is no place for it.
func DefaultStore() Store {
	dir, err := os.UserCacheDir()
	if err != nil {
		return Store{}
	}
	return Store{Dir: filepath.Join(dir, "wherry", "builds")}
}

// Key of the builds that are compared with each other.
func Key(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Load a record; nil is none, or one that cannot be read, which is as good as none.
func (s Store) Load(key string) *Record {
	if s.Dir == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, key))
	if err != nil {
		return nil
	}
	r, err := decode(data)
	if err != nil {
		return nil
	}
	r.written = data
	return r
}

// Save a record in the place of the one before, which may be nil, and drop the oldest where there are too many.
func (s Store) Save(key string, r, before *Record) error {
	if s.Dir == "" {
		return nil
	}
	data, err := r.encode()
	if err != nil {
		return err
	}
	if before != nil && bytes.Equal(data, before.written) {
		now := time.Now()
		return os.Chtimes(filepath.Join(s.Dir, key), now, now)
	}
	if len(data) > mostBytes/4 {
		return fmt.Errorf("the record of this build is too large: %d bytes", len(data))
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there once it has its name
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.Dir, key)); err != nil {
		return err
	}
	return s.bound()
}

// bound drops what is too old or too much, and what a process that was killed has left.
func (s Store) bound() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var list []fs.FileInfo
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	var total int64
	kept := 0
	for _, st := range list {
		unfinished := strings.HasPrefix(st.Name(), ".new-")
		if unfinished && time.Since(st.ModTime()) < time.Hour {
			continue
		}
		total += st.Size()
		if kept++; unfinished || kept > mostRecords || total > mostBytes {
			if err := os.Remove(filepath.Join(s.Dir, st.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// NewSalt is the key of a record's hashes; the one of the record before is used again, so that values can be compared.
func NewSalt(before *Record) []byte {
	if before != nil && len(before.Salt) > 0 {
		return before.Salt
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	return salt
}

// Seal is what may be written down of a value.
func Seal(salt []byte) func(name, value string) string {
	return func(name, value string) string { return seal(salt, name, value) }
}
