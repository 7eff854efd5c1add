package contexts

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// largest is what a file of an archive may have.
const largest = 1 << 20

// Export writes one as a tar archive: meta.json and tls/docker/.
func (s Store) Export(name string, w io.Writer) error {
	c, err := s.Get(name)
	if err != nil {
		return err
	}
	m, err := s.read(s.MetaDir(name))
	if err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	add := func(name string, b []byte, mode int64) error {
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(b))})
		if err == nil {
			_, err = t.Write(b)
		}
		return err
	}
	if err := add("meta.json", text, 0o644); err != nil {
		return err
	}
	for _, f := range files {
		if b, ok := c.TLS[f]; ok {
			if err := add("tls/docker/"+f, b, 0o600); err != nil {
				return err
			}
		}
	}
	return t.Close()
}

// Import reads an archive that Export or Docker's client wrote, and keeps it under a name that is not taken.
func (s Store) Import(name string, r io.Reader) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := s.Get(name); err == nil {
		return fmt.Errorf("context %q already exists: %w", name, fs.ErrExist)
	}
	c, err := readArchive(r)
	if err != nil {
		return fmt.Errorf("import the context %q: %w", name, err)
	}
	c.Name = name
	return s.Put(c)
}

func readArchive(r io.Reader) (c Context, err error) {
	var m meta
	secrets := map[string][]byte{}
	t := tar.NewReader(io.LimitReader(r, 16*largest))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(t, largest+1))
		if err != nil {
			return c, err
		}
		if len(b) > largest {
			return c, fmt.Errorf("%q is larger than %d bytes", h.Name, largest)
		}
		switch dir, base := path.Split(path.Clean(h.Name)); {
		case dir == "" && base == "meta.json":
			if err := json.Unmarshal(b, &m); err != nil {
				return c, fmt.Errorf("meta.json: %w", err)
			}
		case dir == "tls/docker/" && slices.Contains(files[:], base):
			secrets[base] = b
		}
	}
	if m.Name == "" {
		return c, errors.New("there is no meta.json in it")
	}
	c, err = m.context()
	c.TLS = secrets
	return c, err
}
