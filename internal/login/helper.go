package login

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// credentialHelper is a program docker-credential-NAME, which keeps logins outside config.json. It is told a verb and reads from its input:
//
//	get    address           → {"ServerURL","Username","Secret"}, or exit 1 and "credentials not found in native keychain"
//	store  {"ServerURL",…}
//	erase  address
type credentialHelper string

// tokenUser is the user name of a secret that is an identity token.
const tokenUser = "<token>"

type helperLogin struct{ ServerURL, Username, Secret string }

// noSuchLogin is how helpers say that they have none.
const noSuchLogin = "credentials not found in native keychain"

var errNoLogin = errors.New(noSuchLogin)

func (h credentialHelper) run(verb string, input []byte) ([]byte, error) {
	program := "docker-credential-" + string(h)
	if strings.ContainsRune(program, '/') {
		return nil, fmt.Errorf("credential helper %q: config.json wants the name only, of a program in PATH", h)
	}
	cmd := exec.Command(program, verb)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	said := strings.TrimSpace(stdout.String() + "\n" + stderr.String())
	if strings.Contains(said, noSuchLogin) {
		return nil, errNoLogin
	}
	if said, _, _ = strings.Cut(said, "\n"); said != "" {
		err = errors.New(said)
	}
	return nil, fmt.Errorf("%s %s: %w", program, verb, err)
}

func (h credentialHelper) get(key string) (*registry.AuthConfig, error) {
	out, err := h.run("get", []byte(key))
	if errors.Is(err, errNoLogin) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l helperLogin
	if err := json.Unmarshal(out, &l); err != nil {
		return nil, fmt.Errorf("docker-credential-%s get: its answer is no JSON: %w", h, err)
	}
	a := &registry.AuthConfig{ServerAddress: key}
	if l.Username == tokenUser {
		a.IdentityToken = l.Secret
	} else {
		a.Username, a.Password = l.Username, l.Secret
	}
	return a, nil
}

func (h credentialHelper) store(a registry.AuthConfig) error {
	l := helperLogin{ServerURL: a.ServerAddress, Username: a.Username, Secret: a.Password}
	if a.IdentityToken != "" {
		l.Username, l.Secret = tokenUser, a.IdentityToken
	}
	input, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode the login: %w", err)
	}
	_, err = h.run("store", input)
	return err
}

func (h credentialHelper) erase(key string) error {
	_, err := h.run("erase", []byte(key))
	if errors.Is(err, errNoLogin) {
		return nil
	}
	return err
}
