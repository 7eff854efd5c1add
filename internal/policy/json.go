package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"wherry.dev/wherry/internal/evidence"
)

// The field's file, containers-policy.json(5). All of a scope's requirements have to be met.
type fieldsFile struct {
	Default    []json.RawMessage                       `json:"default"`
	Transports map[string]map[string][]json.RawMessage `json:"transports"`
}

type requirement struct {
	Type string `json:"type"`

	// signedBy: not supported, but known.
	KeyType string `json:"keyType"`

	KeyPath   string   `json:"keyPath"`
	KeyPaths  []string `json:"keyPaths"`
	KeyData   []byte   `json:"keyData"`
	KeyDatas  [][]byte `json:"keyDatas"`
	Fulcio    *fulcio  `json:"fulcio"`
	PKI       any      `json:"pki"`
	RekorPath string   `json:"rekorPublicKeyPath"`
	RekorData []byte   `json:"rekorPublicKeyData"`

	RekorPaths []string        `json:"rekorPublicKeyPaths"`
	RekorDatas [][]byte        `json:"rekorPublicKeyDatas"`
	Identity   *signedIdentity `json:"signedIdentity"`
}

type fulcio struct {
	CAPath  string `json:"caPath"`
	CAData  []byte `json:"caData"`
	Issuer  string `json:"oidcIssuer"`
	Subject string `json:"subjectEmail"`
}

type signedIdentity struct {
	Type         string `json:"type"`
	Reference    string `json:"dockerReference"`
	Repository   string `json:"dockerRepository"`
	Prefix       string `json:"prefix"`
	SignedPrefix string `json:"signedPrefix"`
}

func (l *loader) parseJSON(text []byte) (*Policy, error) {
	var f fieldsFile
	if err := strict(text, &f); err != nil {
		return nil, fmt.Errorf("%s%s: %w", l.path, lineOf(text, err), err)
	}
	if len(f.Default) == 0 {
		return nil, fmt.Errorf("%s: \"default\" has no requirement: it is what holds for all that is not named", l.path)
	}
	p := &Policy{}
	var err error
	if p.Default, err = l.requirements("", f.Default); err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for scope, list := range f.Transports["docker"] {
		r, err := l.requirements(scope, list)
		if err != nil {
			return nil, err
		}
		if scope == "" { // all of the transport
			p.Default = r
			continue
		}
		if err := checkScope(scope); err != nil {
			return nil, fmt.Errorf("%s: transports.docker: %w", l.path, err)
		}
		same := evidence.Canonical(scope)
		if before, ok := seen[same]; ok {
			return nil, fmt.Errorf("%s: transports.docker: %s and %s are the same", l.path, min(before, scope), max(before, scope))
		}
		seen[same] = scope
		p.Rules = append(p.Rules, r)
	}
	slices.SortFunc(p.Rules, func(a, b Rule) int { return strings.Compare(a.Scope, b.Scope) })
	p.Local, err = l.local(f)
	return p, err
}

// local is for images that were loaded or made here: what the file says of archives, or else of everything.
func (l *loader) local(f fieldsFile) (Rule, error) {
	list := f.Default
	if r, ok := f.Transports["docker-archive"][""]; ok {
		list = r
	}
	r, err := l.requirements(LocalScope, list)
	if r.Action == Signed {
		r.Action, r.Why, r.Signers = Reject, "signatures are asked for, and nothing that was made here has one", nil
	}
	return r, err
}

func (l *loader) requirements(scope string, list []json.RawMessage) (Rule, error) {
	r := Rule{Scope: scope, Action: Accept, File: l.path}
	if len(list) == 0 {
		return r, fmt.Errorf("%s: %s has no requirement", l.path, r.Name())
	}
	for _, raw := range list {
		var q requirement
		if err := strict(raw, &q); err != nil {
			return r, fmt.Errorf("%s: %s: %w", l.path, r.Name(), err)
		}
		switch q.Type {
		case "insecureAcceptAnything":
		case "reject":
			r.Action = Reject
		case "signedBy":
			r.Action, r.Why = Reject, "a GPG signature (signedBy) is asked for, which Wherry does not check; use sigstoreSigned, or write "+Path
		case "sigstoreSigned":
			s, why, err := l.sigstoreSigned(q)
			if err != nil {
				return r, fmt.Errorf("%s: %s: %w", l.path, r.Name(), err)
			}
			if why != "" {
				r.Action, r.Why = Reject, why
			}
			r.Signers = append(r.Signers, s)
		default:
			return r, fmt.Errorf("%s: %s: there is no requirement of type %q", l.path, r.Name(), q.Type)
		}
	}
	if r.Action == Reject {
		r.Signers = nil
	} else if len(r.Signers) > 0 {
		r.Action, r.Need = Signed, len(r.Signers)
	}
	return r, nil
}

// sigstoreSigned gives a signer, or why it cannot be followed.
func (l *loader) sigstoreSigned(q requirement) (s evidence.Signer, why string, err error) {
	s.Format = evidence.FormatSigstore
	if q.PKI != nil {
		return s, "a signature by certificates of one's own (pki) is asked for, which Wherry does not check", nil
	}
	paths, datas := append(q.KeyPaths, nonEmpty(q.KeyPath)...), q.KeyDatas
	if q.KeyData != nil {
		datas = append(datas, q.KeyData)
	}
	if s.Keys, err = l.keyFiles("keys", paths, datas); err != nil {
		return s, "", err
	}
	paths, datas = append(q.RekorPaths, nonEmpty(q.RekorPath)...), q.RekorDatas
	if q.RekorData != nil {
		datas = append(datas, q.RekorData)
	}
	if s.Rekor, err = l.keyFiles("rekor", paths, datas); err != nil {
		return s, "", err
	}
	if f := q.Fulcio; f != nil {
		s.Issuer, s.Identity = f.Issuer, f.Subject
		var data [][]byte
		if f.CAData != nil {
			data = append(data, f.CAData)
		}
		if s.Fulcio, err = l.keyFiles("fulcio", nonEmpty(f.CAPath), data); err != nil {
			return s, "", err
		}
	}
	if s.Claims, err = q.Identity.claims(); err != nil {
		return s, "", err
	}
	return s, "", checkSigner(&s)
}

func (l *loader) keyFiles(kind string, paths []string, datas [][]byte) (all []evidence.File, err error) {
	for _, path := range paths {
		f, err := l.named(path)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	for _, d := range datas {
		all = append(all, evidence.File{Name: "a key in the policy", Data: d})
	}
	for _, f := range all {
		if err := checkPEM(f, kind); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (i *signedIdentity) claims() (evidence.Claims, error) {
	c := evidence.Claims{How: evidence.DigestOrExact}
	if i == nil {
		return c, nil
	}
	switch i.Type {
	case "matchRepoDigestOrExact":
	case "matchExact":
		c.How = evidence.Exact
	case "matchRepository":
		c.How = evidence.SameName
	case "exactReference":
		c = evidence.Claims{How: evidence.Reference, Value: i.Reference}
	case "exactRepository":
		c = evidence.Claims{How: evidence.Repository, Value: i.Repository}
	case "remapIdentity":
		c = evidence.Claims{How: evidence.Remap, Value: i.SignedPrefix, From: i.Prefix}
		if i.Prefix == "" {
			return c, errors.New("remapIdentity has no prefix")
		}
	default:
		return c, fmt.Errorf("there is no signedIdentity of type %q", i.Type)
	}
	if c.Value == "" && (c.How == evidence.Reference || c.How == evidence.Repository || c.How == evidence.Remap) {
		return c, fmt.Errorf("signedIdentity %s names nothing", i.Type)
	}
	return c, nil
}

// strict reads one JSON value in which nothing is unknown and no key stands twice: of two, some programs take the first, some the last.
func strict(text []byte, into any) error {
	if err := noDuplicates(json.NewDecoder(bytes.NewReader(text))); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something after its end")
	}
	return nil
}

// noDuplicates reads one value.
func noDuplicates(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if seen[strings.ToLower(name)] {
				return fmt.Errorf("%q stands there twice", name)
			}
			seen[strings.ToLower(name)] = true
		}
		if err := noDuplicates(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func lineOf(text []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var offset int64
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	default:
		return ""
	}
	return fmt.Sprintf(":%d", 1+bytes.Count(text[:min(int(offset), len(text))], []byte("\n")))
}
