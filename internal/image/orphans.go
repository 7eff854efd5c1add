package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// historyNamespace is where BuildKit keeps what it has to tell of earlier builds: their logs, and what they were made of.
const historyNamespace = namespace + "_history"

// dropOrphans removes what the database has no longer and the disk still has: the engine was killed between the two. Nothing else may be
// using the store yet.
func dropOrphans(ctx context.Context, s *store, snaps snapshots.Snapshotter) error {
	if err := dropOrphanBlobs(ctx, s.blobs); err != nil {
		return err
	}
	return dropOrphanLayers(ctx, snaps, s.snaps)
}

func dropOrphanBlobs(ctx context.Context, s *blobs) error {
	known := map[digest.Digest]bool{}
	for _, ns := range []string{namespace, historyNamespace} {
		ctx := namespaces.WithNamespace(ctx, ns)
		if err := s.content.Walk(ctx, func(i content.Info) error { known[i.Digest] = true; return nil }); err != nil {
			return fmt.Errorf("list the content: %w", err)
		}
	}
	var orphans []digest.Digest
	if err := s.backend.Walk(ctx, func(i content.Info) error {
		if !known[i.Digest] {
			orphans = append(orphans, i.Digest)
		}
		return nil
	}); err != nil && !os.IsNotExist(err) { // nothing has been kept yet
		return fmt.Errorf("list the content on the disk: %w", err)
	}
	for _, d := range orphans {
		if err := s.backend.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove %s, which belongs to nothing: %w", d, err)
		}
	}
	if err := dropHalfDownloads(filepath.Join(s.dir, "ingest")); err != nil {
		return err
	}
	begun, err := s.content.ListStatuses(ctx)
	if err != nil {
		return fmt.Errorf("list downloads: %w", err)
	}
	there, err := s.backend.ListStatuses(ctx)
	if err != nil {
		return fmt.Errorf("list downloads on the disk: %w", err)
	}
	for _, t := range there {
		if slices.ContainsFunc(begun, func(b content.Status) bool { return strings.HasSuffix(t.Ref, "/"+b.Ref) }) {
			continue
		}
		if err := s.backend.Abort(ctx, t.Ref); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove download %s, which belongs to nothing: %w", t.Ref, err)
		}
	}
	return nil
}

// dropHalfDownloads removes downloads in whose making or removal the engine was killed, or the power cut: nobody can list those beside them
// otherwise (containerd, plugins/content/local: ingest/<digest>/{data, ref, startedat, updatedat, total}).
func dropHalfDownloads(in string) error {
	list, err := filepath.Glob(filepath.Join(in, "*"))
	if err != nil {
		return err
	}
	for _, dir := range list {
		if whole, err := isDownload(dir); whole || err != nil {
			if err != nil {
				return fmt.Errorf("look at a download: %w", err)
			}
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove a download that was cut off: %w", err)
		}
	}
	return nil
}

// isDownload says that a download has all that it is listed and taken up again by. A power cut may leave files without what was written.
func isDownload(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		return false, notThere(err)
	}
	for _, name := range []string{"ref", "startedat", "updatedat"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return false, notThere(err)
		}
		var at time.Time
		if len(b) == 0 || name != "ref" && at.UnmarshalText(b) != nil {
			return false, nil
		}
	}
	return true, nil
}

func notThere(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// dropOrphanLayers compares a snapshotter with what the database knows of it, by a name of its own with the snapshotter's behind it.
func dropOrphanLayers(ctx context.Context, on, of snapshots.Snapshotter) error {
	known := map[string]bool{}
	if err := of.Walk(ctx, func(_ context.Context, i snapshots.Info) error { known[i.Name] = true; return nil }); err != nil {
		return fmt.Errorf("list the layers: %w", err)
	}
	parents := map[string]string{}
	if err := on.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if other := i.Labels[snapshots.LabelSnapshotRef]; other != "" && known[other] {
			return nil // it has this name too, which a build has given it
		}
		if parts := strings.SplitN(i.Name, "/", 3); len(parts) == 3 && parts[0] == namespace && !known[parts[2]] {
			parents[i.Name] = i.Parent
		}
		return nil
	}); err != nil && !errdefs.IsNotFound(err) { // not one has been made yet
		return fmt.Errorf("list the layers on the disk: %w", err)
	}
	strays := len(parents) > 0
	for len(parents) > 0 { // the topmost first; each turn removes one at least
		below := map[string]bool{}
		for _, p := range parents {
			below[p] = true
		}
		before := len(parents)
		for name := range parents {
			if below[name] {
				continue
			}
			if err := on.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove layer %s, which belongs to nothing: %w", name, err)
			}
			delete(parents, name)
		}
		if len(parents) == before {
			return fmt.Errorf("%d layers lie upon each other in a circle: %w", before, errdefs.ErrInternal)
		}
	}
	if c, ok := on.(snapshots.Cleaner); ok && strays {
		return c.Cleanup(ctx)
	}
	return nil
}
