package mutual

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.pem, _, a.cert, a.key = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, time.Hour)
	return a
}

func (a *authority) make(c *x509.Certificate, lasts time.Duration) (certPEM, keyPEM []byte, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(lasts)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k}), cert, key
}

func (a *authority) server(name string, lasts time.Duration) (certPEM, keyPEM []byte) {
	c, k, _, _ := a.make(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, lasts)
	return c, k
}

func (a *authority) client(name string, lasts time.Duration) tls.Certificate {
	c, k, _, _ := a.make(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, lasts)
	pair, err := tls.X509KeyPair(c, k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// serve answers with the name of the client's certificate.
func serve(t *testing.T, f Files, log func(error)) string {
	t.Helper()
	listeners, err := Open(f, log)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := http.Server{ErrorLog: discard(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
	})}
	go func() { _ = s.Serve(listeners.On(inner)) }()
	t.Cleanup(func() { s.Close() })
	return inner.Addr().String()
}

// ask gives what the server says to a client with these certificates, or the error.
func ask(address string, config *tls.Config) string {
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport}).Get("https://" + address)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestWhoIsLetIn(t *testing.T) {
	dir := t.TempDir()
	f := Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	ca, other := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := ca.server("engine", time.Hour)
	write(t, f.CA, ca.pem)
	write(t, f.Cert, cert)
	write(t, f.Key, key)
	address := serve(t, f, func(err error) { t.Error(err) })
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	with := func(c ...tls.Certificate) *tls.Config { return &tls.Config{RootCAs: roots, Certificates: c} }
	old := with(ca.client("old", time.Hour))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	c, k := ca.server("a server", time.Hour)
	server, err := tls.X509KeyPair(c, k)
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"its own", with(ca.client("alice", time.Hour)), "alice"},
		{"no certificate", with(), "certificate required"},
		{"another authority's", with(other.client("alice", time.Hour)), "tls:"},
		{"one that has ended", with(ca.client("alice", -time.Hour)), "tls:"},
		{"one for servers", with(server), "tls:"},
		{"TLS 1.1", old, "protocol version"},
		{"a client that does not trust the engine", &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{ca.client("a", time.Hour)}}, "unknown authority"},
	}
	for _, row := range rows {
		if got := ask(address, row.config); got != row.want && (row.want == "alice" || !strings.Contains(got, row.want)) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	if r, err := http.Get("http://" + address); err == nil {
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s", r.Status)
		}
	}
}

// TestFilesAreReadAgain: a new authority and certificate count from the next connection on, damaged ones never.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	f := Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	put := func(a *authority) {
		cert, key := a.server("engine", time.Hour)
		write(t, f.CA, a.pem)
		write(t, f.Cert, cert)
		write(t, f.Key, key)
	}
	put(first)
	told := make(chan error, 100)
	address := serve(t, f, func(err error) { told <- err })
	as := func(a *authority) *tls.Config {
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{a.client("alice", time.Hour)}}
	}
	if got := ask(address, as(first)); got != "alice" {
		t.Fatal(got)
	}
	put(second)
	if got := ask(address, as(second)); got != "alice" {
		t.Errorf("after the change: %s", got)
	}
	if got := ask(address, as(first)); got == "alice" {
		t.Error("the authority that was replaced is still trusted")
	}
	write(t, f.Key, []byte("nonsense"))
	for range 2 {
		if got := ask(address, as(second)); got != "alice" {
			t.Errorf("with a damaged key: %s", got)
		}
	}
	if err := <-told; !strings.Contains(err.Error(), f.Key) || len(told) != 0 {
		t.Errorf("told %v and %d more", err, len(told))
	}
	if err := os.Remove(f.CA); err != nil {
		t.Fatal(err)
	}
	if got := ask(address, as(second)); got != "alice" {
		t.Errorf("without a file: %s", got)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	f := Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	ca := newAuthority(t, "ca")
	expect := func(want string) {
		t.Helper()
		if _, err := Open(f, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	expect(f.CA)
	cert, key := ca.server("engine", -time.Hour)
	write(t, f.CA, []byte("-----"))
	write(t, f.Cert, cert)
	write(t, f.Key, key)
	expect("no certificate in PEM form")
	write(t, f.CA, ca.pem)
	expect("the certificate ended at")
	_, foreign := ca.server("engine", time.Hour)
	write(t, f.Key, foreign)
	expect("private key does not match")
	if f.Exposed() {
		t.Error("a key of mode 0600 is exposed")
	}
	if err := os.Chmod(f.Key, 0o640); err != nil {
		t.Fatal(err)
	}
	if !f.Exposed() {
		t.Error("a key that a group may read is not exposed")
	}
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// listen is serve without a server.
func listen(t *testing.T, ca *authority) (net.Listener, Files) {
	t.Helper()
	dir := t.TempDir()
	f := Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	cert, key := ca.server("engine", time.Hour)
	write(t, f.CA, ca.pem)
	write(t, f.Cert, cert)
	write(t, f.Key, key)
	listeners, err := Open(f, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.On(inner)
	t.Cleanup(func() { l.Close() })
	return l, f
}

// TestStrangersTakeNothing: connections without a handshake are few, whoever opens them, and keep nobody out who has a certificate.
func TestStrangersTakeNothing(t *testing.T) {
	ca := newAuthority(t, "ours")
	l, _ := listen(t, ca)
	s := http.Server{ErrorLog: discard(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	const strangers = mostHandshakes + 100
	gone := make(chan bool, strangers)
	for i := range strangers {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 { // the beginning of a handshake
			_, _ = c.Write([]byte{22, 3, 1, 1, 0})
		}
		go func() {
			_, _ = c.Read(make([]byte, 1))
			gone <- true
		}()
	}
	for range 100 { // the oldest go for those that come
		<-gone
	}
	if got := ask(l.Addr().String(), &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{ca.client("alice", time.Hour)}}); got != "served" {
		t.Errorf("beside %d strangers: %s", strangers, got)
	}
	h := l.(*handshaker)
	h.mu.Lock()
	n := len(h.pending)
	h.mu.Unlock()
	if n > mostHandshakes {
		t.Errorf("%d connections have no handshake yet", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range strangers - 100 - 1 { // one went for alice
		<-gone
	}
}

// TestTrustEnds: a connection outlives neither its certificate nor the trust in its authority.
func TestTrustEnds(t *testing.T) {
	ca, other := newAuthority(t, "ours"), newAuthority(t, "theirs")
	l, f := listen(t, ca)
	state := func(from *authority, lasts time.Duration) *tls.ConnectionState {
		leaf, err := x509.ParseCertificate(from.client("alice", lasts).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	}
	trusts := func(s *tls.ConnectionState) error {
		return l.(interface {
			Trusts(*tls.ConnectionState) error
		}).Trusts(s)
	}
	if err := trusts(state(ca, time.Hour)); err != nil {
		t.Error(err)
	}
	if err := trusts(state(ca, -time.Minute)); err == nil {
		t.Error("a certificate that has ended is trusted")
	}
	if err := trusts(state(other, time.Hour)); err == nil {
		t.Error("another authority's is trusted")
	}
	if err := trusts(&tls.ConnectionState{}); err == nil {
		t.Error("none is trusted")
	}
	write(t, f.CA, other.pem)
	if err := trusts(state(ca, time.Hour)); err == nil {
		t.Error("an authority that was taken away is trusted")
	}
}
