package buildclient

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"golang.org/x/sys/unix"
)

// results names files, and tells what came out to those who asked.
func (j *job) results(res *client.SolveResponse) error {
	for _, f := range j.files {
		if err := f.keep(); err != nil {
			return err
		}
	}
	for _, d := range j.dirs {
		if err := os.Chmod(d, 0o777&^umask()); err != nil { // BuildKit makes it for its owner alone
			return err
		}
	}
	id := imageID(res.ExporterResponse)
	if j.o.ImageIDFile != "" {
		if err := writeFile(j.o.ImageIDFile, []byte(id)); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if j.o.MetadataFile != "" {
		data, err := metadata(res.ExporterResponse)
		if err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
		if err := writeFile(j.o.MetadataFile, data); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if j.o.Quiet && id != "" {
		_, err := fmt.Fprintln(j.c.Out, id)
		return err
	}
	return nil
}

// imageID is how the engine calls the image, "" where none came out.
func imageID(response map[string]string) string {
	if id := response[exptypes.ExporterImageDigestKey]; id != "" {
		return id
	}
	return response[exptypes.ExporterImageConfigDigestKey]
}

// metadata is the exporters' answer as JSON; values that are JSON in base64 become JSON.
func metadata(response map[string]string) ([]byte, error) {
	out := make(map[string]any, len(response))
	for k, v := range response {
		out[k] = v
		var object map[string]json.RawMessage
		if data, err := base64.StdEncoding.DecodeString(v); err == nil && json.Unmarshal(data, &object) == nil && len(object) > 0 {
			out[k] = json.RawMessage(data)
		}
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return append(data, '\n'), nil
}

// writeFile makes a file anew, whole or not at all.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there once it has its name
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o666&^umask())
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// umask of this process, which can only be read by setting it.
func umask() os.FileMode {
	m := unix.Umask(0o077)
	unix.Umask(m)
	return os.FileMode(m)
}
