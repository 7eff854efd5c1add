package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/evidence"
)

// signingKey is a key pair, as cosign makes one.
type signingKey struct{ crypto.Signer }

func newKey(t testing.TB) signingKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{k}
}

func (k signingKey) file(t testing.TB, name string) evidence.File {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return evidence.File{Name: name, Data: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

func (k signingKey) sign(t *testing.T, message []byte) []byte {
	t.Helper()
	var options crypto.SignerOpts = crypto.SHA256
	sum := sha256.Sum256(message)
	input := sum[:]
	if _, ok := k.Signer.(ed25519.PrivateKey); ok {
		options, input = crypto.Hash(0), message
	}
	sig, err := k.Sign(rand.Reader, input, options)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// otherKeys are of the other kinds that cosign can use.
func otherKeys(t *testing.T) map[string]signingKey {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]signingKey{"rsa": {r}, "ed25519": {e}}
}

// payloadFor is what cosign signs in its classic form.
func payloadFor(reference string, d digest.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		reference, d)
}

func classic(t *testing.T, k signingKey, body []byte) evidence.Signature {
	t.Helper()
	return evidence.Signature{Kind: evidence.Simple, Blob: body, Signature: base64.StdEncoding.EncodeToString(k.sign(t, body))}
}

// statement is what cosign signs in a bundle.
func statement(d digest.Digest, name, predicate string) []byte {
	b, _ := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": map[string]any{},
		"subject": []any{map[string]any{"name": name, "digest": map[string]string{"sha256": d.Encoded()}}},
	})
	return b
}

// bundled is a bundle of version 0.3 with a statement that a key has signed (the DSSE protocol).
func bundled(t *testing.T, k signingKey, body []byte) evidence.Signature {
	t.Helper()
	const kind = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(body), body)
	b, err := json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "x"}},
		"dsseEnvelope": map[string]any{"payload": base64.StdEncoding.EncodeToString(body), "payloadType": kind,
			"signatures": []any{map[string]any{"sig": base64.StdEncoding.EncodeToString(k.sign(t, pae))}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Signature{Kind: evidence.Bundle, Blob: b, MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json"}
}

// notaryCA is an authority, with somebody whom it has certified.
type notaryCA struct {
	key       *ecdsa.PrivateKey
	cert      *x509.Certificate
	leafKey   *ecdsa.PrivateKey
	leaf      *x509.Certificate
	authority evidence.File
}

func newNotaryCA(t testing.TB, until time.Time) *notaryCA {
	t.Helper()
	c := &notaryCA{key: newKey(t).Signer.(*ecdsa.PrivateKey), leafKey: newKey(t).Signer.(*ecdsa.PrivateKey)}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"NL"}, Province: []string{"UT"}, Organization: []string{"wharf"}, CommonName: "root"},
		NotBefore: time.Now().Add(-72 * time.Hour), NotAfter: time.Now().Add(72 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	make := func(template, parent *x509.Certificate, public any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, c.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	c.cert = make(root, root, c.key.Public())
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"NL"}, Province: []string{"UT"}, Organization: []string{"wharf"}, CommonName: "releases"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true}
	c.leaf = make(leaf, c.cert, c.leafKey.Public())
	c.authority = evidence.File{Name: "wharf.pem", Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})}
	return c
}

// envelope signs an image as notation does.
func (c *notaryCA) envelope(t *testing.T, kind string, d ocispec.Descriptor, at, expiry time.Time) evidence.Signature {
	t.Helper()
	signer, err := signature.NewLocalSigner([]*x509.Certificate{c.leaf, c.cert}, c.leafKey)
	if err != nil {
		t.Fatal(err)
	}
	env, err := signature.NewEnvelope(kind)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"targetArtifact": ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Sign(&signature.SignRequest{Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: body}, Signer: signer,
		SigningTime: at, Expiry: expiry, SigningScheme: signature.SigningSchemeX509, SigningAgent: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Signature{Kind: evidence.Notation, Blob: b, MediaType: kind}
}

var envelopeTypes = []string{jws.MediaTypeEnvelope, cose.MediaTypeEnvelope}

func anyDescriptor(text string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text))}
}

func ask(t *testing.T, d ocispec.Descriptor, s evidence.Signer, signatures ...evidence.Signature) evidence.Finding {
	t.Helper()
	a := Judge(t.Context(), &evidence.Request{Name: "registry.example/team/app", Tag: "1", Signers: []evidence.Signer{s},
		Images: []evidence.Image{{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Signatures: signatures}}})
	if len(a.Findings) != 1 {
		t.Fatalf("%d findings for a signer", len(a.Findings))
	}
	return a.Findings[0]
}

func pemOf(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
