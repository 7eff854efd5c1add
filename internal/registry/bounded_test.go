package registry

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestBounded(t *testing.T) {
	for text, want := range map[string]bool{
		`{"history":[` + strings.Repeat("{},", maxParts/2) + `{}]}`: false,
		`{"history":[` + strings.Repeat("{},", 1000) + `{}]}`:       true,
		`{"a":"` + strings.Repeat(`\",`, maxParts) + `"}`:           true, // text
		strings.Repeat("[", maxParts+1):                             false,
		`"no end` + strings.Repeat(",", maxParts):                   true,
	} {
		if err := Bounded([]byte(text)); (err == nil) != want || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.30s: %v", text, err)
		}
	}
}
