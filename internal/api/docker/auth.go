package docker

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// registryAuth reads X-Registry-Auth: base64url of a JSON object. Nil means anonymous. A push had to have the header once, so scripts give it
// anything: what is no base64 of JSON is no login either, as with Docker.
func registryAuth(r *http.Request) (*registry.AuthConfig, error) {
	header := r.Header.Get(registry.AuthHeader)
	if raw, err := decodeBase64(header); err != nil || !json.Valid(raw) {
		return nil, nil
	}
	return parseAuth(header)
}

func parseAuth(header string) (*registry.AuthConfig, error) {
	raw, err := decodeBase64(header)
	if err != nil {
		return nil, invalid("invalid X-Registry-Auth header: must be a valid base64url-encoded string")
	}
	if len(raw) == 0 {
		return nil, nil
	}
	var a registry.AuthConfig
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, invalid("invalid X-Registry-Auth header: %v", err)
	}
	return normalAuth(a)
}

// parseAuths reads X-Registry-Config: credentials by registry, which builds send.
func parseAuths(header string) (map[string]registry.AuthConfig, error) {
	raw, err := decodeBase64(header)
	if err != nil {
		return nil, invalid("invalid X-Registry-Config header: must be a valid base64url-encoded string")
	}
	out := map[string]registry.AuthConfig{}
	if len(raw) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, invalid("invalid X-Registry-Config header: %v", err)
	}
	return out, nil
}

// normalAuth splits the field auth ("user:password" in base64) that config files carry; nil where nothing is given.
func normalAuth(a registry.AuthConfig) (*registry.AuthConfig, error) {
	if a.Auth != "" && a.Username == "" && a.Password == "" {
		raw, err := decodeBase64(a.Auth)
		if err != nil {
			return nil, invalid("invalid X-Registry-Auth header: its auth is not base64")
		}
		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return nil, invalid("invalid X-Registry-Auth header: its auth is not user:password")
		}
		a.Username, a.Password = user, password
	}
	a.Auth = ""
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, nil
	}
	return &a, nil
}

// decodeBase64 takes both alphabets, padded or not: clients differ.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	return base64.RawURLEncoding.DecodeString(s)
}
