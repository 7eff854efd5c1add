package buildclient

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/buildkit/client"
	"golang.org/x/term"

	"wherry.dev/wherry/internal/buildopt"
)

// addExports says where results go. Files are opened when the first byte comes and named when the last one has.
func (j *job) addExports() error {
	exports, err := j.o.Exports(normalize)
	if err != nil {
		return err
	}
	for _, e := range exports {
		entry, err := j.export(e)
		if err != nil {
			return err
		}
		j.opt.Exports = append(j.opt.Exports, entry)
	}
	return nil
}

func (j *job) export(e buildopt.Export) (client.ExportEntry, error) {
	entry := client.ExportEntry{Type: e.Type, Attrs: e.Attrs}
	if e.Dest == "" {
		return entry, nil
	}
	asTar, err := strconv.ParseBool(e.Attrs["tar"])
	if e.Type == client.ExporterLocal || err == nil && !asTar {
		entry.OutputDir = e.Dest
		if _, err := os.Stat(e.Dest); errors.Is(err, fs.ErrNotExist) {
			j.dirs = append(j.dirs, e.Dest)
		}
		return entry, nil
	}
	if e.Dest == "-" {
		if term.IsTerminal(int(j.c.Out.Fd())) {
			return entry, errors.New("the result would go to the terminal: write --output type=" + e.Type + ",dest=FILE, or send the output on")
		}
		entry.Output = func(map[string]string) (io.WriteCloser, error) { return keepOpen{j.c.Out}, nil }
		return entry, nil
	}
	if st, err := os.Stat(e.Dest); err == nil && st.IsDir() {
		return entry, fmt.Errorf("--output dest=%s: a file is wanted there, and it is a directory", e.Dest)
	}
	f := &resultFile{path: e.Dest}
	j.files = append(j.files, f)
	entry.Output = f.open
	return entry, nil
}

// keepOpen is an output that others go on using.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// resultFile has another name until it is whole.
type resultFile struct {
	path string
	temp *os.File
}

func (f *resultFile) open(map[string]string) (_ io.WriteCloser, err error) {
	if f.temp != nil {
		return nil, fmt.Errorf("write %s: the engine sends it twice", f.path)
	}
	f.temp, err = os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+"-")
	return f.temp, err
}

// keep gives the file its name.
func (f *resultFile) keep() error {
	if f.temp == nil {
		return fmt.Errorf("write %s: the engine sent nothing", f.path)
	}
	if err := os.Chmod(f.temp.Name(), 0o666&^umask()); err != nil {
		return err
	}
	if err := os.Rename(f.temp.Name(), f.path); err != nil {
		return err
	}
	f.temp = nil
	return nil
}

// dropFiles removes what did not become whole.
func (j *job) dropFiles() {
	for _, f := range j.files {
		if f.temp != nil {
			f.temp.Close()
			os.Remove(f.temp.Name())
		}
	}
}
