// Package contexts knows engines by names.
//
// The names are those of `docker context`: both command lines keep them at the same place, below the directory of config.json, as
// contexts/meta/<sha256 of the name>/meta.json, with files for TLS in contexts/tls/<the same>/docker/. Which of them is in use stands in
// config.json (package client).
//
// A Store holds nothing in memory; what it writes is whole or not there.
package contexts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Default is the name of what no context is needed for: the engine that the environment names, else the usual one.
const Default = "default"

// files are what TLS needs, by the names that they have in a context.
var files = [...]string{"ca.pem", "cert.pem", "key.pem"}

// Context is an engine with a name.
type Context struct {
	Name        string
	Description string
	Host        string // unix://, tcp:// or ssh://
	SkipVerify  bool
	TLS         map[string][]byte // ca.pem, cert.pem and key.pem, as far as there are any
}

// meta is a Context on disk and in `inspect`. Other programs' words are kept.
type meta struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]json.RawMessage
}

type endpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// Store is the contexts below Dir, the directory of config.json.
type Store struct{ Dir string }

func id(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// MetaDir is where a context's meta.json lies, TLSDir where its files for TLS do.
func (s Store) MetaDir(name string) string { return filepath.Join(s.Dir, "contexts/meta", id(name)) }

// TLSDir holds a folder for each kind of endpoint.
func (s Store) TLSDir(name string) string { return filepath.Join(s.Dir, "contexts/tls", id(name)) }

// CheckName wants a letter or digit and then at least one more of those, "_", ".", "+" or "-".
func CheckName(name string) error {
	if name == Default {
		return fmt.Errorf("%q is the name of what no context is needed for", name)
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.+-", rune(c))) {
			return fmt.Errorf("%q is no name for a context: letters, digits, and after the first also _ . + -", name)
		}
	}
	if len(name) < 2 {
		return fmt.Errorf("%q is no name for a context: it needs two letters or more", name)
	}
	return nil
}

// missing is ErrNotExist in words.
type missing string

func (m missing) Error() string {
	return fmt.Sprintf("there is no context %q: context ls lists them", string(m))
}
func (m missing) Is(target error) bool { return target == fs.ErrNotExist }

// Get reads one.
func (s Store) Get(name string) (Context, error) {
	m, err := s.read(s.MetaDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, missing(name)
	}
	if err != nil {
		return Context{}, fmt.Errorf("read the context %q (%s): %w", name, filepath.Join(s.MetaDir(name), "meta.json"), err)
	}
	c, err := m.context()
	if err != nil {
		return Context{}, err
	}
	for _, f := range files {
		if b, err := os.ReadFile(filepath.Join(s.TLSDir(name), "docker", f)); err == nil {
			c.TLS[f] = b
		}
	}
	return c, nil
}

func (s Store) read(dir string) (m meta, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (m meta) context() (Context, error) {
	c := Context{Name: m.Name, TLS: map[string][]byte{}}
	c.Description, _ = m.Metadata["Description"].(string)
	var e endpoint
	if text := m.Endpoints["docker"]; len(text) > 0 {
		if err := json.Unmarshal(text, &e); err != nil {
			return c, fmt.Errorf("the address in the context %q: %w", m.Name, err)
		}
	}
	c.Host, c.SkipVerify = e.Host, e.SkipTLSVerify
	return c, nil
}

func (c Context) meta() (m meta, err error) {
	m = meta{Name: c.Name, Metadata: map[string]any{}, Endpoints: map[string]json.RawMessage{}}
	if c.Description != "" {
		m.Metadata["Description"] = c.Description
	}
	m.Endpoints["docker"], err = json.Marshal(endpoint{c.Host, c.SkipVerify})
	return m, err
}

// List reads all, sorted by name. What cannot be read is left out.
func (s Store) List() ([]Context, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "contexts/meta"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Context
	for _, e := range entries {
		m, err := s.read(filepath.Join(s.Dir, "contexts/meta", e.Name()))
		if err != nil {
			continue
		}
		if c, err := m.context(); err == nil && c.Name != "" {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Put writes one, over an earlier one of its name.
func (s Store) Put(c Context) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	m, err := c.meta()
	if err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	secrets := filepath.Join(s.TLSDir(c.Name), "docker")
	if err := os.RemoveAll(s.TLSDir(c.Name)); err != nil {
		return err
	}
	for name, b := range c.TLS {
		if err := write(filepath.Join(secrets, name), b, 0o600); err != nil {
			return err
		}
	}
	return write(filepath.Join(s.MetaDir(c.Name), "meta.json"), text, 0o644)
}

// write puts a file into place, whole.
func write(path string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Remove deletes one.
func (s Store) Remove(name string) error {
	if _, err := os.Stat(s.MetaDir(name)); err != nil {
		return missing(name)
	}
	return errors.Join(os.RemoveAll(s.MetaDir(name)), os.RemoveAll(s.TLSDir(name)))
}
