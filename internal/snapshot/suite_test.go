package snapshot

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
)

// TestSuite runs containerd's suite for snapshotters on both forms of layers.
func TestSuite(t *testing.T) {
	for _, format := range []Format{Overlay, EROFS} {
		t.Run(string(format), func(t *testing.T) {
			testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				s, err := Open(Options{Root: filepath.Join(root, "snapshots"), Mounts: filepath.Join(root, "layers"), Format: format})
				if err != nil {
					return nil, nil, err
				}
				return s, func() error { return errors.Join(s.Images().Release(), s.Close()) }, nil
			})
		})
	}
}
