package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// settings say how one host is reached: the registry itself, or a mirror of it.
type settings struct {
	scheme, host string
	path         string // of the API, such as /v2
	mirror       bool
	can          docker.HostCapabilities
	header       http.Header // goes to this host only
	rewrite      map[string]string
	tls          tlsSettings
	dialTimeout  time.Duration // 0: 15 s
	fallback     bool          // TLS is tried first, then plain HTTP
}

// tlsSettings are the certificates that count for a host.
type tlsSettings struct {
	unchecked   bool
	authorities [][]byte    // PEM, beside the machine's
	clients     [][2][]byte // PEM of certificate and key
}

const everything = docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush | docker.HostCapabilityReferrers

// settings of a registry: its mirrors in order, then itself.
func (p *Pool) settings(domain string) ([]settings, error) {
	dir, err := p.hostDir(domain)
	if err != nil {
		return nil, err
	}
	list := []settings{{can: everything}}
	if dir != "" {
		if list, err = readSettings(dir); err != nil {
			return nil, err
		}
	}
	itself := &list[len(list)-1]
	p.complete(itself, domain)
	for i := range list[:len(list)-1] {
		if s := &list[i]; (s.scheme == itself.scheme || itself.fallback) && sameHost(s.host, itself.host, s.scheme) {
			s.mirror = false // the registry by another way: a login is for it too
		}
	}
	return list, nil
}

// complete fills in what the settings leave open of the registry itself.
func (p *Pool) complete(s *settings, domain string) {
	if s.host != "" {
		return
	}
	s.scheme, s.host, s.path = "https", registryHost(domain), "/v2"
	if !p.plain(domain) {
		return
	}
	if len(s.tls.authorities) == 0 {
		s.tls.unchecked = true
	}
	switch _, port, _ := net.SplitHostPort(s.host); port {
	case "80":
		s.scheme = "http"
	case "", "443":
		s.fallback = !isLoopback(domain)
	default:
		s.fallback = true
	}
}

// hostDir finds the folder with a registry's settings, "" for none: under the registry's name, with the colon before a port or as
// containerd writes it, or else for all registries, _default.
func (p *Pool) hostDir(host string) (string, error) {
	names := []string{host, "_default"}
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		names = []string{host[:i] + "_" + host[i+1:] + "_", host, "_default"}
	}
	for _, name := range names {
		for _, root := range p.o.HostDirs {
			dir := filepath.Join(root, name)
			if _, err := os.Stat(dir); err == nil {
				return dir, nil
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
	}
	return "", nil
}

// readSettings reads hosts.toml, or the certificates that lie in Docker's layout.
func readSettings(dir string) ([]settings, error) {
	b, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		s, err := readCertificates(dir)
		return []settings{s}, err
	}
	if err != nil {
		return nil, err
	}
	list, err := parseHosts(b, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(dir, "hosts.toml"), err, errdefs.ErrInvalidArgument)
	}
	return list, nil
}

// readCertificates reads *.crt (authorities), and *.cert with *.key (the client's).
func readCertificates(dir string) (settings, error) {
	s := settings{can: everything}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s, err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(name, ".crt"):
			err = s.tls.authority(name)
		case strings.HasSuffix(name, ".cert"):
			key := strings.TrimSuffix(name, ".cert") + ".key"
			if _, missing := os.Stat(key); missing != nil {
				key = name
			}
			err = s.tls.client(name, key)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func (t *tlsSettings) authority(file string) error {
	b, err := os.ReadFile(file)
	if err == nil {
		t.authorities = append(t.authorities, b)
	}
	return err
}

func (t *tlsSettings) client(certificate, key string) error {
	c, err := os.ReadFile(certificate)
	if err != nil {
		return err
	}
	k, err := os.ReadFile(key)
	if err == nil {
		t.clients = append(t.clients, [2][]byte{c, k})
	}
	return err
}

// hostFile is a host's part of hosts.toml. https://github.com/containerd/containerd/blob/main/docs/hosts.md
type hostFile struct {
	Capabilities []string          `toml:"capabilities"`
	CA           any               `toml:"ca"`            // a file, or several
	Client       any               `toml:"client"`        // a file with both, or several, or pairs of certificate and key
	SkipVerify   bool              `toml:"skip_verify"`   // any certificate
	Header       map[string]any    `toml:"header"`        // a string, or several
	OverridePath bool              `toml:"override_path"` // the address has the API's whole path
	DialTimeout  string            `toml:"dial_timeout"`
	Rewrite      map[string]string `toml:"rewrite"` // beginnings of repository names, and what stands there at this host
}

func parseHosts(b []byte, dir string) ([]settings, error) {
	var file struct {
		hostFile
		Server string              `toml:"server"`
		Host   map[string]hostFile `toml:"host"`
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		var unknown *toml.StrictMissingError
		if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
			return nil, fmt.Errorf("unknown key %q", strings.Join(unknown.Errors[0].Key(), "."))
		}
		return nil, err
	}
	var list []settings
	for _, name := range hostsInOrder(b, file.Host) {
		if name == "" {
			return nil, errors.New("a host has no address")
		}
		s, err := file.Host[name].settings(name, dir)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		s.mirror = true
		if len(file.Host[name].Capabilities) == 0 {
			s.can &^= docker.HostCapabilityPush // a push goes to the registry itself unless the mirror is named for it
		}
		list = append(list, s)
	}
	s, err := file.hostFile.settings(file.Server, dir)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return append(list, s), nil
}

// hostsInOrder names the mirrors as they stand in the file: the first is asked first.
func hostsInOrder(b []byte, hosts map[string]hostFile) []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if _, ok := hosts[name]; ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	p := unstable.Parser{}
	for p.Reset(b); p.NextExpression(); {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		it := e.Key()
		if it.Next() && string(it.Node().Data) == "host" && it.Next() {
			add(string(it.Node().Data))
		}
	}
	for _, name := range sorted(hosts) { // written in one line
		add(name)
	}
	return names
}

func (f hostFile) settings(address, dir string) (settings, error) {
	s := settings{can: everything, rewrite: f.Rewrite}
	s.tls.unchecked = f.SkipVerify
	if f.Capabilities != nil {
		s.can = 0
	}
	for _, c := range f.Capabilities {
		bit, ok := map[string]docker.HostCapabilities{"pull": docker.HostCapabilityPull, "resolve": docker.HostCapabilityResolve,
			"push": docker.HostCapabilityPush, "referrers": docker.HostCapabilityReferrers}[strings.ToLower(c)]
		if !ok {
			return s, fmt.Errorf("capability %q is none of pull, resolve, push, referrers", c)
		}
		s.can |= bit
	}
	if err := s.address(address, f.OverridePath); err != nil {
		return s, err
	}
	if err := s.files(f, dir); err != nil {
		return s, err
	}
	if f.DialTimeout != "" {
		d, err := time.ParseDuration(f.DialTimeout)
		if err != nil || d <= 0 {
			return s, fmt.Errorf("dial_timeout %q is no time, such as 5s", f.DialTimeout)
		}
		s.dialTimeout = d
	}
	s.header = http.Header{}
	for key, value := range f.Header {
		values, ok := texts(value)
		if !ok {
			return s, fmt.Errorf("header %q wants a text, or a list of texts", key)
		}
		s.header[http.CanonicalHeaderKey(key)] = values
	}
	return s, nil
}

func (s *settings) address(address string, whole bool) error {
	if address == "" {
		return nil
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return fmt.Errorf("%q is no address, such as https://mirror.example/v2", address)
	}
	s.scheme, s.host, s.path = u.Scheme, u.Host, strings.TrimSuffix(path.Clean("/"+u.Path), "/")
	if !whole && !strings.HasSuffix(s.path, "/v2") {
		s.path += "/v2"
	}
	return nil
}

func (s *settings) files(f hostFile, dir string) error {
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	authorities, ok := texts(f.CA)
	if !ok {
		return errors.New("ca wants a file, or a list of files")
	}
	for _, name := range authorities {
		if err := s.tls.authority(at(name)); err != nil {
			return err
		}
	}
	if name, ok := f.Client.(string); ok {
		return s.tls.client(at(name), at(name))
	}
	list, ok := f.Client.([]any)
	if f.Client != nil && !ok {
		return errors.New("client wants a file, a list of files, or a list of pairs")
	}
	for _, entry := range list {
		pair, ok := texts(entry)
		if !ok || len(pair) < 1 || len(pair) > 2 {
			return errors.New("client wants files, or pairs of certificate and key")
		}
		if err := s.tls.client(at(pair[0]), at(pair[len(pair)-1])); err != nil {
			return err
		}
	}
	return nil
}

// texts reads a string, or a list of strings.
func texts(v any) ([]string, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		var out []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			out = append(out, s)
		}
		return out, true
	}
	return nil, false
}

// repository is what a repository is called at this host: below the path, with the longest beginning that is rewritten.
func (s *settings) repository(name string) string {
	from, found := "", false
	for prefix := range s.rewrite {
		if strings.HasPrefix(name, prefix) && (!found || len(prefix) > len(from)) {
			from, found = prefix, true
		}
	}
	if found {
		name = s.rewrite[from] + name[len(from):]
	}
	return name
}
