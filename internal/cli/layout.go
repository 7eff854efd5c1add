package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// saveLayout writes an OCI layout, which comes as a tar, into a directory. That has its name only when it is whole.
func saveLayout(dir string, body io.Reader) error {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("write %s: there is something in it already: name an empty directory, or one that is not there", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	clean := filepath.Clean(dir)
	made, err := os.MkdirTemp(filepath.Dir(clean), "."+filepath.Base(clean)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	defer os.RemoveAll(made) // nothing is there once it has its name
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	if err := unpackLayout(made, body); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	if err := os.Remove(clean); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(made, clean)
}

func unpackLayout(dir string, body io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(body); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case h.Typeflag == tar.TypeDir:
			if err := root.MkdirAll(filepath.Clean(h.Name), 0o755); err != nil {
				return err
			}
			continue
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is no file", h.Name)
		}
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// openImages opens what images are loaded from: an archive, or a directory with an OCI layout, which is sent as an archive.
func openImages(path string) (io.ReadCloser, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return os.Open(path)
	}
	for _, name := range []string{"index.json", "manifest.json"} {
		if _, err := os.Lstat(filepath.Join(path, name)); err == nil {
			return packLayout(path)
		}
	}
	return nil, fmt.Errorf("%s is a directory without an index.json or manifest.json: it holds no images", path)
}

// packLayout sends a directory as a tar. Links in it are sent as links, and not followed: the engine knows the names in the archive only.
func packLayout(dir string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { // ends with the reader: what it writes to an end that is closed is an error
		t := tar.NewWriter(w)
		err := fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return packFile(t, root, name)
		})
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(errors.Join(err, root.Close()))
	}()
	return r, nil
}

func packFile(t *tar.Writer, root *os.Root, name string) error {
	st, err := root.Lstat(name)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: st.Size()}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		h.Typeflag, h.Size = tar.TypeSymlink, 0
		if h.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		return t.WriteHeader(h)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory", filepath.Join(root.Name(), name))
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, io.LimitReader(f, st.Size()))
	return err
}
