package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// TLS names the files for an engine at tcp://host:port, in PEM form. Empty ones are ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH, or else in
// the folder of Docker's configuration.
type TLS struct{ CA, Cert, Key string }

// secure is how an engine is reached over the network: by TLS, with certificates of both sides.
type secure struct {
	address string
	files   TLS
}

// tcpAddress is the host:port of tcp://host[:port].
func tcpAddress(host string) (string, bool) {
	rest, ok := strings.CutPrefix(host, "tcp://")
	if !ok {
		return "", false
	}
	rest = strings.TrimSuffix(rest, "/")
	if _, _, err := net.SplitHostPort(rest); err != nil {
		rest = net.JoinHostPort(strings.Trim(rest, "[]"), "2376")
	}
	return rest, true
}

func (t TLS) complete() TLS {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = os.Getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		home, _ := os.UserHomeDir()
		dir = filepath.Join(home, ".docker")
	}
	for name, path := range map[string]*string{"ca.pem": &t.CA, "cert.pem": &t.Cert, "key.pem": &t.Key} {
		if *path == "" {
			*path = filepath.Join(dir, name)
		}
	}
	return t
}

// dial connects, and ends the handshake: errors of certificates come from here.
func (s *secure) dial(ctx context.Context) (net.Conn, error) {
	ca, err := os.ReadFile(s.files.CA)
	if err != nil {
		return nil, &startError{"read the authority that the engine's certificate is of (--tlscacert, DOCKER_CERT_PATH)", err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, &startError{message: s.files.CA + ": there is no certificate in PEM form in it"}
	}
	pair, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
	if err != nil {
		return nil, &startError{"read the certificate that is shown to the engine (--tlscert and --tlskey, DOCKER_CERT_PATH)", err}
	}
	name, _, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: name,
		NextProtos: []string{"http/1.1"}}}
	return d.DialContext(ctx, "tcp", s.address)
}

// explainTLS says what a failed connection over TLS means; nil where it is none of its errors.
func (s *secure) explainTLS(err error) error {
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	host := "tcp://" + s.address
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("the engine at %s shows a certificate of an authority that is not in %s: %w", host, s.files.CA, err)
	case errors.As(err, &name), errors.As(err, &invalid):
		return fmt.Errorf("the engine at %s shows a certificate that does not hold: %w", host, err)
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return fmt.Errorf("the engine at %s does not take the certificate %s: %w", host, s.files.Cert, err)
	}
	return nil
}
