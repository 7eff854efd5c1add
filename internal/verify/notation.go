package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/result"
	_ "github.com/notaryproject/notation-core-go/signature/cose"
	_ "github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/evidence"
)

const storeName = "policy"

// notary checks envelopes of the Notary Project.
type notary struct {
	verifier     notation.Verifier
	timeStampers bool
}

func (n *notary) kinds() []evidence.Kind { return []evidence.Kind{evidence.Notation} }

// store holds the certificates that the policy names.
type store map[truststore.Type][]*x509.Certificate

func (s store) GetCertificates(_ context.Context, kind truststore.Type, _ string) ([]*x509.Certificate, error) {
	if len(s[kind]) == 0 {
		return nil, fmt.Errorf("the policy has no certificates of the kind %q", kind)
	}
	return s[kind], nil
}

// offline says of no certificate that it was revoked: there is no network to ask.
type offline struct{}

func (offline) ValidateContext(_ context.Context, o revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	all := make([]*result.CertRevocationResult, len(o.CertChain))
	for i := range all {
		all[i] = &result.CertRevocationResult{Result: result.ResultNonRevokable, ServerResults: []*result.ServerResult{{Result: result.ResultNonRevokable}}}
	}
	return all, nil
}

func newNotary(s *evidence.Signer) (checker, error) {
	certs := store{}
	for _, group := range []struct {
		files []evidence.File
		kind  truststore.Type
	}{{s.Certificates, truststore.TypeCA}, {s.TimeStampers, truststore.TypeTSA}} {
		for _, f := range group.files {
			all, err := certificates(f)
			if err != nil {
				return nil, err
			}
			certs[group.kind] = append(certs[group.kind], all...)
		}
	}
	p := trustpolicy.TrustPolicy{Name: storeName, RegistryScopes: []string{"*"}, TrustStores: []string{"ca:" + storeName},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name,
			Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{trustpolicy.TypeRevocation: trustpolicy.ActionSkip}}}
	if len(s.TimeStampers) > 0 {
		p.TrustStores = append(p.TrustStores, "tsa:"+storeName)
	}
	for _, name := range s.Identities {
		p.TrustedIdentities = append(p.TrustedIdentities, "x509.subject:"+name)
	}
	if len(s.Identities) == 0 {
		p.TrustedIdentities = []string{"*"}
	}
	v, err := verifier.NewWithOptions(&trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{p}}, certs, nil,
		verifier.VerifierOptions{RevocationCodeSigningValidator: offline{}, RevocationTimestampingValidator: offline{}})
	if err != nil {
		return nil, err
	}
	return &notary{v, len(s.TimeStampers) > 0}, nil
}

func (n *notary) check(ctx context.Context, q question, s *evidence.Signature) (verdict, error) {
	target := ocispec.Descriptor{MediaType: q.img.MediaType, Digest: q.img.Digest, Size: q.img.Size}
	outcome, err := n.verifier.Verify(ctx, target, s.Blob, notation.VerifierVerifyOptions{SignatureMediaType: s.MediaType,
		ArtifactReference: q.Name + "@" + q.img.Digest.String()})
	if err != nil {
		return verdict{}, explainNotation(outcome, err)
	}
	info := outcome.EnvelopeContent.SignerInfo
	if len(info.CertificateChain) == 0 {
		return verdict{}, faultf(rankMalformed, "a signature has no certificate")
	}
	leaf := info.CertificateChain[0]
	v := verdict{by: leaf.Subject.String(), until: info.SignedAttributes.Expiry}
	if stamped := n.timeStampers && len(info.UnsignedAttributes.TimestampSignature) > 0; !stamped {
		for _, c := range info.CertificateChain {
			if later(v.until, c.NotAfter) || v.until.IsZero() {
				v.until = c.NotAfter
			}
		}
	}
	return v, nil
}

func explainNotation(outcome *notation.VerificationOutcome, err error) error {
	if outcome == nil {
		return faultf(rankMalformed, "a signature is malformed: %w", err)
	}
	for _, r := range outcome.VerificationResults {
		if r.Error == nil {
			continue
		}
		switch r.Type {
		case trustpolicy.TypeIntegrity:
			return faultf(rankMalformed, "a signature is malformed: %w", err)
		case trustpolicy.TypeAuthenticity:
			return faultf(rankStranger, "no signature is by these certificates and identities: %w", err)
		case trustpolicy.TypeExpiry, trustpolicy.TypeAuthenticTimestamp:
			return faultf(rankExpired, "the signature has expired: %w", err)
		}
	}
	if errors.Is(err, outcome.Error) && err.Error() == "content descriptor mismatch" {
		return faultf(rankDigest, "a signature is of other content")
	}
	return faultf(rankMalformed, "a signature does not count: %w", err)
}
