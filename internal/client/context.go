package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"wherry.dev/wherry/internal/contexts"
)

// DefaultContext is the one that is always there: what the environment says, or the usual socket.
const DefaultContext = contexts.Default

// Context is a named engine, as docker keeps them beside its configuration (package contexts).
type Context struct {
	Name, Description, Host string
	TLS                     TLS
}

// ReadContext is the context with a name, of docker's configuration in a directory.
func ReadContext(config, name string) (Context, error) {
	s := contexts.Store{Dir: config}
	one, err := s.Get(name)
	if err != nil {
		return Context{}, err
	}
	c := Context{Name: one.Name, Description: one.Description, Host: one.Host}
	for file, path := range map[string]*string{"ca.pem": &c.TLS.CA, "cert.pem": &c.TLS.Cert, "key.pem": &c.TLS.Key} {
		if _, ok := one.TLS[file]; ok {
			*path = filepath.Join(s.TLSDir(name), "docker", file)
		}
	}
	return c, nil
}

// Contexts are all of them but the default one, by name.
func Contexts(config string) ([]Context, error) {
	list, err := contexts.Store{Dir: config}.List()
	if err != nil {
		return nil, err
	}
	var out []Context
	for _, c := range list {
		out = append(out, Context{Name: c.Name, Description: c.Description, Host: c.Host})
	}
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
