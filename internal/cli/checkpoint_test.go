package cli

import (
	"net/http"
	"testing"
)

// TestStartFromCheckpointWarns: what is not as it was, is said; Docker's answer has no place for it.
func TestStartFromCheckpointWarns(t *testing.T) {
	host := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("checkpoint") == "before" {
			w.Header().Add("Wherry-Warning", "at another address")
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	out, stderr, status := wherry(t, host, "start", "--checkpoint", "before", "web")
	if out != "web\n" || stderr != "WARNING: at another address\n" || status != 0 {
		t.Errorf("%q %q %d", out, stderr, status)
	}
}
