package why

import (
	"errors"
	"testing"
)

func TestStep(t *testing.T) {
	for said, want := range map[string]string{
		`process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`:                             "",
		`process "/bin/prog" did not complete successfully: it is for arm64, which this machine does not run`: ": it is for arm64, which this machine does not run",
		"no such stage": "",
	} {
		if got := Step(errors.New(said)); got != want {
			t.Errorf("%s: %q, want %q", said, got, want)
		}
	}
}
