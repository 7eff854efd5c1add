// Package policy reads which images may be pulled and run: the engine's policy file, or the field's policy.json.
//
// A Policy is a value: rules by the beginning of an image's name, one for images that none matches, and one for images that were made on
// this machine. What the file says is read strictly; no mistake in it makes it weaker. Files that it names (keys, certificates) are read
// with it, and its Hash is of all of them.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"wherry.dev/wherry/internal/evidence"
)

// Where policies are looked for, in this order.
const (
	Path       = "/etc/wherry/policy.toml"
	FieldsPath = "/etc/containers/policy.json" // containers-policy.json(5)
)

const maxFile = 1 << 20

// Action of a rule.
type Action string

// Actions.
const (
	Accept  Action = "accept"
	Reject  Action = "reject"
	Signed  Action = "signed"
	AsNamed Action = "as-named" // for images made here: the rule for their name
)

// Rule is what holds for images whose names begin with Scope.
type Rule struct {
	Scope   string // "": the default; "local": images that were made on this machine
	Action  Action
	Signers []evidence.Signer
	Need    int    // how many of the signers
	Why     string // of Reject: why the file cannot be followed
	File    string
	Line    int // in File, 0 where it has none
}

// Where is the rule's place, FILE:LINE.
func (r *Rule) Where() string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}

// Name is the rule in words.
func (r *Rule) Name() string {
	switch r.Scope {
	case "":
		return "the default"
	case LocalScope:
		return "the rule for images made on this machine"
	}
	return "the rule for " + r.Scope
}

// LocalScope is the scope of the rule for images that were made on this machine.
const LocalScope = "local"

// Policy is a whole file.
type Policy struct {
	File    string
	Hash    string // of the file and all that it names
	Default Rule
	Local   Rule
	Rules   []Rule
	Files   []File // what was read: at File, and what that names
}

// File is one as it was when it was opened to be read.
type File struct {
	Path string
	Info os.FileInfo
}

// For is the rule for an image, registry/repository[:tag]: the one with the longest scope.
func (p *Policy) For(name string) *Rule {
	name = evidence.Canonical(name)
	best := &p.Default
	longest := 0
	for i := range p.Rules {
		if n := matches(evidence.Canonical(p.Rules[i].Scope), name); n > longest {
			best, longest = &p.Rules[i], n
		}
	}
	return best
}

// matches says how much of a name a scope is. That of a whole host is more than one with a wildcard.
func matches(scope, name string) int {
	if rest, ok := strings.CutPrefix(name, scope); ok && (rest == "" || rest[0] == '/' || rest[0] == ':' && strings.Contains(scope, "/")) {
		return 2*len(scope) + 1
	}
	suffix, ok := strings.CutPrefix(scope, "*.")
	if host, _, _ := strings.Cut(name, "/"); ok && strings.HasSuffix(host, "."+suffix) {
		return len(suffix)
	}
	return 0
}

// Read reads the policy at path; one that ends in .json is the field's.
func Read(path string) (*Policy, error) {
	l := &loader{path: path, sum: map[string][]byte{}}
	text, err := l.read(path)
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	var p *Policy
	if strings.HasSuffix(path, ".json") {
		p, err = l.parseJSON(text)
	} else {
		p, err = l.parseTOML(text)
	}
	if err != nil {
		return nil, err
	}
	p.File, p.Files = path, l.files
	p.Hash, err = p.hash()
	return p, err
}

// hash is of all that a policy says. Where it stands in its file is no part of it.
func (p *Policy) hash() (string, error) {
	all := append([]Rule{p.Default, p.Local}, p.Rules...)
	for i := range all {
		all[i].File, all[i].Line = "", 0
	}
	b, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

// loader reads a policy and the files that it names.
type loader struct {
	path  string
	files []File
	sum   map[string][]byte
}

func (l *loader) read(path string) ([]byte, error) {
	if b, ok := l.sum[path]; ok {
		return b, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s has more than a megabyte", path)
	}
	l.files, l.sum[path] = append(l.files, File{path, st}), b
	return b, nil
}

// named reads a file that the policy names, beside the policy unless its path is absolute.
func (l *loader) named(name string) (evidence.File, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(l.path), name)
	}
	b, err := l.read(path)
	return evidence.File{Name: name, Data: b}, err
}

// checkScope says what is wrong with the beginning of a name.
func checkScope(scope string) error {
	host, rest, more := strings.Cut(scope, "/")
	bare := strings.TrimPrefix(host, "*.")
	switch {
	case bare == "" || strings.ContainsAny(scope, " \t\n@") || strings.Contains(bare, "*") || strings.Contains(rest, "*"):
		return fmt.Errorf("%q is not the beginning of an image's name: write a registry, a namespace or a repository, such as registry.example/team", scope)
	case host != bare && more:
		return fmt.Errorf("%q: after *. stands a domain, and no path", scope)
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return fmt.Errorf("%q does not begin with a registry: images of Docker Hub are docker.io/library/debian, docker.io/team/app", scope)
	case scope != strings.ToLower(scope) && !strings.Contains(rest, ":") || strings.HasSuffix(scope, "/") || strings.Contains(scope, "//"):
		return fmt.Errorf("%q matches no image: names are in lower case, and no slash is at their end", scope)
	case host == "index.docker.io" || host == "registry-1.docker.io":
		return fmt.Errorf("%q matches no image: Docker Hub's registry is called docker.io", scope)
	}
	return nil
}
