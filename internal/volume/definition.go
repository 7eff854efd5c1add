package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	optionsFile   = "opts.json"
	removedSuffix = ".removed"
	newSuffix     = ".new"
)

// definition is what is on disk of a volume, beside its data.
type definition struct {
	Name      string
	Driver    string
	Labels    map[string]string
	Options   map[string]string
	CreatedAt time.Time
}

func dataDir(root, name string) string { return filepath.Join(root, name, "_data") }

// write makes the volume's folder whole before it has its name, and has it on the disk when it returns.
func (d *definition) write(root string) (err error) {
	made := filepath.Join(root, d.Name+newSuffix)
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	if err := os.MkdirAll(filepath.Join(made, "_data"), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(made, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(made, optionsFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := syncDir(made); err != nil {
		return err
	}
	if err := os.Rename(made, filepath.Join(root, d.Name)); err != nil {
		return err
	}
	return syncDir(root)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readDefinitions reads all volumes below root. Left-overs of what was cut short go; a damaged definition is set aside under another name
// and a plain one takes its place, so that no data is hidden.
func readDefinitions(root string) (list []definition, damaged []error, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		switch {
		case !e.IsDir():
			continue
		case strings.HasSuffix(e.Name(), removedSuffix), strings.HasSuffix(e.Name(), newSuffix):
			if err := os.RemoveAll(path); err != nil {
				damaged = append(damaged, fmt.Errorf("clear the left-over of a volume: %w", err))
			}
			continue
		case !validName(e.Name()):
			continue
		}
		d, err := readDefinition(path)
		if err != nil {
			damaged = append(damaged, fmt.Errorf("volume %s has lost its labels and options, its data is kept: %w", e.Name(), err), setAside(path))
		}
		list = append(list, d)
	}
	return list, dropNil(damaged), nil
}

func dropNil(errs []error) (out []error) {
	for _, err := range errs {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// readDefinition always gives a definition that works.
func readDefinition(dir string) (definition, error) {
	plain := definition{Name: filepath.Base(dir), Driver: "local"}
	if st, err := os.Stat(dir); err == nil {
		plain.CreatedAt = st.ModTime().UTC()
	}
	b, err := os.ReadFile(filepath.Join(dir, optionsFile))
	if err != nil {
		return plain, err
	}
	var d definition
	if err := json.Unmarshal(b, &d); err != nil {
		return plain, fmt.Errorf("%s: %w", filepath.Join(dir, optionsFile), err)
	}
	if d.Name != plain.Name || d.Driver == "" {
		return plain, fmt.Errorf("%s is not this volume's", filepath.Join(dir, optionsFile))
	}
	return d, nil
}

func setAside(dir string) error {
	path := filepath.Join(dir, optionsFile)
	err := os.Rename(path, fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// empty says whether a directory has nothing in it.
func empty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.ReadDir(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
