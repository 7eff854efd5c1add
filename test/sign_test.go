package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdSign: `sign key FILE` makes a key pair, FILE and FILE.pub; `sign image FILE REPOSITORY DIGEST` signs as cosign's classic form does, and leaves the
// signature at the test's registry.
func cmdSign(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 2 && args[0] == "key":
		ts.Check(makeKey(ts.MkAbs(args[1])))
	case !neg && len(args) == 4 && args[0] == "image":
		ts.Check(signImage(ts.MkAbs(args[1]), args[2], args[3]))
	default:
		ts.Fatalf("usage: sign key FILE | sign image FILE REPOSITORY DIGEST")
	}
}

func makeKey(path string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644)
}

func signImage(key, repository, digest string) error {
	der, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	k, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return err
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		return err
	}
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	host, path, _ := strings.Cut(repository, "/")
	base := "http://" + host + "/v2/" + path
	var parts [2]descriptor
	for i, b := range [][]byte{[]byte("{}"), payload} {
		parts[i] = descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: len(b)}
		at, err := send("POST", base+"/blobs/uploads/", "", nil)
		if err != nil {
			return err
		}
		if !strings.Contains(at, "?") {
			at += "?"
		}
		if _, err := send("PUT", at+"&digest="+parts[i].Digest, "application/octet-stream", b); err != nil {
			return err
		}
	}
	parts[1].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	parts[1].Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)}
	const kind = "application/vnd.oci.image.manifest.v1+json"
	m, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]})
	if err != nil {
		return err
	}
	_, err = send("PUT", base+"/manifests/"+strings.Replace(digest, ":", "-", 1)+".sig", kind, m)
	return err
}

// send gives the answer's Location.
func send(method, to, contentType string, body []byte) (string, error) {
	r, err := http.NewRequest(method, to, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(io.LimitReader(res.Body, 4096)); res.StatusCode >= 300 {
		return "", fmt.Errorf("%s %s: %s %s", method, to, res.Status, text)
	}
	return res.Header.Get("Location"), nil
}
