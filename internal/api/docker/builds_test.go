package docker

import (
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestUpgradesToBuildKit: what does not take the connection over for h2c is told so, before it is taken.
func TestUpgradesToBuildKit(t *testing.T) {
	for header, says := range map[string]string{"": "no upgrade", "foo": "protocol foo not supported", "h2c": "", "H2C": ""} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://e/session", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Upgrade", header)
		err = checkUpgrade(q)
		if (err == nil) != (says == "") || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says)) {
			t.Errorf("upgrade to %q: %v", header, err)
		}
	}
}

// TestBuildRequest: a platform that cannot be is told before anything is built.
func TestBuildRequest(t *testing.T) {
	for query, says := range map[string]string{"platform=linux/amd64,linux/arm64": "", "": "", "platform=foobar": "foobar", "platform=linux/amd64,a/b/c/d": "a/b/c/d"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://e/build?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := buildRequest(r); (err == nil) != (says == "") || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
