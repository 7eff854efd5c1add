package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// hubAddress is how config.json and credential helpers call Docker Hub.
const hubAddress = "https://index.docker.io/v1/"

// config is config.json. What it holds for other programs is kept as it is.
type config struct {
	path string
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

// readConfig reads config.json of a directory; one that is not there is empty.
func readConfig(dir string) (*config, error) {
	c := &config{path: filepath.Join(dir, "config.json"), rest: map[string]json.RawMessage{}}
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.rest); err != nil {
		return nil, fmt.Errorf("%s is no JSON object: %w; mend it or move it away", c.path, err)
	}
	for name, into := range map[string]any{"auths": &c.auths, "credsStore": &c.credsStore, "credHelpers": &c.credHelpers} {
		if raw, ok := c.rest[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s: field %s: %w", c.path, name, err)
			}
		}
	}
	return c, nil
}

// write puts the logins down, whole or not at all, readable for the owner only.
func (c *config) write() error {
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
		return fmt.Errorf("encode %s: %w", c.path, err)
	}
	path := c.path
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

// serverKey is the name under which a registry's login is kept: its host and port, or the address of Docker Hub.
func serverKey(server string) string {
	host := hostOf(server)
	if host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io" {
		return hubAddress
	}
	return host
}

// hostOf takes scheme and path off an address.
func hostOf(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// entry finds a registry's login, which older clients kept under an address with scheme and path.
func (c *config) entry(key string) (name string, e authEntry, ok bool) {
	if e, ok := c.auths[key]; ok {
		return key, e, true
	}
	for _, name := range sorted(c.auths) {
		if serverKey(name) == key {
			return name, c.auths[name], true
		}
	}
	return "", authEntry{}, false
}

// helper names the program that keeps a registry's login, "" where config.json keeps it.
func (c *config) helper(key string) string {
	for _, host := range sorted(c.credHelpers) {
		if serverKey(host) == key {
			return c.credHelpers[host]
		}
	}
	return c.credsStore
}

// credentials of a registry, nil where there are none.
func (c *config) credentials(key string) (*registry.AuthConfig, error) {
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
			return nil, fmt.Errorf("%s: the login of %s is damaged: run wherry login %s again", c.path, key, hostOf(key))
		}
		a.Username, a.Password = user, strings.Trim(password, "\x00")
	}
	return a, nil
}

// keep stores a login; plain tells that a new password now stands in config.json, only encoded.
func (c *config) keep(a registry.AuthConfig) (plain bool, err error) {
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

func (c *config) set(key string, e authEntry) error {
	if c.auths == nil {
		c.auths = map[string]authEntry{}
	}
	if old, _, ok := c.entry(key); ok {
		delete(c.auths, old)
	}
	c.auths[key] = e
	return c.write()
}

// forget removes a login and tells whether there was one.
func (c *config) forget(key string) (bool, error) {
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
