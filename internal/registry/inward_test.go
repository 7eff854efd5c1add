package registry

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestRegistriesSendNobodyInside: neither by the address of a token service nor by a redirect.
func TestRegistriesSendNobodyInside(t *testing.T) {
	const metadata = "http://169.254.169.254/latest/meta-data/iam/security-credentials/role"
	img := imageOf(sample(100_000))
	for name, serve := range map[string]http.HandlerFunc{
		"token service": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+metadata+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", metadata)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		host := served(t, serve)
		err := img.pull(t.Context(), quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil))
		if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "169.254.169.254:80, a link-local address") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, row := range []struct {
		host, to string
		may      bool
	}{
		{"192.0.2.1", "127.0.0.1:80", false}, {"192.0.2.1:443", "[::1]:80", false}, {"192.0.2.1", "[::ffff:127.0.0.1]:80", false}, {"192.0.2.1", "0.0.0.0:80", false},
		{"192.0.2.1", "169.254.1.1:80", false}, {"192.0.2.1", "[fe80::1%lo]:80", false}, {"127.0.0.1:5000", "169.254.169.254:80", false},
		{"192.0.2.1", "[fd00:ec2::254]:80", false}, {"192.0.2.1", "[fd20:ce::254]:80", false}, {"192.0.2.1", "100.100.100.200:80", false}, {"192.0.2.1", "168.63.129.16:80", false},
		{"192.0.2.1", "[64:ff9b::a9fe:a9fe]:80", false}, {"192.0.2.1", "[64:ff9b::7f00:1]:80", false}, {"192.0.2.1", "[64:ff9b::8.8.8.8]:80", true}, {"192.0.2.1", "[fd00:ec2::253]:80", true},
		{"192.0.2.1", "10.0.0.1:443", true}, {"127.0.0.1:5000", "127.0.0.2:443", true}, {"localhost:5000", "[::1]:80", true}, {"[::1]:5000", "127.0.0.1:80", true},
	} {
		err := refuseInward(context.WithValue(t.Context(), sentBy{}, row.host), "tcp", row.to, nil)
		if may := err == nil; may != row.may {
			t.Errorf("%s to %s: %v", row.host, row.to, err)
		}
	}
}
