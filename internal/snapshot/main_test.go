package snapshot

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
)

const orderVariable = "WHERRY_SNAPSHOT_ORDER"

// TestMain runs the tests where mounts end with them. The test program is also the one whose system calls TestOrderOfWrites looks at.
func TestMain(m *testing.M) {
	if root := os.Getenv(orderVariable); root != "" {
		if err := commitAll(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	apart.Tests(unix.CLONE_NEWNS, m.Run)
}
