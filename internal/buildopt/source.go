package buildopt

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Secret is what RUN --mount=type=secret,id=ID reads.
type Secret struct {
	ID, File, Env string // one of File and Env
}

// SecretSources reads --secret. A secret of which nothing but the ID is said is a variable of that name, else a file.
func (o *Options) SecretSources() ([]Secret, error) {
	var out []Secret
	for _, s := range o.Secrets {
		secret, err := secretSource(s)
		if err != nil {
			return nil, fmt.Errorf("--secret %q: %w", s, err)
		}
		out = append(out, secret)
	}
	return out, nil
}

func secretSource(s string) (Secret, error) {
	list, err := fields(s)
	if err != nil {
		return Secret{}, err
	}
	var secret Secret
	kind := ""
	for _, f := range list {
		switch f[0] {
		case "type":
			kind = f[1]
		case "id":
			secret.ID = f[1]
		case "src", "source":
			secret.File = f[1]
		case "env":
			secret.Env = f[1]
		default:
			return secret, fmt.Errorf("there is no key %s: id, src, env, type", f[0])
		}
	}
	switch {
	case secret.ID == "":
		return secret, errors.New("it has no id")
	case kind != "" && kind != "file" && kind != "env":
		return secret, fmt.Errorf("there is no type %s: file, env", kind)
	case kind == "env" && secret.Env == "":
		secret.File, secret.Env = "", secret.File
	}
	if secret.File == "" && secret.Env == "" {
		if _, ok := os.LookupEnv(secret.ID); ok && kind != "file" {
			secret.Env = secret.ID
		} else {
			secret.File = secret.ID
		}
	}
	return secret, nil
}

// SSH is what RUN --mount=type=ssh,id=ID speaks to: the agent at a socket, or one made of keys. Without paths it is the user's own.
type SSH struct {
	ID    string
	Paths []string
	Raw   bool // the one path is a socket that is passed on as it is
}

// SSHSources reads --ssh.
func (o *Options) SSHSources() ([]SSH, error) {
	var out []SSH
	for _, s := range o.SSH {
		id, rest, has := strings.Cut(s, "=")
		x := SSH{ID: id}
		for _, p := range strings.Split(rest, ",") {
			if value, ok := strings.CutPrefix(p, "raw="); ok {
				raw, err := strconv.ParseBool(value)
				if err != nil {
					return nil, fmt.Errorf("--ssh %q: raw is true or false", s)
				}
				x.Raw = raw
			} else if has && p != "" {
				x.Paths = append(x.Paths, p)
			}
		}
		switch {
		case id == "":
			return nil, fmt.Errorf("--ssh %q: it has no id; write default", s)
		case x.Raw && len(x.Paths) != 1:
			return nil, fmt.Errorf("--ssh %q: raw=true wants one socket", s)
		}
		out = append(out, x)
	}
	return out, nil
}

// NamedContext is a --build-context: what FROM NAME and --from=NAME mean.
type NamedContext struct {
	Name  string
	Value string
	Dir   string // where it is a directory of this machine
	OCI   string // where it is oci-layout://OCI, a directory with :TAG and @DIGEST
}

// NamedContexts reads --build-context.
func (o *Options) NamedContexts() ([]NamedContext, error) {
	var out []NamedContext
	for _, s := range o.Contexts {
		name, value, has, err := pair("--build-context", s)
		if err != nil {
			return nil, err
		}
		if !has || value == "" {
			return nil, fmt.Errorf("--build-context %q: write NAME=what", s)
		}
		c := NamedContext{Name: strings.ToLower(name), Value: value}
		switch {
		case strings.HasPrefix(value, "oci-layout://"):
			c.OCI = strings.TrimPrefix(value, "oci-layout://")
		case strings.HasPrefix(value, "target:"), strings.HasPrefix(value, "docker-image://"), Remote(value):
		default:
			c.Dir = strings.TrimPrefix(value, "local:")
		}
		out = append(out, c)
	}
	return out, nil
}

// Remote tells whether a context is fetched by the engine: the address of a git repository, of a tar file or of a Dockerfile.
func Remote(s string) bool {
	for _, scheme := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(s, scheme) {
			_, err := os.Lstat(s)
			return err != nil
		}
	}
	return false
}

// Question is what is asked about a Dockerfile instead of building it.
type Question struct {
	Method string // "" builds
	JSON   bool
}

// Question reads --call and --check.
func (o *Options) Question() (Question, error) {
	method, format, _ := strings.Cut(o.Call, ",")
	var q Question
	switch format {
	case "":
	case "format=json", "json":
		q.JSON = true
	default:
		return q, fmt.Errorf("--call %q: behind the comma stands format=json or nothing", o.Call)
	}
	switch {
	case o.Check && method == "", method == "check", method == "lint":
		q.Method = "frontend.lint"
	case method == "outline":
		q.Method = "frontend.outline"
	case method == "targets":
		q.Method = "frontend.targets"
	case method != "" && method != "build":
		return q, fmt.Errorf("--call %q: it can be build, check, outline, targets", o.Call)
	}
	return q, nil
}
