package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wherry.dev/wherry/internal/evidence"
)

const key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"

func read(t testing.TB, name, text string) (*Policy, error) {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string]string{name: text, "key.pub": key, "bad.pub": "no key"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Read(filepath.Join(dir, name))
}

func TestLongestScope(t *testing.T) {
	p, err := read(t, "policy.toml", `
default = "reject"
[[rule]]
scope = "registry.example"
action = "accept"
[[rule]]
scope = "registry.example/team"
action = "reject"
[[rule]]
scope = "registry.example/team/app"
action = "accept"
[[rule]]
scope = "*.example"
action = "accept"
[[rule]]
scope = "localhost:5000"
action = "accept"
[[rule]]
scope = "docker.io/team"
action = "reject"
[[rule]]
scope = "secure.example:443"
action = "reject"
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"registry.example/a:1": "registry.example", "registry.example/team/b:1": "registry.example/team", "registry.example/team/app:1": "registry.example/team/app",
		"registry.example/team/application:1": "registry.example/team", "registry.example/teams/app:1": "registry.example", "other.example/a:1": "*.example",
		"example/a:1": "", "registry.example.org/a:1": "", "registry.example:5000/a:1": "", "localhost:5000/a": "localhost:5000", "Registry.EXAMPLE/team/b:1": "registry.example/team",
		"registry.example:443/team/b:1": "registry.example/team", "index.docker.io/team/x:1": "docker.io/team", "registry-1.docker.io/team/x:1": "docker.io/team",
		"secure.example:443/a": "secure.example:443", "secure.example/a": "secure.example:443", "docker.io/library/debian:12": "",
	} {
		if got := p.For(name).Scope; got != want {
			t.Errorf("%s: the rule for %q, want %q", name, got, want)
		}
	}
	if r := p.For("registry.example/team/b"); r.Line != 6 || r.Action != Reject || p.Local.Action != Accept {
		t.Errorf("%+v %+v", r, p.Local)
	}
}

func TestMistakes(t *testing.T) {
	const rule = "default = \"accept\"\n[[rule]]\nscope = \"registry.example\"\naction = \"signed\"\n[[rule.signer]]\n"
	for text, want := range map[string]string{
		"":                                    "default is",
		"default = \"no\"":                    ":1: default is \"no\"",
		"default = \"accept\"\nlocal = \"x\"": ":2: local is",
		"default = \"accept\"\n\nother = 1":   ":3: there is nothing called other",
		"default = \"accept\"\n[[rule]]\nscope = \"debian\"\naction = \"accept\"":                                                                ":2: scope: \"debian\" does not begin with a registry",
		"default = \"accept\"\n[[rule]]\nscope = \"r.example/\"\naction = \"accept\"":                                                            "matches no image",
		"default = \"accept\"\n[[rule]]\nscope = \"index.docker.io/x\"\naction = \"accept\"":                                                     "called docker.io",
		"default = \"accept\"\n[[rule]]\nscope = \"r.example\"\naction = \"signed\"":                                                             ":2: signed by whom?",
		"default = \"accept\"\n[[rule]]\nscope = \"r.example\"\naction = \"accept\"\nneed = 1":                                                   "count with \"signed\" only",
		"default = \"accept\"\n" + strings.Repeat("[[rule]]\nscope = \"r.example\"\naction = \"accept\"\n", 2):                                   ":5: there is a rule for r.example already, in line 2",
		"default = \"accept\"\n[[rule]]\nscope = \"r.example\"\naction = \"accept\"\n[[rule]]\nscope = \"r.example:443\"\naction = \"accept\"\n": ":5: there is a rule for r.example:443 already, in line 2",
		rule + "format = \"pgp\"":                                                                                                ":5: format is \"pgp\"",
		rule + "format = \"sigstore\"":                                                                                           ":5: a sigstore signer needs keys",
		rule + "format = \"sigstore\"\nkeys = [\"gone.pub\"]":                                                                    "gone.pub: no such file",
		rule + "format = \"sigstore\"\nkeys = [\"bad.pub\"]":                                                                     "bad.pub is no PEM file",
		rule + "format = \"sigstore\"\nkeys = [\"key.pub\"]\nkey = \"\"":                                                         ":8: there is nothing called rule.signer.key",
		rule + "format = \"sigstore\"\nkeys = [\"key.pub\"]\nidentity = \"x\"":                                                   "each is a signer of its own",
		rule + "format = \"sigstore\"\nkeys = [\"key.pub\"]\nclaims = \"whatever\"":                                              "claims is",
		rule + "format = \"sigstore\"\nkeys = [\"key.pub\"]\nidentities = [\"x\"]":                                               "are notation's",
		rule + "format = \"sigstore\"\nidentity = \"x\"\nissuer = \"y\"":                                                         "needs trust-root",
		rule + "format = \"notation\"\nkeys = [\"key.pub\"]":                                                                     "nothing else",
		strings.Replace(rule, "[[rule.signer]]", "need = 2\n[[rule.signer]]", 1) + "format = \"sigstore\"\nkeys = [\"key.pub\"]": "need is 2",
		strings.Replace(rule, "[[rule.signer]]", "need = 0\n[[rule.signer]]", 1) + "format = \"sigstore\"\nkeys = [\"key.pub\"]": "need is 0",
	} {
		if p, err := read(t, "policy.toml", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngives %+v %v, want %q", text, p, err, want)
		}
	}
}

func TestFieldsFile(t *testing.T) {
	p, err := read(t, "policy.json", `{"default": [{"type": "reject"}], "transports": {
	"docker": {
		"open.example": [{"type": "insecureAcceptAnything"}],
		"gpg.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}],
		"two.example/team": [{"type": "sigstoreSigned", "keyPath": "key.pub", "signedIdentity": {"type": "matchRepository"}}, {"type": "sigstoreSigned", "keyPaths": ["key.pub"]}],
		"both.example": [{"type": "sigstoreSigned", "keyPath": "key.pub"}, {"type": "reject"}],
		"remap.example": [{"type": "sigstoreSigned", "keyPath": "key.pub", "signedIdentity": {"type": "remapIdentity", "prefix": "remap.example", "signedPrefix": "origin.example"}}]
	}, "docker-archive": {"": [{"type": "insecureAcceptAnything"}]}, "oci": {"/tmp": [{"type": "reject"}]}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Action{"open.example/a": Accept, "gpg.example/a": Reject, "two.example/team/a": Signed, "two.example/a": Reject, "both.example/a": Reject} {
		if got := p.For(name).Action; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if r := p.For("gpg.example/a"); !strings.Contains(r.Why, "GPG") {
		t.Errorf("%+v", r)
	}
	r := p.For("two.example/team/a")
	if r.Need != 2 || r.Signers[0].Claims.How != evidence.SameName || r.Signers[1].Claims.How != evidence.DigestOrExact {
		t.Errorf("%+v", r)
	}
	if p.Local.Action != Accept || p.For("remap.example/a").Signers[0].Claims.From != "remap.example" {
		t.Errorf("%+v", p)
	}
	for text, want := range map[string]string{
		`{}`: "has no requirement", `{"default": []}`: "has no requirement", `{"default": [{"type": "x"}]}`: "no requirement of type",
		`{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}`: "stands there twice",
		`{"default": [{"type": "reject", "typo": 1}]}`:                                       "unknown field", "{\n\"default\": [}": ":2", `{"default": [{"type": "reject"}]} x`: "",
		`{"default": [{"type": "sigstoreSigned"}]}`:                                                          "needs keys",
		`{"default": [{"type": "sigstoreSigned", "keyPath": "key.pub", "signedIdentity": {"type": "any"}}]}`: "no signedIdentity",
	} {
		if p, err := read(t, "policy.json", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %+v %v, want %q", text, p, err, want)
		}
	}
}

func TestHash(t *testing.T) {
	const text = "default = \"accept\"\n[[rule]]\nscope = \"registry.example\"\naction = \"signed\"\n[[rule.signer]]\nformat = \"sigstore\"\nkeys = [\"key.pub\"]\n"
	a, err := read(t, "policy.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := read(t, "policy.toml", "# a comment\n"+text)
	c, _ := read(t, "policy.toml", text+"claims = \"exact\"\n")
	if a.Hash != b.Hash || a.Hash == c.Hash || len(a.Files) != 2 {
		t.Errorf("%s %s %s %+v", a.Hash, b.Hash, c.Hash, a.Files)
	}
}

// FuzzPolicy: no text ends the process, and what is accepted has a rule for every name.
func FuzzPolicy(f *testing.F) {
	f.Add("default = \"accept\"\n[[rule]]\nscope = \"registry.example\"\naction = \"reject\"", false)
	f.Add("rule = [{scope = \"a.b\"}]", false)
	f.Add(`{"default": [{"type": "reject"}], "transports": {"docker": {"a.b": [{"type": "signedBy"}]}}}`, true)
	f.Fuzz(func(t *testing.T, text string, fields bool) {
		name := "policy.toml"
		if fields {
			name = "policy.json"
		}
		p, err := read(t, name, text)
		if err != nil {
			return
		}
		for _, image := range []string{"", "a.b/c", "docker.io/library/debian:12"} {
			if r := p.For(image); r.Action != Accept && r.Action != Reject && r.Action != Signed || r.Action == Signed && r.Need < 1 {
				t.Errorf("%q: %+v", image, r)
			}
		}
	})
}
