package ociruntime

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestCapabilityWarnings: an ambient one that is not inheritable is warned of, but not where none is inheritable: the steps of Podman's builds
// would say so each time.
func TestCapabilityWarnings(t *testing.T) {
	both, kill := []string{"CAP_KILL", "CAP_CHOWN"}, []string{"CAP_KILL"}
	for want, c := range map[string]*specs.LinuxCapabilities{
		"": {Bounding: both, Permitted: both, Ambient: both},
		"can't raise ambient capability CAP_CHOWN": {Bounding: both, Permitted: both, Inheritable: kill, Ambient: both},
		"unknown capabilities are left out: CAP_X": {Bounding: []string{"CAP_X"}, Ambient: both},
	} {
		got := capabilityWarnings(c)
		if len(got) > 1 || (len(got) == 0) != (want == "") || len(got) == 1 && !strings.HasPrefix(got[0], want) {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}
