// Package plugin finds programs that extend the engine by Docker's plugin protocol and calls them.
//
// A program announces itself by a file that is called as it is: a socket NAME.sock (or NAME/NAME.sock) in /run/docker/plugins, or in /etc/docker/plugins or
// /usr/lib/docker/plugins a NAME.spec with its address, or a NAME.json with that and its certificates. It answers POST /Plugin.Activate with what it
// implements ("VolumeDriver"), and then calls such as POST /VolumeDriver.Create: JSON in, JSON out, an error in its field Err
// (docs.docker.com/engine/extend/plugin_api). Nothing is kept between calls but that somebody is known to implement something; a Finder is safe for many
// goroutines. Programs of this kind are trusted with everything: only root writes to these folders.
package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// Finder looks for programs. The zero value knows none.
type Finder struct {
	Sockets string   // folder of sockets
	Specs   []string // folders of .spec and .json files

	mu    sync.Mutex // guards what follows
	known map[string]*Plugin
}

// Docker is a Finder of the places where Docker's plugins are.
func Docker() *Finder {
	return &Finder{Sockets: "/run/docker/plugins", Specs: []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}}
}

// Plugin is a program that has said what it implements.
type Plugin struct {
	Name string

	place      place
	implements []string
	client     *http.Client
	base       string // of its URLs
}

// place is what a program was found by.
type place struct {
	path string // of the socket, or of the file that says where it listens
	file os.FileInfo
}

func (p place) same(q place) bool {
	return p.path == q.path && os.SameFile(p.file, q.file) && p.file.ModTime().Equal(q.file.ModTime())
}

const (
	mediaType  = "application/vnd.docker.plugins.v1.2+json"
	answerMost = 16 << 20 // bytes
)

// Names are those of all programs that there are files of, whatever they implement.
func (f *Finder) Names() []string {
	var out []string
	add := func(dir string, endings ...string) {
		list, _ := os.ReadDir(dir) // as a rule there is none
		for _, e := range list {
			name := e.Name()
			for _, ending := range endings {
				if strings.HasSuffix(name, ending) {
					out = append(out, strings.TrimSuffix(name, ending))
				}
			}
			if e.IsDir() && slices.Contains(endings, ".sock") {
				if _, err := os.Stat(filepath.Join(dir, name, name+".sock")); err == nil {
					out = append(out, name)
				}
			}
		}
	}
	add(f.Sockets, ".sock")
	for _, dir := range f.Specs {
		add(dir, ".spec", ".json")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Find returns the program of a name that implements something, errdefs.ErrNotFound where there is none. One that does not answer is an error
// (errdefs.ErrUnavailable).
func (f *Finder) Find(ctx context.Context, name, what string) (*Plugin, error) {
	at, ok := f.look(name)
	if !ok {
		return nil, fmt.Errorf("plugin %q not found: %w", name, errdefs.ErrNotFound)
	}
	f.mu.Lock()
	p := f.known[name]
	f.mu.Unlock()
	if p == nil || !p.place.same(at) { // it was started anew, and may be another one
		p = &Plugin{Name: name, place: at}
		if err := p.open(ctx); err != nil {
			return nil, fmt.Errorf("plugin %s: %w", name, err)
		}
		f.mu.Lock()
		if f.known == nil {
			f.known = map[string]*Plugin{}
		}
		f.known[name] = p
		f.mu.Unlock()
	}
	if !slices.Contains(p.implements, what) {
		return nil, fmt.Errorf("plugin %s is no %s: it implements %s: %w", name, what, strings.Join(p.implements, ", "), errdefs.ErrNotFound)
	}
	return p, nil
}

// look finds the file of a program.
func (f *Finder) look(name string) (place, bool) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return place{}, false
	}
	var paths []string
	if f.Sockets != "" {
		paths = append(paths, filepath.Join(f.Sockets, name+".sock"), filepath.Join(f.Sockets, name, name+".sock"))
	}
	for _, dir := range f.Specs {
		paths = append(paths, filepath.Join(dir, name+".spec"), filepath.Join(dir, name+".json"))
	}
	for _, path := range paths {
		if st, err := os.Stat(path); err == nil && !st.IsDir() {
			return place{path, st}, true
		}
	}
	return place{}, false
}

// spec is a .json file.
type spec struct {
	Name, Addr string
	TLSConfig  *certificates
}

type certificates struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// open reads where a program listens and asks what it implements.
func (p *Plugin) open(ctx context.Context) error {
	s := spec{Addr: "unix://" + p.place.path}
	if ext := filepath.Ext(p.place.path); ext != ".sock" {
		text, err := os.ReadFile(p.place.path)
		if err != nil {
			return err
		}
		s = spec{Addr: strings.TrimSpace(string(text))}
		if ext == ".json" {
			if s = (spec{}); json.Unmarshal(text, &s) != nil || s.Addr == "" {
				return fmt.Errorf("%s does not say where the plugin listens (Addr): %w", p.place.path, errdefs.ErrInvalidArgument)
			}
		}
	}
	if err := p.connect(s); err != nil {
		return err
	}
	var manifest struct{ Implements []string }
	if err := p.Call(ctx, "Plugin.Activate", nil, &manifest); err != nil {
		return err
	}
	p.implements = manifest.Implements
	return nil
}

func (p *Plugin) connect(s spec) error {
	u, err := url.Parse(s.Addr)
	if err != nil {
		return fmt.Errorf("%s: the address of the plugin: %w", p.place.path, err)
	}
	t := &http.Transport{DisableKeepAlives: true} // calls are rare, and programs come and go
	p.client = &http.Client{Transport: t}
	switch u.Scheme {
	case "unix":
		p.base = "http://plugin/"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", u.Path)
		}
		return nil
	case "tcp", "http", "https":
		p.base = "http://" + u.Host + "/"
		if s.TLSConfig != nil || u.Scheme == "https" {
			p.base = "https://" + u.Host + "/"
			t.TLSClientConfig, err = s.TLSConfig.read()
		}
		return err
	}
	return fmt.Errorf("%s: a plugin at %q: addresses begin with unix://, tcp://, http:// or https://: %w", p.place.path, s.Addr, errdefs.ErrInvalidArgument)
}

func (c *certificates) read() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c == nil {
		return out, nil
	}
	out.InsecureSkipVerify = c.InsecureSkipVerify
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		if out.RootCAs = x509.NewCertPool(); !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate: %w", c.CAFile, errdefs.ErrInvalidArgument)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// failure is an answer's own word of what went wrong.
type failure struct{ Err string }

// Call asks for a method, such as VolumeDriver.Create, with in (nil: nothing) as JSON, and reads the answer into out (nil: nothing is wanted).
func (p *Plugin) Call(ctx context.Context, method string, in, out any) error {
	body := []byte("{}")
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", mediaType)
	r.Header.Set("Accept", mediaType)
	answer, err := p.client.Do(r)
	if err != nil {
		var what *url.Error
		if errors.As(err, &what) {
			err = what.Err
		}
		return fmt.Errorf("%s: it does not answer at %s: %w: start it, or remove that file: %w", method, p.place.path, err, errdefs.ErrUnavailable)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerMost))
	if err != nil {
		return fmt.Errorf("%s: read its answer: %w: %w", method, err, errdefs.ErrUnavailable)
	}
	var failed failure
	valid := json.Unmarshal(text, &failed)
	switch {
	case answer.StatusCode == http.StatusNotFound && failed.Err == "":
		return fmt.Errorf("%s: it has no such call: %w", method, errdefs.ErrNotImplemented)
	case failed.Err != "":
		return fmt.Errorf("%s: %s: %w", method, failed.Err, errdefs.ErrInternal)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: it answers with status %s: %w", method, answer.Status, errdefs.ErrInternal)
	case valid != nil && out != nil:
		return fmt.Errorf("%s: its answer is no JSON: %w: %w", method, valid, errdefs.ErrInternal)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: its answer: %w: %w", method, err, errdefs.ErrInternal)
	}
	return nil
}
