package spec

import (
	"path"
	"strings"
	"testing"
)

// FuzzOptions: what clients write is refused or understood, never a panic.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"", "no-new-privileges", "seccomp={}", "c 1:3 rwm", "size=1", "NET_ADMIN", "/a/../b", "A=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s = s[:min(len(s), 4096)]; len(s) > 0 {
			_, _ = ParseSecurity([]string{s})
		}
		_, _ = ParseDeviceRule(s)
		_, _ = ParseTmpfs(s)
		if len(s) < 256 { // the nearest word is looked for
			_, _ = Capabilities([]string{s}, nil, CapabilityOptions{})
		}
		if clean, err := Clean(s); err == nil && (!path.IsAbs(clean) || clean == "/" || clean != path.Clean(clean)) {
			t.Errorf("%q becomes %q", s, clean)
		}
		for _, kv := range MergeEnv([]string{"PATH=x"}, []string{s}) {
			if !strings.Contains(kv, "=") {
				t.Errorf("%q in the environment", kv)
			}
		}
	})
}
