// Package lockfile reads and writes wherry.lock: what image references meant when somebody looked, so that others get the same images.
//
// It is JSON with sorted keys and one fact a line, which version control shows line by line, and written only when something in it has
// changed:
//
//	{
//	  "version": 1,
//	  "files": ["Dockerfile"],
//	  "images": {
//	    "docker.io/library/debian:12": {
//	      "digest": "sha256:…",                       what the reference meant: an index or a manifest
//	      "locked": "2026-11-25T12:00:00Z",
//	      "platforms": {"linux/amd64": "sha256:…"}    the manifests in it
//	    }
//	  }
//	}
//
// Nothing here is safe for several goroutines, or needs to be.
package lockfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

// Name of a lock file where none is given.
const Name = "wherry.lock"

const (
	version = 1
	maxSize = 8 << 20
)

// File is a lock file.
type File struct {
	Path string `json:"-"`

	Version   int               `json:"version"`
	Files     []string          `json:"files,omitempty"`     // Dockerfiles and compose files whose images it holds, from its own folder
	BuildArgs map[string]string `json:"buildArgs,omitempty"` // that the Dockerfiles were read with
	Images    map[string]Image  `json:"images"`              // by reference in full
}

// Image is what one reference meant.
type Image struct {
	Digest    digest.Digest            `json:"digest"`
	Listed    bool                     `json:"listed,omitempty"` // somebody asked for it by name; false: a file names it
	Locked    time.Time                `json:"locked"`
	Platforms map[string]digest.Digest `json:"platforms,omitempty"` // manifests by os/architecture[/variant]
}

// Find gives the nearest lock file in dir and above, "" for none. Above dir it takes none from a folder that anybody may write to.
func Find(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for first := true; ; first = false {
		st, err := os.Stat(dir)
		if err == nil && (first || st.Mode().Perm()&0o002 == 0) {
			path := filepath.Join(dir, Name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", nil
		}
		dir = up
	}
}

// New is an empty lock file, to be written to path.
func New(path string) *File { return &File{Path: path, Version: version, Images: map[string]Image{}} }

// Read reads a lock file and checks that it is whole.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("%s has more than 8 MiB: it is no lock file", path)
	}
	l, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.Path = path
	return l, nil
}

func parse(text []byte) (*File, error) {
	if err := checkKeys(text); err != nil {
		return nil, err
	}
	l := &File{}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, err
	}
	switch {
	case l.Version > version:
		return nil, fmt.Errorf("it is of version %d, and this wherry knows %d: use a newer one", l.Version, version)
	case l.Version != version:
		return nil, errors.New(`it has no "version": 1: it is no lock file of wherry`)
	}
	for name, img := range l.Images {
		if name == "" || img.Digest.Validate() != nil {
			return nil, fmt.Errorf("image %q has no digest: mend it, or run wherry lock --update", name)
		}
		for platform, d := range img.Platforms {
			if d.Validate() != nil {
				return nil, fmt.Errorf("image %q has no digest for %s: mend it, or run wherry lock --update", name, platform)
			}
		}
	}
	if l.Images == nil {
		l.Images = map[string]Image{}
	}
	return l, nil
}

// checkKeys names the line of what is not JSON, and refuses names that stand twice in an object: merges of branches leave such, and the
// last one would silently win.
func checkKeys(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	line := func() int { return 1 + bytes.Count(text[:min(int(d.InputOffset()), len(text))], []byte("\n")) }
	type level struct {
		keys  map[string]bool // nil in a list
		value bool            // a value comes next
	}
	var open []*level
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && len(open) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line(), err)
		}
		var in *level
		if len(open) > 0 {
			in = open[len(open)-1]
		}
		if key, ok := token.(string); ok && in != nil && in.keys != nil && !in.value {
			if in.keys[key] {
				return fmt.Errorf("line %d: %q stands there twice: keep one", line(), key)
			}
			in.keys[key], in.value = true, true
			continue
		}
		if in != nil {
			in.value = false
		}
		switch token {
		case json.Delim('{'):
			open = append(open, &level{keys: map[string]bool{}})
		case json.Delim('['):
			open = append(open, &level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > 16 {
			return fmt.Errorf("line %d: nested too deep for a lock file", line())
		}
	}
}

// Bytes is the file's text.
func (l *File) Bytes() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("encode %s: %w", l.Path, err)
	}
	return b.Bytes(), nil
}

// Write puts the file down, whole or not at all; one that says the same already is left alone.
func (l *File) Write() (changed bool, err error) {
	text, err := l.Bytes()
	if err != nil {
		return false, err
	}
	path := l.Path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	mode := fs.FileMode(0o644)
	if st, err := os.Stat(path); err == nil {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			return false, nil
		}
		mode = st.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // nothing is there once it has its name
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, os.Rename(f.Name(), path)
}

// Relative is a file's name as the lock file keeps it: from its own folder, with slashes.
func (l *File) Relative(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	home, err := filepath.Abs(filepath.Dir(l.Path))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(home, path)
	return filepath.ToSlash(rel), err
}

// At is where a file that the lock file names lies.
func (l *File) At(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(l.Path), filepath.FromSlash(name))
}
