package container

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTooFewFiles: what a shim tells of its limit comes as words; the engine's own shortage is told by who answers for it.
func TestTooFewFiles(t *testing.T) {
	if err := plain(errors.New("clone the child: pidfd of 7: too many open files")); !strings.Contains(err.Error(), "open files: the engine may open too few files") || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Error(err)
	}
	for _, err := range []error{fmt.Errorf("open a: %w", unix.EMFILE), errors.New("there are too many open files here")} {
		if got := plain(err); got != err {
			t.Error(got)
		}
	}
}
