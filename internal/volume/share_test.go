package volume

import (
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/event"
)

// TestShareOfMemory: what one client describes its volumes with does not fill the engine's memory.
func TestShareOfMemory(t *testing.T) {
	s, err := Open(Options{Root: t.TempDir(), Events: event.New(), Log: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	limited := access.With(t.Context(), access.Scope{Owner: "uid:2001", Limited: true})
	for n := range 4 {
		_, err := s.Create(limited, volume.CreateRequest{Name: "v" + strconv.Itoa(n), Labels: map[string]string{"a": strings.Repeat("x", access.Share/4)}})
		if (err != nil) != (n == 3) || err != nil && !errdefs.IsPermissionDenied(err) {
			t.Fatalf("volume %d: %v", n, err)
		}
	}
}
