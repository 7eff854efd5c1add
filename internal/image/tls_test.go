package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	registrytypes "github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/registry"
)

// authority makes a private certificate authority and a certificate of it for an address.
func authority(t *testing.T, address string) (ca []byte, server tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
}

// TestPrivateAuthority: with its certificate where Docker looks for it, a registry's own authority is trusted, for its token service too.
func TestPrivateAuthority(t *testing.T) {
	ca, certificate := authority(t, "0.0.0.0")
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": configuration.Parameters{}}}
	config.HTTP.Secret, config.Log.Level = "only for this test", "error"
	app, tokens := handlers.NewApp(t.Context(), config), &tokenService{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			tokens.ServeHTTP(w, r)
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+r.Host+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			app.ServeHTTP(w, r)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	defer server.Close()
	host := everywhere(strings.TrimPrefix(server.URL, "https://"))
	auth := &registrytypes.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}
	s := open(t)
	imported(t, s, host+"/a/b:1", file1("a", "b"))
	if err := s.Push(t.Context(), host+"/a/b:1", TransferOptions{Auth: auth}); err == nil || !strings.Contains(err.Error(), "certs.d/"+host) || tokens.all() != "" {
		t.Fatalf("without the authority: %v; the token service heard %q", err, tokens.all())
	}
	certs := t.TempDir()
	if err := os.Mkdir(filepath.Join(certs, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, host, "ca.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	s.registries = reach(registry.Options{HostDirs: []string{certs}})
	if err := s.Push(t.Context(), host+"/a/b:1", TransferOptions{Auth: auth}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Login(t.Context(), *auth); err != nil || got.IdentityToken != "identity" {
		t.Fatalf("%+v %v", got, err)
	}
	fresh := open(t)
	fresh.registries = s.registries
	if err := fresh.Pull(t.Context(), host+"/a/b:1", TransferOptions{Auth: auth}); err != nil {
		t.Fatal(err)
	}
}

// TestStalledDownloads: a registry that stops in the middle of a layer is left and asked again for the rest; one that never goes on ends
// the pull with its reason.
func TestStalledDownloads(t *testing.T) {
	for _, comesBack := range []bool{true, false} {
		s := open(t)
		s.registries = reach(registry.Options{Patience: 100 * time.Millisecond})
		h := newHostile(t)
		plain := layer(t, file1("big", strings.Repeat("0123456789", 30000))).Bytes()
		h.setLayer("application/vnd.oci.image.layer.v1.tar", plain, plain)
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, sum(plain)) {
				h.ServeHTTP(w, r)
				return
			}
			if asked.Add(1) > 1 && comesBack {
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(plain)))
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(plain)))
			_, _ = w.Write(plain[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{})
		server.Close()
		if comesBack && err != nil || !comesBack && (err == nil || !strings.Contains(err.Error(), "has sent nothing for")) {
			t.Errorf("comes back %v: %v", comesBack, err)
		}
		if n := asked.Load(); comesBack && n != 2 {
			t.Errorf("asked %d times", n)
		}
	}
}
