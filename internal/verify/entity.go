package verify

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"wherry.dev/wherry/internal/evidence"
)

// entityOf puts a classic signature and what stands beside it into a bundle of the first version, which holds the same.
func entityOf(s *evidence.Signature, raw []byte) (*bundle.Bundle, error) {
	sum := sha256.Sum256(s.Blob)
	m := &protobundle.VerificationMaterial{}
	if s.Certificate == "" {
		m.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "key"}}
	} else {
		chain := &protocommon.X509CertificateChain{}
		for _, text := range []string{s.Certificate, s.Chain} {
			for rest := []byte(text); ; {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				chain.Certificates = append(chain.Certificates, &protocommon.X509Certificate{RawBytes: block.Bytes})
			}
		}
		if len(chain.Certificates) == 0 || len(chain.Certificates) > 8 {
			return nil, errors.New("its certificate is no PEM text, or one of very many")
		}
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}
	}
	if s.Log != "" {
		entry, err := logEntry(s.Log)
		if err != nil {
			return nil, fmt.Errorf("the log's promise: %w", err)
		}
		m.TlogEntries = append(m.TlogEntries, entry)
	}
	return bundle.NewBundle(&protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle+json;version=0.1",
		VerificationMaterial: m,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]}, Signature: raw,
		}},
	})
}

// promise is what Rekor gave for a signature, as cosign notes it.
type promise struct {
	SignedEntryTimestamp []byte
	Payload              struct {
		Body           string `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"`
	}
}

func logEntry(text string) (*protorekor.TransparencyLogEntry, error) {
	var p promise
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	body, err := base64.StdEncoding.DecodeString(p.Payload.Body)
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(p.Payload.LogID)
	if err != nil {
		return nil, err
	}
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(body, &kind); err != nil {
		return nil, err
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: p.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: p.Payload.IntegratedTime,
		KindVersion:      &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: p.SignedEntryTimestamp}, CanonicalizedBody: body,
	}, nil
}
