package verify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"wherry.dev/wherry/internal/evidence"
)

// signPredicate is the type of the statement by which cosign signs an image. Others say something else of it, such as how it was built.
const signPredicate = "https://sigstore.dev/cosign/sign/v1"

// anchor is one thing that a signature is held against: a key, or an authority with an identity.
type anchor struct {
	name     string
	verifier *verify.Verifier
	option   verify.PolicyOption
}

// sigstore checks cosign's signatures of both forms.
type sigstore struct {
	claims  evidence.Claims
	anchors []anchor
	keyed   bool
}

func (s *sigstore) kinds() []evidence.Kind { return []evidence.Kind{evidence.Simple, evidence.Bundle} }

func newKeyed(s *evidence.Signer) (checker, error) {
	out := &sigstore{claims: s.Claims, keyed: true}
	logs, err := logsOf(s.Rekor)
	if err != nil {
		return nil, err
	}
	for _, f := range s.Keys {
		key, err := publicKey(f)
		if err != nil {
			return nil, err
		}
		v, err := signature.LoadVerifier(key, crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		always := root.NewExpiringKey(v, time.Time{}, time.Time{})
		material := root.TrustedMaterialCollection{logs, root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil })}
		options := []verify.VerifierOption{verify.WithNoObserverTimestamps()}
		if len(s.Rekor) > 0 {
			options = []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
		}
		verifier, err := verify.NewVerifier(material, options...)
		if err != nil {
			return nil, err
		}
		out.anchors = append(out.anchors, anchor{f.Name, verifier, verify.WithKey()})
	}
	return out, nil
}

func newKeyless(s *evidence.Signer) (checker, error) {
	pattern := s.IdentityPattern
	if pattern != "" {
		pattern = "^(?:" + pattern + ")$"
	}
	identity, err := verify.NewShortCertificateIdentity(s.Issuer, "", s.Identity, pattern)
	if err != nil {
		return nil, err
	}
	var material root.TrustedMaterial
	if s.TrustRoot.Name != "" {
		material, err = root.NewTrustedRootFromJSON(s.TrustRoot.Data)
	} else {
		material, err = authoritiesOf(s)
	}
	if err != nil {
		return nil, fmt.Errorf("the trust root: %w", err)
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	verifier, err := verify.NewVerifier(material, options...)
	if err != nil {
		return nil, err
	}
	return &sigstore{claims: s.Claims, anchors: []anchor{{"", verifier, verify.WithCertificateIdentity(identity)}}}, nil
}

func publicKey(f evidence.File) (crypto.PublicKey, error) {
	block, _ := pem.Decode(f.Data)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", f.Name)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return key, nil
}

// material is authorities and logs that were given as PEM files.
type material struct {
	root.BaseTrustedMaterial
	authorities []root.CertificateAuthority
	logs        map[string]*root.TransparencyLog
}

func (m *material) FulcioCertificateAuthorities() []root.CertificateAuthority { return m.authorities }
func (m *material) RekorLogs() map[string]*root.TransparencyLog               { return m.logs }

func logsOf(files []evidence.File) (*material, error) {
	m := &material{logs: map[string]*root.TransparencyLog{}}
	for _, f := range files {
		key, err := publicKey(f)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, err
		}
		id := sha256.Sum256(der)
		m.logs[hex.EncodeToString(id[:])] = &root.TransparencyLog{ID: id[:], HashFunc: crypto.SHA256, PublicKey: key, SignatureHashFunc: crypto.SHA256,
			ValidityPeriodStart: time.Unix(1, 0)}
	}
	return m, nil
}

func authoritiesOf(s *evidence.Signer) (root.TrustedMaterial, error) {
	m, err := logsOf(s.Rekor)
	if err != nil {
		return nil, err
	}
	var roots, between []*x509.Certificate
	for _, f := range s.Fulcio {
		all, err := certificates(f)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if bytes.Equal(c.RawSubject, c.RawIssuer) {
				roots = append(roots, c)
			} else {
				between = append(between, c)
			}
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("fulcio: there is no root certificate among them")
	}
	for _, c := range roots {
		m.authorities = append(m.authorities, &root.FulcioCertificateAuthority{Root: c, Intermediates: between})
	}
	return m, nil
}

func certificates(f evidence.File) (all []*x509.Certificate, err error) {
	for rest := f.Data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no certificate", f.Name)
	}
	return all, nil
}

func (s *sigstore) check(_ context.Context, q question, sig *evidence.Signature) (verdict, error) {
	if sig.Kind == evidence.Simple {
		return s.simple(q, sig)
	}
	return s.bundle(q, sig)
}

// verify holds an entity against each anchor.
func (s *sigstore) verify(entity verify.SignedEntity, artifact func() verify.ArtifactPolicyOption) (string, *verify.VerificationResult, error) {
	var worst error
	for _, a := range s.anchors {
		result, err := a.verifier.Verify(entity, verify.NewPolicy(artifact(), a.option))
		if err != nil {
			worst = s.explain(err)
			continue
		}
		by := a.name
		if c := result.Signature.Certificate; by == "" && c != nil {
			by = c.SubjectAlternativeName + " of " + c.Issuer
		}
		return by, result, nil
	}
	return "", nil, worst
}

func (s *sigstore) explain(err error) error {
	var stranger *verify.ErrNoMatchingCertificateIdentity
	text := err.Error()
	switch {
	case errors.As(err, &stranger):
		return faultf(rankStranger, "it was signed by another identity: %w", err)
	case strings.Contains(text, "digest does not match"), strings.Contains(text, "does not match any digest"):
		return faultf(rankDigest, "a signature is of other content: %w", err)
	case strings.Contains(text, "verify log inclusion"), strings.Contains(text, "verify timestamps"):
		return faultf(rankStranger, "the log's proof of a signature is missing or is not of the logs that are trusted: %w", err)
	case s.keyed:
		return faultf(rankStranger, "no signature is by these keys: %w", err)
	}
	return faultf(rankStranger, "no signature is by this identity under this trust root: %w", err)
}

// bundle checks a sigstore bundle, which signs a statement about the image's digest.
func (s *sigstore) bundle(q question, sig *evidence.Signature) (verdict, error) {
	raw, err := hex.DecodeString(q.img.Digest.Encoded())
	if err != nil {
		return verdict{}, err
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(sig.Blob); err != nil {
		return verdict{}, faultf(rankMalformed, "a signature is malformed: %w", err)
	}
	by, result, err := s.verify(b, func() verify.ArtifactPolicyOption {
		return verify.WithArtifactDigest(q.img.Digest.Algorithm().String(), raw)
	})
	if err != nil {
		return verdict{}, err
	}
	if result.Statement == nil {
		if s.claims.How != evidence.Same {
			return verdict{}, faultf(rankName, "it is signed for no name, and the rule wants %s", s.claims.Want(q.Name, q.Tag))
		}
		return verdict{by: by}, nil
	}
	if t := result.Statement.GetPredicateType(); t != signPredicate {
		return verdict{}, faultf(rankStranger, "there is only a statement of type %q, which is no signature of the image", t)
	}
	for _, subject := range result.Statement.GetSubject() {
		if subject.GetDigest()[q.img.Digest.Algorithm().String()] != q.img.Digest.Encoded() {
			continue
		}
		name := subject.GetName()
		claimed := strings.Contains(name, "/")
		if !claimed && s.claims.How == evidence.Same || claimed && s.claims.Match(name, q.Name, q.Tag) {
			return verdict{by: by}, nil
		}
		if claimed {
			return verdict{}, faultf(rankName, "it is signed for another name: %s, not %s", name, s.claims.Want(q.Name, q.Tag))
		}
		return verdict{}, faultf(rankName, "it is signed for no name, and the rule wants %s", s.claims.Want(q.Name, q.Tag))
	}
	return verdict{}, faultf(rankDigest, "a signature is of other content")
}

// payload is what cosign signs in its classic form, also known as atomic container signature.
type payload struct {
	Critical struct {
		Type     string `json:"type"`
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
	} `json:"critical"`
	Optional any `json:"optional"`
}

func (s *sigstore) simple(q question, sig *evidence.Signature) (verdict, error) {
	raw, err := base64.StdEncoding.DecodeString(sig.Signature)
	if err != nil {
		return verdict{}, faultf(rankMalformed, "a signature is malformed: %w", err)
	}
	entity, err := entityOf(sig, raw)
	if err != nil {
		return verdict{}, faultf(rankMalformed, "a signature is malformed: %w", err)
	}
	by, _, err := s.verify(entity, func() verify.ArtifactPolicyOption { return verify.WithArtifact(bytes.NewReader(sig.Blob)) })
	if err != nil {
		return verdict{}, err
	}
	var p payload
	d := json.NewDecoder(bytes.NewReader(sig.Blob))
	d.DisallowUnknownFields() // a critical part that is not understood cannot be followed
	if err := d.Decode(&p); err != nil {
		return verdict{}, faultf(rankMalformed, "what was signed is not understood: %w", err)
	}
	switch {
	case p.Critical.Type != "cosign container image signature" && p.Critical.Type != "atomic container signature":
		return verdict{}, faultf(rankMalformed, "what was signed is of type %q, no image's signature", p.Critical.Type)
	case p.Critical.Image.Digest != q.img.Digest.String():
		return verdict{}, faultf(rankDigest, "a signature is of other content: %s", p.Critical.Image.Digest)
	case !s.claims.Match(p.Critical.Identity.Reference, q.Name, q.Tag):
		return verdict{}, faultf(rankName, "it is signed for another name: %s, not %s", p.Critical.Identity.Reference, s.claims.Want(q.Name, q.Tag))
	}
	return verdict{by: by}, nil
}
