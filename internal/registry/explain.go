package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/room"
)

// Explain turns what a registry or the network answered into one line for people.
func Explain(what, host string, err error) error {
	if m := (*mirroredError)(nil); errors.As(err, &m) {
		own := Explain(what, host, m.error)
		return &explained{fmt.Sprintf("%v (%s)", own, m.mirrors), []error{own}}
	}
	var dns *net.DNSError
	var op *net.OpError
	text, status := fmt.Sprint(err), statusOf(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case status == http.StatusNotFound, err == errdefs.ErrNotFound: // what is missing here is told as it is
		// Clients look for the words "not found: does not exist or no pull access".
		return fmt.Errorf("%s: manifest unknown: repository or tag not found: does not exist or no pull access: check the spelling, or log in: %w", what, errdefs.ErrNotFound)
	case errors.Is(err, docker.ErrInvalidAuthorization), status == http.StatusUnauthorized, status == http.StatusForbidden:
		denied := deniedText(what)
		text = fmt.Sprintf("%s: the registry refuses this login, or none was given, or there is no such repository: check the spelling, or run `wherry login %s`", denied, host)
		if held := (*withheldError)(nil); errors.As(err, &held) {
			text = fmt.Sprintf("%s: %s", denied, held)
		} else if refused := (*refusedError)(nil); errors.As(err, &refused) {
			text += fmt.Sprintf(" (%s)", refused)
		} else if said := (*StatusError)(nil); errors.As(err, &said) && said.Said != "" {
			text += fmt.Sprintf(" (it says: %s)", said.Said)
		}
		return &explained{text, []error{err, errdefs.ErrPermissionDenied}}
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("%s: registry %s counts too many requests from here: try again later, or log in: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case errors.As(err, &dns):
		text = fmt.Sprintf("%s: the registry's name %s cannot be resolved: %v", what, host, dns)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case errors.As(err, &op) && op.Op == "proxyconnect":
		text = fmt.Sprintf("%s: the proxy that the engine's environment names (HTTPS_PROXY, HTTP_PROXY) cannot be used: %v", what, op.Err)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("%s: connection refused: nothing listens at %s: is the registry running?", what, host)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s: the registry speaks plain HTTP: start wherryd with --insecure-registry %s if that is meant: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return fmt.Errorf("%s: %s: %w: %w", what, explainTLS(err, host), err, errdefs.ErrUnavailable)
	case room.Lacks(err):
		return fmt.Errorf("%s: the disk is full: "+room.Advice+": %w", what, err)
	case errors.As(err, &op), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// deniedText has dockerd's words, "pull access denied for NAME", for pulls and pushes: clients look for them.
func deniedText(what string) string {
	verb, name, _ := strings.Cut(what, " ")
	if verb != "pull" && verb != "push" {
		return what + ": access denied"
	}
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	return fmt.Sprintf("%s: %s access denied for %s", what, verb, name)
}

// explainTLS says what to do about a certificate.
func explainTLS(err error, host string) string {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	text := err.Error()
	switch {
	case errors.As(err, &name):
		return fmt.Sprintf("the registry's certificate is not for the name %s", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the registry's certificate is not valid at this time (look at the machine's clock, too)"
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(text, "does not look like a TLS handshake"):
		return fmt.Sprintf("what listens at %s speaks no TLS, and is no registry that speaks plain HTTP either", host)
	case strings.Contains(text, "certificate required"), strings.Contains(text, "bad certificate"):
		return fmt.Sprintf("the registry wants a client's certificate: put client.cert and client.key into /etc/docker/certs.d/%s", host)
	}
	return fmt.Sprintf("the registry's certificate is not trusted: put that of its authority into /etc/docker/certs.d/%s/ca.crt", host)
}

// statusOf is the answer of a registry that an error is about, 0 for none.
func statusOf(err error) int {
	var answer *StatusError
	if errors.As(err, &answer) {
		return answer.Status
	}
	return 0
}

// explained is an error whose causes a person need not read.
type explained struct {
	text   string
	causes []error
}

func (e *explained) Error() string   { return e.text }
func (e *explained) Unwrap() []error { return e.causes }

// isNetwork says whether an error came from the connection, not from an answer.
func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, syscall.ECONNREFUSED)
}
