package explain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// Watch is a context that notes what the engine is shown of it, and hashes what the engine fetches while it is sent: nothing is read twice.
type Watch struct {
	fsutil.FS

	mu     sync.Mutex // the engine may fetch several files at once
	files  []File
	hashes map[string]string
}

// NewWatch watches a context.
func NewWatch(context fsutil.FS) *Watch { return &Watch{FS: context, hashes: map[string]string{}} }

// Walk notes each file that is looked at.
func (w *Watch) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return w.FS.Walk(ctx, target, func(path string, e fs.DirEntry, err error) error {
		if e != nil {
			e = &watched{DirEntry: e, w: w}
		}
		return fn(path, e, err)
	})
}

type watched struct {
	fs.DirEntry
	w *Watch
}

func (e *watched) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*fstypes.Stat); ok && !info.IsDir() {
		e.w.mu.Lock()
		e.w.files = append(e.w.files, File{Path: st.Path, Mode: st.Mode, Size: st.Size, Time: st.ModTime, Target: st.Linkname})
		e.w.mu.Unlock()
	}
	return info, nil
}

// Open hashes a file while it is read.
func (w *Watch) Open(path string) (io.ReadCloser, error) {
	f, err := w.FS.Open(path)
	if err != nil {
		return nil, err
	}
	return &hashing{ReadCloser: f, w: w, path: strings.TrimPrefix(path, "/"), sum: sha256.New()}, nil
}

type hashing struct {
	io.ReadCloser
	w     *Watch
	path  string
	sum   hash.Hash
	ended bool
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.sum.Write(p[:n])
	h.ended = h.ended || err == io.EOF
	return n, err
}

func (h *hashing) Close() error {
	if h.ended {
		h.w.mu.Lock()
		h.w.hashes[h.path] = hex.EncodeToString(h.sum.Sum(nil))
		h.w.mu.Unlock()
	}
	return h.ReadCloser.Close()
}

// Files that were looked at, each once, in the order of their paths. What was not fetched has the hash that it had the last time, where it
// still looks the same; else it is read now, as long as that is not much.
func (w *Watch) Files(before []File) []File {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	files := slices.CompactFunc(w.files, func(a, b File) bool { return a.Path == b.Path })
	known := 0
	left := int64(readAnew)
	for i := range files {
		f := &files[i]
		if f.Hash = w.hashes[f.Path]; f.Hash != "" {
			continue
		}
		for known < len(before) && before[known].Path < f.Path {
			known++
		}
		switch {
		case known < len(before) && before[known].Path == f.Path && before[known].same(f) && before[known].Hash != "":
			f.Hash = before[known].Hash
		case fs.FileMode(f.Mode).IsRegular() && f.Target == "" && f.Size <= left:
			left -= f.Size
			f.Hash = w.read(f.Path)
		}
	}
	w.files = files
	return files
}

// readAnew is how much is read for hashes that are not known otherwise.
const readAnew = 64 << 20

func (w *Watch) read(path string) string {
	f, err := w.FS.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
