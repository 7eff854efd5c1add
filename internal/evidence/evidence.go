// Package evidence is what the engine and wherry-verify say to each other: signatures, who may have made them, and what was found.
//
// The engine starts the helper for one question, which is one JSON document on its standard input, and reads one on its standard output:
//
//	wherryd                         wherry-verify
//	  ── Request ──────────────────▶  judges each signer's signatures
//	  ◀────────────────── Answer ──   ends
//
// The helper opens no file and no connection: keys and certificates are in the request. Values only; nothing is kept.
package evidence

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Bounds of what strangers send. What is beyond them does not count.
const (
	MaxSignatures = 64       // of one kind, for one digest, in a request
	MaxTried      = 1024     // of one kind, for one digest, in all
	MaxFetched    = 32 << 20 // bytes of those
	MaxBlob       = 1 << 20  // bytes of a manifest, payload, bundle or envelope
	MaxTotal      = 9 << 20  // bytes of an image's signatures in a request, a third for each kind
	MaxRequest    = 32 << 20 // bytes, in JSON
	MaxAnswer     = 1 << 20
)

// Request is one question.
type Request struct {
	Name    string // what the image is asked for by: registry/repository
	Tag     string // "" where it is asked for by digest
	Images  []Image
	Signers []Signer
}

// Image is a manifest or index, with what is said to be its signatures. An image is signed when the index that it is part of is.
type Image struct {
	MediaType  string
	Digest     digest.Digest
	Size       int64
	Signatures []Signature
}

// Kind is a format of signatures.
type Kind string

// Kinds.
const (
	Simple   Kind = "simple"   // cosign's payload, beside its signature
	Bundle   Kind = "bundle"   // sigstore's bundle
	Notation Kind = "notation" // the Notary Project's envelope
)

// Signature is one, as it was fetched: nothing is known of it.
type Signature struct {
	Kind      Kind
	Blob      []byte // payload, bundle or envelope
	MediaType string // of an envelope
	Signature string `json:",omitempty"` // of a payload, in base64
	// What stands beside a payload that somebody signed with a certificate (PEM), and the log's promise (JSON).
	Certificate, Chain, Log string `json:",omitempty"`
}

// Format says which tools' signatures a signer makes.
type Format string

// Formats.
const (
	FormatSigstore Format = "sigstore"
	FormatNotation Format = "notation"
)

// File is a file's name and content.
type File struct {
	Name string
	Data []byte
}

// Signer is somebody whose signature counts. Sigstore's is known by one of Keys, or by Identity and Issuer; notation's by Certificates.
type Signer struct {
	Format Format
	Claims Claims

	Keys []File // PEM

	Identity        string // a certificate's subject: mail address or URI
	IdentityPattern string // or a regular expression, of the whole
	Issuer          string // who vouches for it: URL of the OpenID provider
	TrustRoot       File   // sigstore's trusted_root.json, or
	Fulcio          []File // authorities (PEM), and
	Rekor           []File // keys of logs (PEM); with Keys: the log has to have the signature, too

	Certificates []File   // PEM: what a signature's chain begins with
	TimeStampers []File   // PEM: whose time stamps prove that a signature is older than its certificate's end
	Identities   []string // distinguished names of which the signing certificate has one; none: any from Certificates
}

// Claims is which name a signature has to be made for.
type Claims struct {
	How   How
	Value string // of Repository, Reference
	From  string // of Remap: what Value stands in place of
}

// How a claimed name is compared.
type How string

// Ways to compare.
const (
	Same          How = ""                // the repository, if one is claimed: bundles and envelopes claim a digest only
	SameName      How = "repository"      // the repository
	Exact         How = "exact"           // repository and tag
	DigestOrExact How = "digest-or-exact" // repository and tag; the repository, where the image is asked for by digest
	Repository    How = "this-repository" // the repository Value
	Reference     How = "this-reference"  // exactly Value
	Remap         How = "remap"           // digest-or-exact, with From at the name's beginning replaced by Value
)

// Match says whether a claimed reference, registry/repository[:tag|@digest], is one that c wants for an image.
func (c Claims) Match(claimed, name, tag string) bool {
	claimed, name = Canonical(claimed), Canonical(name)
	c.Value, c.From = Canonical(c.Value), Canonical(c.From)
	repo, claimedTag := Split(claimed)
	switch c.How {
	case Same, SameName:
		return repo == name
	case Exact:
		return repo == name && tag != "" && claimedTag == tag
	case Remap:
		if name == c.From || strings.HasPrefix(name, c.From+"/") {
			name = c.Value + strings.TrimPrefix(name, c.From)
		}
		return repo == name && (tag == "" || claimedTag == tag)
	case DigestOrExact:
		return repo == name && (tag == "" || claimedTag == tag)
	case Repository:
		return repo == c.Value
	case Reference:
		return claimed == c.Value
	}
	return false
}

// Canonical spells the registry at a name's beginning in one way: a host is the same in upper case and with the port that it has anyway, and
// Docker Hub has several, of which cosign writes another than everybody else.
func Canonical(name string) string {
	host, rest, more := strings.Cut(name, "/")
	if !more && !strings.Contains(host, ".") {
		return name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if more {
		host += "/"
	}
	return host + rest
}

// Want says in words which name has to be claimed.
func (c Claims) Want(name, tag string) string {
	switch c.How {
	case Repository, Reference:
		return c.Value
	case Exact, DigestOrExact:
		if tag != "" {
			return name + ":" + tag
		}
	case Remap:
		if name == c.From || strings.HasPrefix(name, c.From+"/") {
			name = c.Value + strings.TrimPrefix(name, c.From)
		}
		if tag != "" {
			return name + ":" + tag
		}
	}
	return name
}

// Split parts a reference's name from its tag. A digest is neither.
func Split(reference string) (name, tag string) {
	name, _, _ = strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// String names a signer as errors do.
func (s Signer) String() string {
	var names []string
	switch {
	case s.Format == FormatNotation:
		for _, f := range s.Certificates {
			names = append(names, f.Name)
		}
		if len(s.Identities) > 0 {
			return fmt.Sprintf("notation: %s by %s", strings.Join(s.Identities, " or "), strings.Join(names, ", "))
		}
	case len(s.Keys) > 0:
		for _, f := range s.Keys {
			names = append(names, f.Name)
		}
	default:
		who := s.Identity
		if who == "" {
			who = "/" + s.IdentityPattern + "/"
		}
		return fmt.Sprintf("sigstore: %s of %s", who, s.Issuer)
	}
	return fmt.Sprintf("%s: %s", s.Format, strings.Join(names, " or "))
}

// Answer is what was found, in the order of the request's signers. Error is why nothing could be judged.
type Answer struct {
	Findings []Finding
	Error    string `json:",omitempty"`
}

// Finding is what was found of one signer.
type Finding struct {
	OK    bool
	By    string    `json:",omitempty"` // who signed: a key's file, an identity, a certificate's name
	Why   string    `json:",omitempty"` // not OK: what is wrong with what came nearest
	Until time.Time `json:",omitzero"`  // when the signature's certificate ends, where that counts

	Image, Signature int // OK: which of the request's images, and of its signatures, it was
}
