package archive

import (
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
)

// Mounts end with the tests.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNS, m.Run) }
