package plugin

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// program answers what it is asked for by its name, and counts its activations.
func program(name string, activated *int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) {
		*activated++
		fmt.Fprint(w, `{"Implements": ["Namer"]}`)
	})
	mux.HandleFunc("POST /Namer.Name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"Name": %q}`, name) })
	mux.HandleFunc("POST /Namer.Fail", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Err": "it is Monday"}`) })
	mux.HandleFunc("POST /Namer.Status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusTeapot) })
	mux.HandleFunc("POST /Namer.Garble", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) })
	return mux
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T, path string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// TestPlaces are where programs are found, and what they say there.
func TestPlaces(t *testing.T) {
	sockets, specs, keys := t.TempDir(), t.TempDir(), t.TempDir()
	f := &Finder{Sockets: sockets, Specs: []string{specs, filepath.Join(specs, "none")}}
	activated := 0
	listen(t, filepath.Join(sockets, "plain.sock"), program("plain", &activated))
	if err := os.Mkdir(filepath.Join(sockets, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	listen(t, filepath.Join(sockets, "folder/folder.sock"), program("folder", &activated))
	remote := httptest.NewServer(program("remote", &activated))
	defer remote.Close()
	write(t, filepath.Join(specs, "remote.spec"), remote.URL+"\n")
	write(t, filepath.Join(specs, "tcp.spec"), "tcp://"+remote.Listener.Addr().String())
	write(t, filepath.Join(specs, "elsewhere.spec"), "unix://"+filepath.Join(sockets, "plain.sock"))
	secure := httptest.NewTLSServer(program("secure", &activated))
	defer secure.Close()
	ca := filepath.Join(keys, "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	write(t, filepath.Join(specs, "secure.json"), fmt.Sprintf(`{"Name": "secure", "Addr": %q, "TLSConfig": {"CAFile": %q}}`, secure.URL, ca))
	write(t, filepath.Join(specs, "strange.json"), fmt.Sprintf(`{"Addr": %q, "TLSConfig": {}}`, secure.URL))
	write(t, filepath.Join(specs, "notes.txt"), "no plugin")

	if got := f.Names(); !slices.Equal(got, []string{"elsewhere", "folder", "plain", "remote", "secure", "strange", "tcp"}) {
		t.Errorf("%v", got)
	}
	for name, says := range map[string]string{"plain": "plain", "folder": "folder", "remote": "remote", "tcp": "remote", "elsewhere": "plain", "secure": "secure"} {
		p, err := f.Find(t.Context(), name, "Namer")
		if err != nil {
			t.Error(err)
			continue
		}
		var out struct{ Name string }
		if err := p.Call(t.Context(), "Namer.Name", nil, &out); err != nil || out.Name != says {
			t.Errorf("%s says %q, %v", name, out.Name, err)
		}
	}
	before := activated
	if _, err := f.Find(t.Context(), "plain", "Namer"); err != nil || activated != before {
		t.Errorf("asked again what it implements: %v", err)
	}
	if _, err := f.Find(t.Context(), "strange", "Namer"); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server whose certificate nobody vouches for: %v", err)
	}
	if got := new(Finder).Names(); got != nil {
		t.Errorf("%v", got)
	}
}

// TestStartedAnew: another program at the same name is asked what it implements.
func TestStartedAnew(t *testing.T) {
	dir, activated := t.TempDir(), 0
	f := &Finder{Specs: []string{dir}}
	for _, name := range []string{"first", "second"} {
		s := httptest.NewServer(program(name, &activated))
		defer s.Close()
		path := filepath.Join(dir, "p.spec")
		write(t, path, s.URL)
		at := time.Unix(int64(len(name)), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		p, err := f.Find(t.Context(), "p", "Namer")
		if err != nil {
			t.Fatal(err)
		}
		var out struct{ Name string }
		if err := p.Call(t.Context(), "Namer.Name", nil, &out); err != nil || out.Name != name {
			t.Errorf("%q, %v", out.Name, err)
		}
	}
	if activated != 2 {
		t.Errorf("activated %d times", activated)
	}
}

// TestFailures are told by their kind, and with what helps.
func TestFailures(t *testing.T) {
	dir, activated := t.TempDir(), 0
	f := &Finder{Sockets: dir, Specs: []string{dir}}
	listen(t, filepath.Join(dir, "good.sock"), program("good", &activated))
	write(t, filepath.Join(dir, "dead.sock"), "")
	write(t, filepath.Join(dir, "ftp.spec"), "ftp://host/")
	write(t, filepath.Join(dir, "empty.json"), "{}")
	write(t, filepath.Join(dir, "keyless.json"), `{"Addr": "https://127.0.0.1:1", "TLSConfig": {"CertFile": "/no/such"}}`)
	for name, row := range map[string]struct {
		is  func(error) bool
		has string
	}{
		"none":      {errdefs.IsNotFound, `plugin "none" not found`},
		"../good":   {errdefs.IsNotFound, "not found"},
		"":          {errdefs.IsNotFound, "not found"},
		"dead":      {errdefs.IsUnavailable, "start it, or remove that file"},
		"ftp":       {errdefs.IsInvalidArgument, "addresses begin with unix://"},
		"empty":     {errdefs.IsInvalidArgument, "does not say where"},
		"keyless":   {func(err error) bool { return errors.Is(err, fs.ErrNotExist) }, "/no/such"},
		"good/good": {errdefs.IsNotFound, "not found"},
	} {
		_, err := f.Find(t.Context(), name, "Namer")
		if !row.is(err) || !strings.Contains(err.Error(), row.has) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Find(t.Context(), "good", "VolumeDriver"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "it implements Namer") {
		t.Errorf("%v", err)
	}
	p, err := f.Find(t.Context(), "good", "Namer")
	if err != nil {
		t.Fatal(err)
	}
	for method, row := range map[string]struct {
		is  func(error) bool
		has string
	}{
		"Namer.Fail":   {errdefs.IsInternal, "it is Monday"},
		"Namer.Status": {errdefs.IsInternal, "418"},
		"Namer.Garble": {errdefs.IsInternal, "no JSON"},
		"Namer.Other":  {errdefs.IsNotImplemented, "no such call"},
	} {
		if err := p.Call(t.Context(), method, nil, &struct{}{}); !row.is(err) || !strings.Contains(err.Error(), row.has) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestCertificates: a program that wants one of its callers gets it.
func TestCertificates(t *testing.T) {
	dir, activated := t.TempDir(), 0
	s := httptest.NewUnstartedServer(program("guarded", &activated))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	defer s.Close()
	f := &Finder{Specs: []string{dir}}
	addr := "tcp://" + s.Listener.Addr().String()
	write(t, filepath.Join(dir, "without.json"), fmt.Sprintf(`{"Addr": %q, "TLSConfig": {"InsecureSkipVerify": true}}`, addr))
	if _, err := f.Find(t.Context(), "without", "Namer"); !errdefs.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
	cert, key := pair(t)
	write(t, filepath.Join(dir, "c.pem"), cert)
	write(t, filepath.Join(dir, "k.pem"), key)
	write(t, filepath.Join(dir, "with.json"), fmt.Sprintf(`{"Addr": %q, "TLSConfig": {"InsecureSkipVerify": true, "CertFile": %q, "KeyFile": %q}}`,
		addr, filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")))
	if _, err := f.Find(t.Context(), "with", "Namer"); err != nil {
		t.Error(err)
	}
}
