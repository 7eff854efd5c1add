package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority makes certificates, in folders that docker's clients take: ca.pem, cert.pem, key.pem.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ca   []byte
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.ca, _ = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, time.Hour)
	return a
}

func (a *authority) sign(c *x509.Certificate, lasts time.Duration) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(a.t, err)
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour), time.Now().Add(lasts)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	ok(a.t, err)
	if a.cert == nil {
		a.key = k
		a.cert, err = x509.ParseCertificate(der)
		ok(a.t, err)
	}
	b, err := x509.MarshalECPrivateKey(k)
	ok(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b})
}

// folder writes one for a client that trusts the authority ca.
func (a *authority) folder(name string, ca []byte, lasts time.Duration) string {
	a.t.Helper()
	dir := filepath.Join(a.dir, name)
	ok(a.t, os.MkdirAll(dir, 0o700))
	cert, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, lasts)
	ok(a.t, os.WriteFile(dir+"/ca.pem", ca, 0o600), os.WriteFile(dir+"/cert.pem", cert, 0o600), os.WriteFile(dir+"/key.pem", key, 0o600))
	return dir
}

// TestEngineOnTCP: docker and wherry reach an engine over TLS, with a certificate that it trusts and with no other; what they may, and what is written
// down of them, goes by the certificate's name.
func TestEngineOnTCP(t *testing.T) {
	dir, err := os.MkdirTemp(shared.dir, "tls-")
	ok(t, err)
	ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
	cert, key := ours.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "engine"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, time.Hour)
	rules := "[[rule]]\ncertificate = \"alice\"\nmay = \"all\"\n[[rule]]\ncertificate = \"bob\"\nmay = \"own\"\n[[rule]]\nuid = 4321\nmay = \"read-only\"\n"
	ok(t, os.WriteFile(dir+"/ca.pem", ours.ca, 0o600), os.WriteFile(dir+"/engine.pem", cert, 0o600), os.WriteFile(dir+"/engine-key.pem", key, 0o600),
		os.WriteFile(dir+"/access.toml", []byte(rules), 0o644))
	e := newEngine(shared, filepath.Join(dir, "e"))
	e.args = []string{"--host", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", dir + "/ca.pem", "--tlscert", dir + "/engine.pem", "--tlskey", dir + "/engine-key.pem",
		"--access", dir + "/access.toml", "--group", "4321"}
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))

	as := func(client, folder string, args ...string) (string, int) {
		cmd := exec.Command(client, args...)
		if client == "wherry" {
			cmd.Path, cmd.Err = filepath.Join(shared.bin, client), nil
		}
		cmd.Env = append(os.Environ(), "DOCKER_HOST=tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+folder, "DOCKER_CONFIG="+folder)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	alice, bob := ours.folder("alice", ours.ca, time.Hour), ours.folder("bob", ours.ca, time.Hour)
	none := filepath.Join(dir, "none")
	ok(t, os.Mkdir(none, 0o700), os.WriteFile(none+"/ca.pem", ours.ca, 0o600))
	refused := map[string]string{"an authority that is not ours": theirs.folder("alice-of-theirs", ours.ca, time.Hour), "one that has ended": ours.folder("alice-of-old", ours.ca, -time.Hour),
		"no certificate": none, "an engine that the client does not trust": ours.folder("alice-careful", theirs.ca, time.Hour), "one without a right": ours.folder("mallory", ours.ca, time.Hour)}
	for _, client := range []string{"docker", "wherry"} {
		out, code := as(client, alice, "run", "--rm", "-i", "busybox:1", "echo", "over TLS")
		if code != 0 || strings.TrimSpace(out) != "over TLS" {
			t.Errorf("%s run: %d %s", client, code, out)
		}
		cmd := exec.Command("sh", "-c", fmt.Sprintf("echo words | %s run --rm -i busybox:1 cat", client)) // the end of input goes over too
		cmd.Env = append(os.Environ(), "PATH="+shared.bin+":"+os.Getenv("PATH"), "DOCKER_HOST=tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+alice)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "words" {
			t.Errorf("%s run -i: %v %s", client, err, out)
		}
		for name, folder := range refused {
			if out, code := as(client, folder, "ps"); code == 0 {
				t.Errorf("%s with %s: %s", client, name, out)
			}
		}
		if out, code := as(client, bob, "run", "-d", "--name", "bobs-"+client, "busybox:1", "sleep", "1000"); code != 0 {
			t.Errorf("%s as bob: %s", client, out)
		}
		if out, code := as(client, bob, "run", "--rm", "-v", "/:/host", "busybox:1", "true"); code != 125 || !strings.Contains(out, "mounts a path of the host") {
			t.Errorf("%s as bob, with the host's files: %d %s", client, code, out)
		}
	}
	if out, code := as("wherry", dir, "--host", "tcp://127.0.0.1:2376", "--tlscacert", alice+"/ca.pem", "--tlscert", alice+"/cert.pem", "--tlskey", alice+"/key.pem", "ps", "-q"); code != 0 || len(strings.Fields(out)) != 2 {
		t.Errorf("with flags: %d %s", code, out)
	}
	if out, _ := as("docker", bob, "ps", "--format", "{{.Names}}"); !strings.Contains(out, "bobs-docker") {
		t.Errorf("bob sees %s", out)
	}
	out, code := as("wherry", alice, "audit", "--user", "certificate:bob")
	if code != 0 || !strings.Contains(out, "certificate:bob@127.0.0.1") || !strings.Contains(out, "bobs-docker") || !strings.Contains(out, "→ 403") || strings.Contains(out, "certificate:alice") {
		t.Errorf("what bob did: %d %s", code, out)
	}
	if out, code := as("wherry", alice, "audit", "verify"); code != 0 || !strings.Contains(out, "are what was written") {
		t.Errorf("%d %s", code, out)
	}

	// A member of the group reaches the socket, and does what the rules let him do.
	cmd := exec.Command("docker", "ps", "-q")
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.host(), "DOCKER_CONFIG=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4321, Gid: 4321}}
	for at := e.dir; at != "/var/tmp" && at != "/"; at = filepath.Dir(at) {
		ok(t, os.Chmod(at, 0o711))
		defer os.Chmod(at, 0o700)
	}
	if b, err := cmd.CombinedOutput(); err != nil || len(strings.Fields(string(b))) != 2 {
		t.Errorf("a member of the group: %v %s", err, b)
	}

	// Whose authority is taken away does nothing more, on the connection that he has either.
	pair, err := tls.LoadX509KeyPair(alice+"/cert.pem", alice+"/key.pem")
	ok(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ours.ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	reused := false
	get := func() int {
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
		q, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", "https://127.0.0.1:2376/containers/json", nil)
		ok(t, err)
		r, err := transport.RoundTrip(q)
		ok(t, err)
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		return r.StatusCode
	}
	first := get()
	ok(t, os.WriteFile(dir+"/ca.pem", theirs.ca, 0o600))
	if second := get(); first != 200 || second != 403 || !reused {
		t.Errorf("on one connection (%v): %d, and %d when its authority is none any more", reused, first, second)
	}
}

// TestNoTCPWithoutCertificates: the engine does not start, and says what to do.
func TestNoTCPWithoutCertificates(t *testing.T) {
	out, err := exec.Command(filepath.Join(shared.bin, "wherryd"), "--host", "tcp://127.0.0.1:2375", "--root", t.TempDir(), "--state", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a port cannot tell who asks") || !strings.Contains(string(out), "--tlscacert") {
		t.Errorf("%v %s", err, out)
	}
}
