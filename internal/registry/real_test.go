package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/moby/moby/api/types/registry"
	"golang.org/x/crypto/bcrypt"
)

// keys are a private authority's: a server's and a client's certificate, and one that token services sign with.
type keys struct {
	dir                string
	ca, client, signer string // files; the client's and signer's keys lie beside them, as .key
	server             tls.Certificate
	sign               *ecdsa.PrivateKey
	signDER            []byte
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	k := &keys{dir: t.TempDir()}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	n := int64(1)
	make := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey, usage x509.ExtKeyUsage) (string, *ecdsa.PrivateKey, []byte) {
		n++
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := root
		if by == nil {
			by = key
		} else {
			c = &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4zero, net.IPv4(127, 0, 0, 1)}}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(k.dir, name)
		for f, b := range map[string]*pem.Block{file + ".crt": {Type: "CERTIFICATE", Bytes: der}, file + ".key": {Type: "EC PRIVATE KEY", Bytes: raw}} {
			if err := os.WriteFile(f, pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return file + ".crt", key, der
	}
	var caKey *ecdsa.PrivateKey
	k.ca, caKey, _ = make("ca", root, nil, 0)
	k.client, _, _ = make("client", root, caKey, x509.ExtKeyUsageClientAuth)
	_, serverKey, serverDER := make("server", root, caKey, x509.ExtKeyUsageServerAuth)
	k.server = tls.Certificate{Certificate: [][]byte{serverDER}, PrivateKey: serverKey}
	k.signer, k.sign, k.signDER = make("signer", root, caKey, x509.ExtKeyUsageAny)
	return k
}

// certs writes a registry's folder as Docker has it, with or without the client's certificate.
func (k *keys) certs(t *testing.T, host string, client bool) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"ca.crt": k.ca}
	if client {
		files["client.cert"], files["client.key"] = k.client, strings.TrimSuffix(k.client, ".crt")+".key"
	}
	if err := os.Mkdir(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, host, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (k *keys) clientPool(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(k.ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return pool
}

// token signs what a registry believes. https://distribution.github.io/distribution/spec/auth/jwt/
func (k *keys) token(user string, scopes []string) (string, error) {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, s := range scopes {
		parts := strings.SplitN(s, ":", 3)
		if len(parts) != 3 {
			continue
		}
		var actions []string
		for a := range strings.SplitSeq(parts[2], ",") {
			if user != "" || a == "pull" && strings.HasPrefix(parts[1], "public/") {
				actions = append(actions, a)
			}
		}
		granted = append(granted, access{parts[0], parts[1], actions})
	}
	now := time.Now().Unix()
	head, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(k.signDER)}})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iss": "issuer", "sub": user, "aud": "service", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": fmt.Sprint(now), "access": granted})
	if err != nil {
		return "", err
	}
	e := base64.RawURLEncoding
	text := e.EncodeToString(head) + "." + e.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.sign, sum[:])
	if err != nil {
		return "", err
	}
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return text + "." + e.EncodeToString(sig), nil
}

// ServeHTTP is a token service: a password or an identity token is asked for, and whoever has none may read what is public.
func (k *keys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	user, password, basic := r.BasicAuth()
	scopes := r.Form["scope"]
	switch {
	case r.Method == http.MethodPost && r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") == "identity":
		user, scopes = "me", strings.Fields(r.PostForm.Get("scope"))
	case r.Method == http.MethodPost || basic && (user != "me" || password != "secret") || r.Form.Get("service") != "service":
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token, err := k.token(user, scopes)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	answer := map[string]any{"token": token, "access_token": token, "expires_in": 300}
	if r.Form.Get("offline_token") == "true" && user != "" {
		answer["refresh_token"] = "identity"
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (k *keys) passwords(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(k.dir, "htpasswd")
	if err := os.WriteFile(file, []byte("me:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// front serves TLS for a registry and its token service, and wants a client's certificate.
func (k *keys) front(t *testing.T) (server *httptest.Server, host string) {
	t.Helper()
	server = httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{k.server}, ClientCAs: k.clientPool(t), ClientAuth: tls.RequireAndVerifyClientCert}
	server.Config.ErrorLog = discardLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, "0.0.0.0:" + portOf(server.Listener.Addr().String(), "")
}

// version3 is distribution's current registry, in process.
func version3(t *testing.T, k *keys, auth configuration.Auth) http.Handler {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": configuration.Parameters{}}, Auth: auth}
	config.HTTP.Secret = "only for this test"
	return handlers.NewApp(t.Context(), config)
}

// version2 is Debian's docker-registry, a process of its own, without TLS.
func version2(t *testing.T, auth string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q, secret: x}\n%s", filepath.Join(dir, "data"), address, auth)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (test/tools.sh installs it)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return address
		}
		if time.Now().After(end) {
			t.Fatalf("docker-registry does not listen: %v\n%s", err, &said)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func proxied(t *testing.T, address string) http.Handler {
	t.Helper()
	return &httputil.ReverseProxy{ErrorLog: discardLog(), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host
		r.Out.Header.Set("X-Forwarded-Proto", "https")
	}}
}

// TestRealServers: two implementations of a registry, by TLS with a private authority and client certificates, with passwords and with
// tokens that they check themselves.
func TestRealServers(t *testing.T) {
	for _, server := range []string{"version2", "version3"} {
		for _, how := range []string{"htpasswd", "token"} {
			t.Run(server+"/"+how, func(t *testing.T) {
				k := newKeys(t)
				front, host := k.front(t)
				values := configuration.Parameters{"realm": "https://" + host + "/token", "service": "service", "issuer": "issuer", "rootcertbundle": k.ca}
				if how == "htpasswd" {
					values = configuration.Parameters{"realm": "here", "path": k.passwords(t)}
				}
				var h http.Handler
				if server == "version3" {
					h = version3(t, k, configuration.Auth{how: values})
				} else {
					b, err := json.Marshal(map[string]any{how: values})
					if err != nil {
						t.Fatal(err)
					}
					h = proxied(t, version2(t, "auth: "+string(b)+"\n"))
				}
				mux := http.NewServeMux()
				mux.Handle("/", h)
				mux.Handle("/token", k)
				front.Config.Handler = mux
				realServer(t, k, host, how == "token")
			})
		}
	}
}

func realServer(t *testing.T, k *keys, host string, tokens bool) {
	img := imageOf(sample(3 << 20))
	me := registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}
	push := func(name string, dirs string, auth *registry.AuthConfig, from ...string) (Outcome, error) {
		return img.push(t.Context(), quick(Options{HostDirs: []string{dirs}}).Client(t.Context(), parsed(t, host+"/"+name), auth), from...)
	}
	certs := k.certs(t, host, true)
	refusal := "(no basic auth credentials)"
	if tokens {
		refusal = "access denied"
	}
	for what, row := range map[string]struct {
		dirs string
		auth *registry.AuthConfig
		says string
	}{
		"an unknown authority":    {t.TempDir(), &me, "not trusted"},
		"no client's certificate": {k.certs(t, host, false), &me, "client's certificate"},
		"no login":                {certs, nil, refusal},
		"a wrong password":        {certs, &registry.AuthConfig{Username: "me", Password: "no", ServerAddress: host}, "access denied"},
	} {
		_, err := push("team/base:1", row.dirs, row.auth)
		if err = Explain("push x", host, err); err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("with %s: %v", what, err)
		}
	}
	if _, err := push("team/base:1", certs, &me); err != nil {
		t.Fatal(err)
	}
	if how, err := push("team/app:1", certs, &me, "team/base"); err != nil || how.Mounted != "team/base" {
		t.Errorf("lent: %+v %v", how, err)
	}
	pool := quick(Options{HostDirs: []string{certs}})
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/app:1"), &me)); err != nil {
		t.Error(err)
	}
	if tags, err := pool.Client(t.Context(), parsed(t, host+"/team/app:1"), &me).Tags(t.Context()); err != nil || len(tags) != 1 || tags[0] != "1" {
		t.Errorf("tags: %q %v", tags, err)
	}
	got, err := pool.Login(t.Context(), me)
	if err != nil || (got.IdentityToken == "identity") != tokens {
		t.Errorf("login: %+v %v", got, err)
	}
	wrong := me
	wrong.Password = "no"
	if _, err := pool.Login(t.Context(), wrong); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
	if !tokens {
		return
	}
	identity := &registry.AuthConfig{IdentityToken: "identity", ServerAddress: host}
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/app:1"), identity)); err != nil {
		t.Errorf("by an identity token: %v", err)
	}
	if _, err := push("public/app:1", certs, identity); err != nil {
		t.Error(err)
	}
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/public/app:1"), nil)); err != nil {
		t.Errorf("as nobody: %v", err)
	}
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/app:1"), nil)); err == nil {
		t.Error("nobody reads what is not public")
	}
}

// TestBrokenUploadToDebiansRegistry: the older implementation gives up an upload that breaks, and says so when it is asked how far it is:
// it is sent anew, and comes whole.
func TestBrokenUploadToDebiansRegistry(t *testing.T) {
	img := imageOf(sample(8 << 20))
	cuts := 0
	c := &counted{next: proxied(t, version2(t, ""))}
	c.cut = func(r *http.Request) int64 {
		if cuts == 2 || r.ContentLength < 1<<20 {
			return -1
		}
		cuts++
		return 3 << 20
	}
	log := &record{next: c}
	client := quick(Options{Pause: 100 * time.Millisecond}).Client(t.Context(), parsed(t, served(t, log)+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), client); err != nil {
		t.Fatalf("%v\n%s", err, log.all())
	}
	if err := img.pull(t.Context(), client); err != nil {
		t.Error(err)
	}
	if n := c.got.Load(); n > 8<<20+2*(3<<20)+64<<10 || cuts != 2 {
		t.Errorf("%d bytes were sent, %d breaks\n%s", n, cuts, log.all())
	}
}
