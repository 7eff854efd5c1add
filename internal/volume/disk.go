package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/rootfs"
)

const (
	dataDir     = "_data"
	optionsFile = "opts.json"
	newName     = ".new" // one at a time
	gonePrefix  = ".gone-"
)

// load reads all definitions, and finishes what an earlier life left half done.
func (s *Service) load() error {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, f := range entries {
		name := f.Name()
		switch {
		case name == newName, strings.HasPrefix(name, gonePrefix):
			if err := removeTree(s.dir(name)); err != nil {
				return err
			}
		case f.IsDir() && checkName(name) == nil:
			d, err := readDefinition(s.dir(name))
			e := &entry{definition: d, refs: map[string]struct{}{}}
			if err != nil {
				e.definition = definition{Name: name}
				e.damaged = fmt.Errorf("volume %s is damaged, its files are in %s: %w: write %s anew or remove the volume: %w",
					name, s.data(name), err, optionsFile, errdefs.ErrFailedPrecondition)
			}
			s.all[name] = e
		}
	}
	return nil
}

func readDefinition(dir string) (definition, error) {
	var d definition
	b, err := os.ReadFile(filepath.Join(dir, optionsFile))
	if err != nil {
		return d, err
	}
	path := filepath.Join(dir, optionsFile)
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("read %s: %w", path, err)
	}
	if d.Name != filepath.Base(dir) {
		return d, fmt.Errorf("%s defines another volume, %q", path, d.Name)
	}
	if d.Driver == "" {
		if _, err := parseOptions(d.Options); err != nil {
			return d, fmt.Errorf("read %s: %w", path, err)
		}
	}
	if st, err := os.Lstat(filepath.Join(dir, dataDir)); err != nil || !st.IsDir() {
		return d, errors.Join(fmt.Errorf("%s has no folder %s", dir, dataDir), err)
	}
	return d, nil
}

// makeDir makes a volume's folder whole, puts it on the disk, and only then gives it its name.
func (s *Service) makeDir(d definition) (err error) {
	made := s.dir(newName)
	if err := removeTree(made); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeTree(made))
		}
	}()
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	data := filepath.Join(made, dataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask is
		return err
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(made, optionsFile), b); err != nil {
		return err
	}
	if err := syncDir(made); err != nil {
		return err
	}
	if err := os.Rename(made, s.dir(d.Name)); err != nil {
		return err
	}
	return syncDir(s.root)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeTree removes a volume's folder. What is mounted on its data would be emptied with it, so it goes first.
func removeTree(dir string) error {
	err := unmount(filepath.Join(dir, dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	return rootfs.RemoveTree(dir)
}
