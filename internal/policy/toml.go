package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"wherry.dev/wherry/internal/evidence"
)

// file is policy.toml.
type file struct {
	Default string     `toml:"default"`
	Local   string     `toml:"local"`
	Rules   []fileRule `toml:"rule"`
}

type fileRule struct {
	Scope   string       `toml:"scope"`
	Action  string       `toml:"action"`
	Need    any          `toml:"need"`
	Signers []fileSigner `toml:"signer"`
}

type fileSigner struct {
	Format          string   `toml:"format"`
	Claims          string   `toml:"claims"`
	Keys            []string `toml:"keys"`
	Identity        string   `toml:"identity"`
	IdentityPattern string   `toml:"identity-pattern"`
	Issuer          string   `toml:"issuer"`
	TrustRoot       string   `toml:"trust-root"`
	Fulcio          []string `toml:"fulcio"`
	Rekor           []string `toml:"rekor"`
	Certificates    []string `toml:"certificates"`
	TimeStampers    []string `toml:"time-stampers"`
	Identities      []string `toml:"identities"`
}

func (l *loader) parseTOML(text []byte) (*Policy, error) {
	var f file
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, l.explain(err)
	}
	at := linesOf(text)
	p := &Policy{}
	wrong := func(line int, format string, args ...any) error {
		r := Rule{File: l.path, Line: line}
		return fmt.Errorf("%s: "+format, append([]any{r.Where()}, args...)...)
	}
	p.Default = Rule{Action: Action(f.Default), File: l.path, Line: at.keys["default"]}
	if p.Default.Action != Accept && p.Default.Action != Reject {
		return nil, wrong(p.Default.Line, `default is %q: say "accept" or "reject", for images that no rule matches`, f.Default)
	}
	p.Local = Rule{Scope: LocalScope, Action: Action(f.Local), File: l.path, Line: at.keys["local"]}
	switch p.Local.Action {
	case "":
		p.Local.Action = Accept
	case Accept, Reject, AsNamed:
	default:
		return nil, wrong(p.Local.Line, `local is %q: say "accept", "reject" or "as-named", for images that were made on this machine`, f.Local)
	}
	seen := map[string]int{}
	for i, fr := range f.Rules {
		r, err := l.rule(fr, at, i)
		if err != nil {
			return nil, err
		}
		scope := evidence.Canonical(r.Scope)
		if before, ok := seen[scope]; ok {
			return nil, wrong(r.Line, "there is a rule for %s already, in line %d", r.Scope, before)
		}
		seen[scope] = r.Line
		p.Rules = append(p.Rules, r)
	}
	return p, nil
}

func (l *loader) rule(f fileRule, at lines, i int) (Rule, error) {
	r := Rule{Scope: f.Scope, Action: Action(f.Action), File: l.path, Line: at.rule(i)}
	fail := func(err error) (Rule, error) { return r, fmt.Errorf("%s: %w", r.Where(), err) }
	if err := checkScope(f.Scope); err != nil {
		return fail(fmt.Errorf("scope: %w", err))
	}
	switch {
	case r.Action != Accept && r.Action != Reject && r.Action != Signed:
		return fail(fmt.Errorf(`action is %q: say "accept", "reject" or "signed"`, f.Action))
	case r.Action == Signed && len(f.Signers) == 0:
		return fail(errors.New("signed by whom? Give a [[rule.signer]], or say \"reject\""))
	case r.Action != Signed && (len(f.Signers) > 0 || f.Need != nil):
		return fail(fmt.Errorf("there are signers, or need, and action is %q: they count with \"signed\" only", f.Action))
	}
	for j, fs := range f.Signers {
		s, err := l.signer(fs)
		if err != nil {
			return r, fmt.Errorf("%s: %w", (&Rule{File: l.path, Line: at.signer(i, j)}).Where(), err)
		}
		r.Signers = append(r.Signers, s)
	}
	switch n := f.Need.(type) {
	case nil:
		r.Need = min(1, len(r.Signers))
	case int64:
		r.Need = int(n)
	case string:
		r.Need = map[string]int{"any": 1, "all": len(r.Signers)}[n]
	}
	if r.Action == Signed && (r.Need < 1 || r.Need > len(r.Signers)) {
		return fail(fmt.Errorf(`need is %v: say "any", "all", or a number from 1 to %d`, f.Need, len(r.Signers)))
	}
	return r, nil
}

func (l *loader) signer(f fileSigner) (s evidence.Signer, err error) {
	s = evidence.Signer{Format: evidence.Format(f.Format), Identity: f.Identity, IdentityPattern: f.IdentityPattern, Issuer: f.Issuer}
	switch {
	case f.Claims == "":
	case f.Claims == string(evidence.SameName), f.Claims == string(evidence.Exact):
		s.Claims.How = evidence.How(f.Claims)
	case strings.Contains(f.Claims, "/") && checkScope(f.Claims) == nil:
		s.Claims = evidence.Claims{How: evidence.Repository, Value: f.Claims}
	default:
		return s, fmt.Errorf(`claims is %q: say "repository", "exact", or the name of a repository, registry.example/team/app`, f.Claims)
	}
	for _, group := range []struct {
		key   string
		names []string
		into  *[]evidence.File
	}{
		{"keys", f.Keys, &s.Keys}, {"fulcio", f.Fulcio, &s.Fulcio}, {"rekor", f.Rekor, &s.Rekor}, {"certificates", f.Certificates, &s.Certificates},
		{"time-stampers", f.TimeStampers, &s.TimeStampers},
	} {
		for _, name := range group.names {
			file, err := l.named(name)
			if err != nil {
				return s, fmt.Errorf("%s: %w", group.key, err)
			}
			if err := checkPEM(file, group.key); err != nil {
				return s, fmt.Errorf("%s: %w", group.key, err)
			}
			*group.into = append(*group.into, file)
		}
	}
	if f.TrustRoot != "" {
		if s.TrustRoot, err = l.named(f.TrustRoot); err != nil {
			return s, fmt.Errorf("trust-root: %w", err)
		}
	}
	for _, name := range f.Identities {
		s.Identities = append(s.Identities, strings.TrimSpace(strings.TrimPrefix(name, "x509.subject:")))
	}
	return s, checkSigner(&s)
}

// checkSigner says what a signer lacks, and what of it would not be looked at.
func checkSigner(s *evidence.Signer) error {
	keyless := s.Identity != "" || s.IdentityPattern != "" || s.Issuer != "" || s.TrustRoot.Name != "" || len(s.Fulcio) > 0
	notary := len(s.Certificates) > 0 || len(s.TimeStampers) > 0 || len(s.Identities) > 0
	switch s.Format {
	case evidence.FormatNotation:
		if keyless || len(s.Keys) > 0 || len(s.Rekor) > 0 {
			return errors.New("a notation signer has certificates, identities and time-stampers, and nothing else")
		}
		if len(s.Certificates) == 0 {
			return errors.New("a notation signer needs certificates: PEM files with what its chain begins with")
		}
		if s.Claims.How != evidence.Same {
			return errors.New("claims: notation signatures claim no name, so that none would count")
		}
		return nil
	case evidence.FormatSigstore:
	default:
		return fmt.Errorf(`format is %q: say "sigstore" or "notation"`, s.Format)
	}
	switch {
	case notary:
		return errors.New("certificates, identities and time-stampers are notation's; sigstore's are keys, or identity and issuer with trust-root (or fulcio and rekor)")
	case len(s.Keys) > 0 && keyless:
		return errors.New("give keys, or identity and issuer: each is a signer of its own")
	case len(s.Keys) > 0:
		return nil
	case (s.Identity == "") == (s.IdentityPattern == "") || s.Issuer == "":
		return errors.New("a sigstore signer needs keys, or identity (or identity-pattern) and issuer")
	case s.TrustRoot.Name == "" && (len(s.Fulcio) == 0 || len(s.Rekor) == 0):
		return errors.New("an identity needs trust-root (a trusted_root.json), or fulcio and rekor (PEM files): nothing is fetched for it")
	case s.TrustRoot.Name != "" && (len(s.Fulcio) > 0 || len(s.Rekor) > 0):
		return errors.New("give trust-root, or fulcio and rekor")
	}
	if _, err := regexp.Compile(s.IdentityPattern); err != nil {
		return fmt.Errorf("identity-pattern: %w", err)
	}
	return nil
}

func (l *loader) explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: there is nothing called %s", l.path, line, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, _ := wrong.Position()
		return fmt.Errorf("%s:%d: %s", l.path, line, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", l.path, err)
}

// lines say where rules, their signers and the keys above them begin.
type lines struct {
	keys    map[string]int
	rules   []int
	signers [][]int
}

func (l lines) rule(i int) int {
	if i < len(l.rules) {
		return l.rules[i]
	}
	return 0
}

func (l lines) signer(i, j int) int {
	if i < len(l.signers) && j < len(l.signers[i]) {
		return l.signers[i][j]
	}
	return l.rule(i)
}

func linesOf(text []byte) lines {
	l := lines{keys: map[string]int{}}
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		var key []string
		line := 0
		for k := e.Key(); k.Next(); key = append(key, string(k.Node().Data)) {
			if line == 0 {
				line = 1 + bytes.Count(text[:k.Node().Raw.Offset], []byte("\n"))
			}
		}
		switch name := strings.Join(key, "."); {
		case e.Kind == unstable.KeyValue && len(l.rules) == 0:
			l.keys[name] = line
		case e.Kind == unstable.ArrayTable && name == "rule":
			l.rules, l.signers = append(l.rules, line), append(l.signers, nil)
		case e.Kind == unstable.ArrayTable && name == "rule.signer" && len(l.rules) > 0:
			last := len(l.signers) - 1
			l.signers[last] = append(l.signers[last], line)
		}
	}
	return l
}
