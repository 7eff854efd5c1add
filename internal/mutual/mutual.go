// Package mutual makes TLS listeners that answer clients with a certificate of the right authority, and nobody else.
//
// It owns nothing but what it has read of three files: they are looked at on each handshake and read again when they have changed, so that
// certificates are renewed without a restart. What cannot be read or does not fit together changes nothing but the log. Safe for many goroutines.
package mutual

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// Files are the paths of PEM files.
type Files struct {
	CA   string // authorities whose clients are let in
	Cert string // the engine's certificate, with those between it and its authority
	Key  string // its private key
}

// state of a file by which a change is told.
type state struct {
	modified time.Time
	size     int64
	inode    fs.FileInfo
}

func (s state) same(o state) bool {
	return s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.inode, o.inode)
}

// Listeners makes listeners of one set of files.
type Listeners struct {
	files Files
	log   func(error)

	mu     sync.Mutex
	config *tls.Config
	states [3]state
}

// Open reads the files. log is told of files that change and cannot be used.
func Open(files Files, log func(error)) (*Listeners, error) {
	l := &Listeners{files: files, log: log}
	states, err := files.look()
	if err != nil {
		return nil, err
	}
	config, err := files.read()
	if err != nil {
		return nil, err
	}
	l.states, l.config = states, config
	return l, nil
}

// On wraps a listener. Connections whose client shows no certificate, or one that is not valid, end in the handshake.
func (l *Listeners) On(inner net.Listener) net.Listener {
	return &handshaker{Listener: inner, secure: l, done: make(chan accepted), closed: make(chan struct{}), config: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.current(), nil },
	}}
}

// Trusts says whether the client of a connection that was accepted would be let in now: its certificate may have ended since, or its authority have
// been taken away. A connection may last for as long as the client likes.
func (h *handshaker) Trusts(s *tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the client has shown no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: h.secure.current().ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// current is the configuration that the files say now, or the last one that was whole.
func (l *Listeners) current() *tls.Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	states, err := l.files.look()
	if err != nil {
		l.log(fmt.Errorf("TLS goes on with the certificates that were read before: %w", err))
		return l.config
	}
	if states[0].same(l.states[0]) && states[1].same(l.states[1]) && states[2].same(l.states[2]) {
		return l.config
	}
	l.states = states // also of files that are wrong: they are told of once
	config, err := l.files.read()
	if err != nil {
		l.log(fmt.Errorf("TLS goes on with the certificates that were read before: %w", err))
		return l.config
	}
	l.config = config
	return config
}

func (f Files) look() (out [3]state, err error) {
	for i, path := range []string{f.CA, f.Cert, f.Key} {
		st, err := os.Stat(path)
		if err != nil {
			return out, fmt.Errorf("look at TLS's files: %w", err)
		}
		out[i] = state{st.ModTime(), st.Size(), st}
	}
	return out, nil
}

// read makes a configuration of the files. Session tickets are off: a client is verified each time.
func (f Files) read() (*tls.Config, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("tls.ca %s: there is no certificate in PEM form in it", f.CA)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert %s with tls.key %s: %w", f.Cert, f.Key, err)
	}
	leaf := pair.Leaf
	switch now := time.Now(); {
	case leaf == nil:
		return nil, errors.New("tls.cert: no certificate")
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("tls.cert %s: the certificate ended at %s: renew it", f.Cert, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("tls.cert %s: the certificate is not valid before %s", f.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
	}, nil
}

// Exposed says that others than the file's owner may read the key.
func (f Files) Exposed() bool {
	st, err := os.Stat(f.Key)
	return err == nil && st.Mode().Perm()&0o077 != 0
}
