package client

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

// DefaultContext is the one that is always there: what the environment says, or the usual socket.
const DefaultContext = "default"

// Context is a named engine, as docker keeps them beside its configuration:
//
//	contexts/meta/<sha256 of the name>/meta.json       {"Name":…,"Metadata":{"Description":…},"Endpoints":{"docker":{"Host":…}}}
//	contexts/tls/<sha256 of the name>/docker/*.pem     for tcp://
//	config.json                                        {"currentContext":…}
type Context struct {
	Name, Description, Host string
	TLS                     TLS
}

type contextFile struct {
	Name     string
	Metadata struct{ Description string }

	Endpoints map[string]struct{ Host string }
}

func contextPlace(config, kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(config, "contexts", kind, hex.EncodeToString(sum[:]))
}

// ReadContext is the context with a name, of docker's configuration in a directory.
func ReadContext(config, name string) (Context, error) {
	c, err := readContext(filepath.Join(contextPlace(config, "meta", name), "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("there is no context %q in %s: see wherry context ls, or make it with docker context create", name, filepath.Join(config, "contexts"))
	}
	if err != nil {
		return c, err
	}
	dir := filepath.Join(contextPlace(config, "tls", name), "docker")
	for file, path := range map[string]*string{"ca.pem": &c.TLS.CA, "cert.pem": &c.TLS.Cert, "key.pem": &c.TLS.Key} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			*path = filepath.Join(dir, file)
		}
	}
	return c, nil
}

func readContext(path string) (Context, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Context{}, err
	}
	var f contextFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Context{}, fmt.Errorf("read the context %s: %w", path, err)
	}
	return Context{Name: f.Name, Description: f.Metadata.Description, Host: f.Endpoints["docker"].Host}, nil
}

// Contexts are all of them but the default one, by name.
func Contexts(config string) ([]Context, error) {
	paths, err := filepath.Glob(filepath.Join(config, "contexts", "meta", "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	var out []Context
	for _, path := range paths {
		c, err := readContext(path)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Choice says which engine is meant. All of it may be empty.
type Choice struct {
	Host    string // --host
	Context string // --context
	TLS     TLS    // for tcp://
	Config  string // directory of docker's configuration
}

// CurrentContext is the name of the context that commands use: --context, DOCKER_CONTEXT or config.json say so, unless a host is named.
func CurrentContext(o Choice) string {
	if o.Context != "" {
		return o.Context
	}
	if host, _ := namedHost(o.Host); host != "" || o.Host != "" {
		return DefaultContext
	}
	if name := os.Getenv("DOCKER_CONTEXT"); name != "" {
		return name
	}
	var config struct {
		CurrentContext string `json:"currentContext"`
	}
	b, err := os.ReadFile(filepath.Join(o.Config, "config.json"))
	if err != nil || json.Unmarshal(b, &config) != nil || config.CurrentContext == "" {
		return DefaultContext
	}
	return config.CurrentContext
}

// Find makes a client of the engine that is meant.
func Find(o Choice) (*Client, error) {
	if o.Host != "" && o.Context != "" {
		return nil, errors.New("--host and --context both name an engine: give one of them")
	}
	name := CurrentContext(o)
	if name == DefaultContext || o.Config == "" {
		return NewTLS(o.Host, o.TLS)
	}
	c, err := ReadContext(o.Config, name)
	if err != nil {
		return nil, err
	}
	if o.TLS != (TLS{}) {
		c.TLS = o.TLS
	}
	client, err := NewTLS(c.Host, c.TLS)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", name, err)
	}
	return client, nil
}
