package registry

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// TestWhatIsMissing: only a registry's own 404 means that it has no such repository or tag; what is missing otherwise is told as it is.
func TestWhatIsMissing(t *testing.T) {
	for _, row := range []struct {
		err     error
		unknown bool
	}{
		{&StatusError{Status: http.StatusNotFound}, true},
		{fmt.Errorf("ask: %w", &StatusError{Status: http.StatusNotFound}), true},
		{errdefs.ErrNotFound, true},
		{fmt.Errorf("no platform of it is here: %w", errdefs.ErrNotFound), false},
	} {
		err := Explain("pull a", "r.example", row.err)
		if !errdefs.IsNotFound(err) || strings.Contains(err.Error(), "manifest unknown") != row.unknown {
			t.Errorf("%v becomes %v", row.err, err)
		}
	}
}

// TestNoTLS: what speaks something else has no certificate that could be trusted.
func TestNoTLS(t *testing.T) {
	err := Explain("pull a", "r.example", fmt.Errorf("ask: %w", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "r.example speaks no TLS") {
		t.Error(err)
	}
}

// TestWhatWasRefused is told in the field's words for pulls and pushes, which clients look for, and plainly otherwise.
func TestWhatWasRefused(t *testing.T) {
	for what, want := range map[string]string{
		"pull a:1": "pull a:1: pull access denied for a: the registry", "push a:1": "push a:1: push access denied for a: the registry",
		"look up a:1": "look up a:1: access denied: the registry", "pull h:5/a": "pull h:5/a: pull access denied for h:5/a: the registry",
		"pull h:5/a:1@sha256:2": "pull h:5/a:1@sha256:2: pull access denied for h:5/a: the registry",
	} {
		if err := Explain(what, "r.example", &StatusError{Status: http.StatusUnauthorized}); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestTheRegistrysWords reach who pushes: those of a refusal, and those of an upload that is not taken.
func TestTheRegistrysWords(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusBadRequest, http.StatusConflict} {
		for _, at := range []string{http.MethodPost, http.MethodPut} {
			host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
				switch r.Method {
				case at:
					w.WriteHeader(status)
					fmt.Fprint(w, `{"errors":[{"code":"QUOTA","message":"the project is full"}]}`)
				case http.MethodPost:
					w.WriteHeader(http.StatusAccepted)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			}))
			p, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Pusher(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Blob(t.Context(), Upload{Descriptor: described("", []byte("layer")), Content: strings.NewReader("layer")})
			if err = Explain("push a/b:1", host, err); err == nil || !strings.Contains(err.Error(), "the project is full") {
				t.Errorf("%d to %s: %v", status, at, err)
			}
		}
	}
}

// TestLoginElsewhere: a server that is no registry is told from one that has no such repository.
func TestLoginElsewhere(t *testing.T) {
	host := served(t, http.NotFoundHandler())
	_, err := quick(Options{}).Login(t.Context(), registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: host})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no registry") {
		t.Error(err)
	}
}
