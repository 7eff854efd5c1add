// Package login knows a user's logins at registries: those in config.json, which docker shares, and those that credential helpers keep.
//
// A Config is read once and owned by one goroutine; a change writes the file whole.
package login

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// HubAddress is how config.json and credential helpers call Docker Hub.
const HubAddress = "https://index.docker.io/v1/"

// Config is config.json. What it holds for other programs is kept as it is.
type Config struct {
	Path string // of the file
	rest map[string]json.RawMessage

	auths       map[string]authEntry
	credsStore  string
	credHelpers map[string]string
}

// authEntry is a login in config.json; auth is "user:password" in base64.
type authEntry struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	Email         string `json:"email,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Read reads config.json of a directory; one that is not there is empty.
func Read(dir string) (*Config, error) {
	c := &Config{Path: filepath.Join(dir, "config.json"), rest: map[string]json.RawMessage{}}
	data, err := os.ReadFile(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.rest); err != nil {
		return nil, fmt.Errorf("%s is no JSON object: %w; mend it or move it away", c.Path, err)
	}
	for name, into := range map[string]any{"auths": &c.auths, "credsStore": &c.credsStore, "credHelpers": &c.credHelpers} {
		if raw, ok := c.rest[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s: field %s: %w", c.Path, name, err)
			}
		}
	}
	return c, nil
}

// Field decodes a field that is no login.
func (c *Config) Field(name string, into any) error { return json.Unmarshal(c.rest[name], into) }

// SetField writes a field that is no login; nil takes it away.
func (c *Config) SetField(name string, value json.RawMessage) error {
	if value == nil {
		delete(c.rest, name)
	} else {
		c.rest[name] = value
	}
	return c.write()
}

// write puts the logins down, whole or not at all, readable for the owner only.
func (c *Config) write() error {
	raw, err := json.Marshal(c.auths)
	if err != nil {
		return fmt.Errorf("encode logins: %w", err)
	}
	delete(c.rest, "auths")
	if c.auths != nil {
		c.rest["auths"] = raw
	}
	data, err := json.MarshalIndent(c.rest, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", c.Path, err)
	}
	path := c.Path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // people keep it elsewhere and link to it
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config.json-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there once it has its name
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// ServerKey is the name under which a registry's login is kept: its host and port, or the address of Docker Hub.
func ServerKey(server string) string {
	host := HostOf(server)
	if host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io" {
		return HubAddress
	}
	return host
}

// HostOf takes scheme and path off an address.
func HostOf(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// entry finds a registry's login, which older clients kept under an address with scheme and path.
func (c *Config) entry(key string) (name string, e authEntry, ok bool) {
	if e, ok := c.auths[key]; ok {
		return key, e, true
	}
	for _, name := range slices.Sorted(maps.Keys(c.auths)) {
		if ServerKey(name) == key {
			return name, c.auths[name], true
		}
	}
	return "", authEntry{}, false
}

// helper names the program that keeps a registry's login, "" where config.json keeps it.
func (c *Config) helper(key string) string {
	for _, host := range slices.Sorted(maps.Keys(c.credHelpers)) {
		if ServerKey(host) == key {
			return c.credHelpers[host]
		}
	}
	return c.credsStore
}

// Credentials of a registry, nil where there are none.
func (c *Config) Credentials(key string) (*registry.AuthConfig, error) {
	if name := c.helper(key); name != "" {
		return credentialHelper(name).get(key)
	}
	_, e, ok := c.entry(key)
	if !ok {
		return nil, nil
	}
	a := &registry.AuthConfig{
		Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken, ServerAddress: key,
	}
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, both := strings.Cut(string(raw), ":")
		if err != nil || !both {
			return nil, fmt.Errorf("%s: the login of %s is damaged: run wherry login %s again", c.Path, key, HostOf(key))
		}
		a.Username, a.Password = user, strings.Trim(password, "\x00")
	}
	return a, nil
}

// Keep stores a login; plain tells that a new password now stands in config.json, only encoded.
func (c *Config) Keep(a registry.AuthConfig) (plain bool, err error) {
	if name := c.helper(a.ServerAddress); name != "" {
		if err := credentialHelper(name).store(a); err != nil {
			return false, err
		}
		// An empty entry tells other clients that there is a login.
		return false, c.set(a.ServerAddress, authEntry{})
	}
	e := authEntry{IdentityToken: a.IdentityToken}
	if a.Username != "" {
		e.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	_, old, _ := c.entry(a.ServerAddress)
	return a.Password != "" && e != old, c.set(a.ServerAddress, e)
}

func (c *Config) set(key string, e authEntry) error {
	if c.auths == nil {
		c.auths = map[string]authEntry{}
	}
	if old, _, ok := c.entry(key); ok {
		delete(c.auths, old)
	}
	c.auths[key] = e
	return c.write()
}

// Forget removes a login and tells whether there was one.
func (c *Config) Forget(key string) (bool, error) {
	var helped error
	if name := c.helper(key); name != "" {
		helped = credentialHelper(name).erase(key)
	}
	known := false
	for name, _, ok := c.entry(key); ok; name, _, ok = c.entry(key) {
		delete(c.auths, name)
		known = true
	}
	if !known {
		return helped == nil && c.helper(key) != "", helped
	}
	return true, errors.Join(helped, c.write())
}
