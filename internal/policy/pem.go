package policy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"wherry.dev/wherry/internal/evidence"
)

// checkPEM finds a damaged or wrong file when the policy is read, and not when an image is refused for it.
func checkPEM(f evidence.File, kind string) error {
	rest, n := f.Data, 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		var err error
		switch kind {
		case "keys", "rekor":
			err = checkKey(block)
		default:
			_, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	switch {
	case n == 0:
		return fmt.Errorf("%s is no PEM file", f.Name)
	case n > 1 && (kind == "keys" || kind == "rekor"):
		return fmt.Errorf("%s has %d keys: one a file", f.Name, n)
	}
	return nil
}

func checkKey(block *pem.Block) error {
	if block.Type != "PUBLIC KEY" {
		return fmt.Errorf("a %q is there, a \"PUBLIC KEY\" is wanted", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("an RSA key of %d bits: 2048 are the least", k.N.BitLen())
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of the kind %T are not supported", key)
	}
	return nil
}
