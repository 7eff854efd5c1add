package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"wherry.dev/wherry/internal/evidence"
)

const (
	here  = "registry.example/team/app"
	there = "registry.example/other/app"
)

func refused(t *testing.T, f evidence.Finding, why string) {
	t.Helper()
	if f.OK || !strings.Contains(f.Why, why) {
		t.Errorf("got %+v, want a refusal that says %q", f, why)
	}
}

func accepted(t *testing.T, f evidence.Finding, by string) {
	t.Helper()
	if !f.OK || f.By != by {
		t.Errorf("got %+v, want it signed by %s", f, by)
	}
}

func keyed(t *testing.T, k ...signingKey) evidence.Signer {
	s := evidence.Signer{Format: evidence.FormatSigstore}
	for i := range k {
		s.Keys = append(s.Keys, k[i].file(t, "key"+string(rune('0'+i))+".pub"))
	}
	return s
}

func TestClassicSignatures(t *testing.T) {
	k, stranger, d := newKey(t), newKey(t), anyDescriptor("image")
	s := keyed(t, stranger, k)
	good := classic(t, k, payloadFor(here, d.Digest))
	accepted(t, ask(t, d, s, good), "key1.pub")
	for name, k := range otherKeys(t) {
		t.Run(name, func(t *testing.T) {
			accepted(t, ask(t, d, keyed(t, k), classic(t, k, payloadFor(here, d.Digest))), "key0.pub")
		})
	}
	accepted(t, ask(t, d, s, classic(t, newKey(t), payloadFor(here, d.Digest)), good), "key1.pub")

	refused(t, ask(t, d, s), "there is no signature")
	refused(t, ask(t, d, s, classic(t, newKey(t), payloadFor(here, d.Digest))), "no signature is by these keys")
	refused(t, ask(t, d, s, classic(t, k, payloadFor(here, anyDescriptor("other").Digest))), "of other content")
	refused(t, ask(t, d, s, classic(t, k, payloadFor(there, d.Digest))), "signed for another name: "+there)
	refused(t, ask(t, d, s, classic(t, k, payloadFor("", d.Digest))), "signed for another name")
	swapped := good
	swapped.Blob = payloadFor(here, anyDescriptor("other").Digest)
	refused(t, ask(t, anyDescriptor("other"), s, swapped), "no signature is by these keys")
	refused(t, ask(t, d, s, classic(t, k, []byte(strings.Replace(string(payloadFor(here, d.Digest)), "cosign container image", "some other", 1)))), "is of type")
	refused(t, ask(t, d, s, classic(t, k, []byte(strings.Replace(string(payloadFor(here, d.Digest)), `"critical":{`, `"critical":{"more":1,`, 1)))), "not understood")
}

// What a signature claims to be made by is no ground to trust it: a key is a key of its kind, and no certificate of a stranger's counts.
func TestConfusion(t *testing.T) {
	k, d := newKey(t), anyDescriptor("image")
	s := keyed(t, k)
	body := payloadFor(here, d.Digest)
	ca := newNotaryCA(t, time.Now().Add(time.Hour))
	byCert := classic(t, signingKey{ca.leafKey}, body)
	byCert.Certificate, byCert.Chain = string(pemOf(ca.leaf)), string(pemOf(ca.cert))
	refused(t, ask(t, d, s, byCert), "")
	for name, sig := range map[string]string{
		"empty": "", "no base64": "%%%", "hmac with the public key": base64.StdEncoding.EncodeToString(k.file(t, "").Data),
		"zeros": base64.StdEncoding.EncodeToString([]byte{0x30, 6, 2, 1, 0, 2, 1, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, ask(t, d, s, evidence.Signature{Kind: evidence.Simple, Blob: body, Signature: sig}), "")
		})
	}
	for _, r := range []string{"rsa", "ed25519"} {
		refused(t, ask(t, d, keyed(t, otherKeys(t)[r]), classic(t, k, body)), "no signature is by these keys")
	}
	// The same bytes under another kind.
	as := classic(t, k, body)
	as.Kind = evidence.Bundle
	refused(t, ask(t, d, s, as), "malformed")
	as.Kind = evidence.Notation
	refused(t, ask(t, d, s, as), "another format")
}

func TestClaims(t *testing.T) {
	k, d := newKey(t), anyDescriptor("image")
	for _, c := range []struct {
		claims  evidence.Claims
		claimed string
		ok      bool
	}{
		{evidence.Claims{How: evidence.SameName}, here, true},
		{evidence.Claims{How: evidence.SameName}, here + ":2", true},
		{evidence.Claims{How: evidence.SameName}, there, false},
		{evidence.Claims{How: evidence.Exact}, here, false},
		{evidence.Claims{How: evidence.Exact}, here + ":1", true},
		{evidence.Claims{How: evidence.Exact}, here + ":2", false},
		{evidence.Claims{How: evidence.DigestOrExact}, here + ":1", true},
		{evidence.Claims{How: evidence.DigestOrExact}, here, false},
		{evidence.Claims{How: evidence.Repository, Value: there}, there + ":9", true},
		{evidence.Claims{How: evidence.Repository, Value: there}, here, false},
		{evidence.Claims{How: evidence.Reference, Value: there + ":9"}, there + ":9", true},
		{evidence.Claims{How: evidence.Reference, Value: there + ":9"}, there + ":8", false},
		{evidence.Claims{How: evidence.Remap, From: "registry.example", Value: "origin.example/x"}, "origin.example/x/team/app:1", true},
		{evidence.Claims{How: evidence.Remap, From: "registry.exam", Value: "origin.example/x"}, "origin.example/xple/team/app:1", false},
		{evidence.Claims{How: "made up"}, here, false},
		{evidence.Claims{How: evidence.SameName}, "Registry.Example:443/team/app", true},
		{evidence.Claims{How: evidence.SameName}, "registry.example:5000/team/app", false},
		{evidence.Claims{How: evidence.Repository, Value: "docker.io/library/debian"}, "index.docker.io/library/debian", true}, // as cosign writes it
		{evidence.Claims{How: evidence.Reference, Value: "docker.io/library/debian:12"}, "index.docker.io/library/debian:12", true},
	} {
		s := keyed(t, k)
		s.Claims = c.claims
		if f := ask(t, d, s, classic(t, k, payloadFor(c.claimed, d.Digest))); f.OK != c.ok {
			t.Errorf("%+v, claimed %s: %+v", c.claims, c.claimed, f)
		}
	}
}

func TestBundles(t *testing.T) {
	k, d := newKey(t), anyDescriptor("image")
	s := keyed(t, k)
	accepted(t, ask(t, d, s, bundled(t, k, statement(d.Digest, "", signPredicate))), "key0.pub")
	accepted(t, ask(t, d, s, bundled(t, k, statement(d.Digest, here, signPredicate))), "key0.pub")
	refused(t, ask(t, d, s, bundled(t, newKey(t), statement(d.Digest, "", signPredicate))), "no signature is by these keys")
	refused(t, ask(t, d, s, bundled(t, k, statement(anyDescriptor("other").Digest, "", signPredicate))), "")
	refused(t, ask(t, d, s, bundled(t, k, statement(d.Digest, there, signPredicate))), "signed for another name")
	// An attestation of the same key is about the image, and is not what the rule asks for.
	refused(t, ask(t, d, s, bundled(t, k, statement(d.Digest, "", "https://slsa.dev/provenance/v1"))), "slsa.dev")
	s.Claims.How = evidence.SameName
	refused(t, ask(t, d, s, bundled(t, k, statement(d.Digest, "", signPredicate))), "signed for no name")
	for name, blob := range map[string]string{
		"empty": "", "no object": "[]", "null": "null", "nothing in it": "{}",
		"a bomb": strings.Repeat(`{"verificationMaterial":`, 50_000), "deep lists": strings.Repeat("[", 1<<20),
		"half": string(bundled(t, k, statement(d.Digest, "", signPredicate)).Blob[:200]),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, ask(t, d, s, evidence.Signature{Kind: evidence.Bundle, Blob: []byte(blob)}), "malformed")
		})
	}
}

func TestNotation(t *testing.T) {
	ca, d := newNotaryCA(t, time.Now().Add(time.Hour)), anyDescriptor("image")
	s := evidence.Signer{Format: evidence.FormatNotation, Certificates: []evidence.File{ca.authority}}
	now := time.Now().Add(-time.Minute)
	for _, kind := range envelopeTypes {
		t.Run(kind, func(t *testing.T) {
			good := ca.envelope(t, kind, d, now, time.Time{})
			f := ask(t, d, s, good)
			accepted(t, f, ca.leaf.Subject.String())
			if !f.Until.Equal(ca.leaf.NotAfter) {
				t.Errorf("it counts until %s, the certificate until %s", f.Until, ca.leaf.NotAfter)
			}
			refused(t, ask(t, d, s, newNotaryCA(t, time.Now().Add(time.Hour)).envelope(t, kind, d, now, time.Time{})), "by these certificates")
			refused(t, ask(t, d, s, ca.envelope(t, kind, anyDescriptor("other"), now, time.Time{})), "of other content")
			refused(t, ask(t, d, s, ca.envelope(t, kind, d, now.Add(-time.Hour), now)), "expired")
			old := newNotaryCA(t, time.Now().Add(-time.Hour))
			olds := evidence.Signer{Format: evidence.FormatNotation, Certificates: []evidence.File{old.authority}}
			refused(t, ask(t, d, olds, old.envelope(t, kind, d, time.Now().Add(-2*time.Hour), time.Time{})), "expired")
			who := s
			who.Identities = []string{"C=NL, ST=UT, O=wharf, CN=releases"}
			accepted(t, ask(t, d, who, good), ca.leaf.Subject.String())
			who.Identities = []string{"C=NL, ST=UT, O=wharf, CN=somebody"}
			refused(t, ask(t, d, who, good), "by these certificates and identities")
			cut := good
			cut.Blob = cut.Blob[:len(cut.Blob)/2]
			refused(t, ask(t, d, s, cut), "malformed")
			for i, other := range envelopeTypes {
				if other != kind {
					as := good
					as.MediaType = envelopeTypes[i]
					refused(t, ask(t, d, s, as), "malformed")
				}
			}
		})
	}
}

func TestAnswersOneQuestion(t *testing.T) {
	k, d := newKey(t), anyDescriptor("image")
	q := evidence.Request{Name: here, Signers: []evidence.Signer{keyed(t, k), keyed(t, newKey(t))},
		Images: []evidence.Image{{Digest: d.Digest, Signatures: []evidence.Signature{classic(t, k, payloadFor(here, d.Digest))}}}}
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Main(t.Context(), bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	var a evidence.Answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || len(a.Findings) != 2 || !a.Findings[0].OK || a.Findings[1].OK {
		t.Errorf("%s %v", out.Bytes(), err)
	}
	if err := Main(t.Context(), strings.NewReader("{"), &out); err == nil {
		t.Error("half a question is answered")
	}
}

// FuzzJudge: no signature of a stranger's making counts, and none ends the process.
func FuzzJudge(f *testing.F) {
	k := newKey(f).file(f, "k")
	authority := newNotaryCA(f, time.Now().Add(time.Hour)).authority
	d := anyDescriptor("image")
	for _, kind := range []evidence.Kind{evidence.Simple, evidence.Bundle, evidence.Notation} {
		f.Add(string(kind), payloadFor(here, d.Digest), "application/jose+json", "MAYCAQACAQA=", "", `{"Payload":{"body":"e30="}}`)
	}
	f.Add("bundle", []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{}}`), "", "", "", "")
	f.Add("notation", []byte{0xd2, 0x84, 0x43, 0xa1, 1, 0x26}, "application/cose", "", "", "")
	f.Fuzz(func(t *testing.T, kind string, blob []byte, mediaType, sig, cert, log string) {
		s := evidence.Signature{Kind: evidence.Kind(kind), Blob: blob, MediaType: mediaType, Signature: sig, Certificate: cert, Log: log}
		for _, signer := range []evidence.Signer{
			{Format: evidence.FormatSigstore, Keys: []evidence.File{k}},
			{Format: evidence.FormatSigstore, Keys: []evidence.File{k}, Rekor: []evidence.File{k}},
			{Format: evidence.FormatNotation, Certificates: []evidence.File{authority}},
		} {
			if got := ask(t, d, signer, s); got.OK || strings.ContainsAny(got.Why, "\n\x1b") {
				t.Errorf("%+v", got)
			}
		}
	})
}
