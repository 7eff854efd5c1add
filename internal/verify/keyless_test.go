package verify

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"wherry.dev/wherry/internal/evidence"
)

const (
	who    = "release@wharf.example"
	issuer = "https://login.wharf.example"
)

// fulcio is a sigstore of the test's own: an authority and a log.
type fulcio struct {
	*ca.VirtualSigstore
	t *testing.T
}

func newFulcio(t *testing.T) *fulcio {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	ok(t, err)
	return &fulcio{v, t}
}

// signer is a rule that trusts it, by PEM files.
func (f *fulcio) signer() evidence.Signer {
	f.t.Helper()
	a := f.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	s := evidence.Signer{Format: evidence.FormatSigstore, Identity: who, Issuer: issuer, Fulcio: []evidence.File{{Name: "fulcio.pem", Data: pemOf(append(a.Intermediates, a.Root)...)}}}
	for _, l := range f.RekorLogs() {
		der, err := x509.MarshalPKIXPublicKey(l.PublicKey)
		ok(f.t, err)
		s.Rekor = append(s.Rekor, evidence.File{Name: "rekor.pub", Data: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})})
	}
	return s
}

// classic signs as cosign does for somebody who has logged in: with a certificate of minutes, and the log's promise.
func (f *fulcio) classic(by string, body []byte) evidence.Signature {
	f.t.Helper()
	e, err := f.Sign(by, issuer, body)
	ok(f.t, err)
	content, err := e.SignatureContent()
	ok(f.t, err)
	vc, err := e.VerificationContent()
	ok(f.t, err)
	entries, err := e.TlogEntries()
	ok(f.t, err)
	entry := entries[0].TransparencyLogEntry()
	id, err := f.RekorLogID()
	ok(f.t, err)
	p := tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(entry.CanonicalizedBody), IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: id}
	set, err := f.RekorSignPayload(p)
	ok(f.t, err)
	log, err := json.Marshal(map[string]any{"SignedEntryTimestamp": set, "Payload": p})
	ok(f.t, err)
	return evidence.Signature{Kind: evidence.Simple, Blob: body, Signature: base64.StdEncoding.EncodeToString(content.Signature()),
		Certificate: string(pemOf(vc.Certificate())), Log: string(log)}
}

func TestKeyless(t *testing.T) {
	f, d := newFulcio(t), anyDescriptor("image")
	body := payloadFor(here, d.Digest)
	s, good := f.signer(), f.classic(who, body)
	accepted(t, ask(t, d, s, good), who+" of "+issuer)

	pattern := s
	pattern.Identity, pattern.IdentityPattern = "", `.*@wharf\.example`
	accepted(t, ask(t, d, pattern, good), who+" of "+issuer)
	pattern.IdentityPattern = "release" // of the whole, not of a part
	refused(t, ask(t, d, pattern, good), "another identity")

	refused(t, ask(t, d, s, f.classic("somebody@wharf.example", body)), "another identity")
	other := s
	other.Issuer = "https://elsewhere.example"
	refused(t, ask(t, d, other, good), "another identity")
	refused(t, ask(t, d, s, newFulcio(t).classic(who, body)), "log's proof")
	mixed := newFulcio(t).signer() // the right log, of another authority
	mixed.Rekor = s.Rekor
	refused(t, ask(t, d, mixed, good), "this trust root")
	refused(t, ask(t, d, s, f.classic(who, payloadFor(there, d.Digest))), "another name")
	refused(t, ask(t, d, s, f.classic(who, payloadFor(here, anyDescriptor("other").Digest))), "other content")

	unlogged := good
	unlogged.Log = ""
	refused(t, ask(t, d, s, unlogged), "log's proof")
	swapped := good // a promise that is about another signature
	swapped.Log = f.classic(who, payloadFor(here, anyDescriptor("other").Digest)).Log
	refused(t, ask(t, d, s, swapped), "")
	bare := classic(t, newKey(t), body)
	bare.Log = good.Log
	refused(t, ask(t, d, s, bare), "")
	k := newKey(t)
	refused(t, ask(t, d, keyed(t, k), good), "no signature is by these keys")
}

func TestTrustRootFile(t *testing.T) {
	f, d := newFulcio(t), anyDescriptor("image")
	good := f.classic(who, payloadFor(here, d.Digest))
	with := func(ct map[string]*root.TransparencyLog) evidence.Signer {
		logs := f.RekorLogs()
		for id, l := range logs {
			l.ID = mustHex(t, id)
		}
		for id, l := range ct {
			l.ID, l.SignatureHashFunc = mustHex(t, id), l.HashFunc
		}
		r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, f.FulcioCertificateAuthorities(), ct, nil, logs)
		ok(t, err)
		b, err := r.MarshalJSON()
		ok(t, err)
		return evidence.Signer{Format: evidence.FormatSigstore, Identity: who, Issuer: issuer, TrustRoot: evidence.File{Name: "trusted_root.json", Data: b}}
	}
	accepted(t, ask(t, d, with(nil), good), who+" of "+issuer)
	// Where the trust root has logs of certificates, a certificate has to be in one.
	refused(t, ask(t, d, with(f.CTLogs()), good), "signed certificate timestamp")
	s := with(nil)
	s.TrustRoot.Data = s.TrustRoot.Data[:100]
	refused(t, ask(t, d, s, good), "trust root")
}

// A key's signature that has to stand in a log, too.
func TestKeyInLog(t *testing.T) {
	f, k, d := newFulcio(t), newKey(t), anyDescriptor("image")
	s := keyed(t, k)
	s.Rekor = f.signer().Rekor
	sig := classic(t, k, payloadFor(here, d.Digest))
	refused(t, ask(t, d, s, sig), "log's proof")
	sig.Log = f.classic(who, payloadFor(here, d.Digest)).Log // of the same content, by somebody else
	refused(t, ask(t, d, s, sig), "")
}
