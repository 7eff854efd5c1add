package buildclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// textFile is a small file that was read.
type textFile struct {
	path     string
	data     []byte
	modified time.Time
	mode     fs.FileMode // 0 where it came from the input
}

// textFiles are a directory of them, as the engine reads directories.
type textFiles []*textFile

// Walk calls fn for the file that target names, or for each one in the order of their names where it is the directory itself.
func (t textFiles) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = path.Clean(strings.TrimPrefix(target, "/"))
	t = slices.Clone(t)
	slices.SortFunc(t, func(a, b *textFile) int { return strings.Compare(a.path, b.path) })
	for _, f := range t {
		if err := ctx.Err(); err != nil {
			return err
		}
		if target != "." && f.path != target {
			continue
		}
		st := &fstypes.Stat{Path: f.path, Mode: 0o644, Size: int64(len(f.data)), ModTime: f.modified.UnixNano()}
		if err := fn(f.path, &fsutil.DirEntryInfo{Stat: st}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Open a file.
func (t textFiles) Open(name string) (io.ReadCloser, error) {
	for _, f := range t {
		if f.path == path.Clean(strings.TrimPrefix(name, "/")) {
			return io.NopCloser(bytes.NewReader(f.data)), nil
		}
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
}

func readText(path string) (*textFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a directory", path)
	}
	data, err := limited(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &textFile{path: path, data: data, modified: st.ModTime(), mode: st.Mode().Perm()}, nil
}

func limited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, largestDockerfile+1))
	if err == nil && len(data) > largestDockerfile {
		err = fmt.Errorf("it is larger than %d MiB", largestDockerfile>>20)
	}
	return data, err
}

func inputDockerfile(in io.Reader) (*textFile, error) {
	data, err := limited(in)
	if err != nil {
		return nil, fmt.Errorf("read the Dockerfile from the input: %w", err)
	}
	return &textFile{path: "Dockerfile", data: data}, nil
}

// readDockerfile finds it where docker and podman look: a name that is given counts from the current directory, then from the context.
func readDockerfile(dir, name string) (*textFile, error) {
	names := []string{filepath.Join(dir, "Dockerfile"), filepath.Join(dir, "Containerfile"), filepath.Join(dir, "dockerfile")}
	if name != "" {
		names = []string{name, filepath.Join(dir, name)}
		if filepath.IsAbs(name) {
			names = names[:1]
		}
	}
	for _, n := range names {
		f, err := readText(n)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	if name != "" {
		return nil, fmt.Errorf("there is no Dockerfile %s, neither here nor in %s", name, dir)
	}
	return nil, fmt.Errorf("there is no Dockerfile in %s: write one, or name another with --file", dir)
}

// readIgnore finds the rules of what does not belong to the context; nil where there are none.
func readIgnore(dir, dockerfile, name string) (*textFile, error) {
	if name != "" {
		f, err := readText(name)
		if err != nil {
			return nil, fmt.Errorf("--ignorefile: %w", err)
		}
		return f, nil
	}
	for _, n := range []string{dockerfile + ".dockerignore", filepath.Join(dir, ".dockerignore"), filepath.Join(dir, ".containerignore")} {
		f, err := readText(n)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, nil
}
