package snapshot

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestDatesAreSettled(t *testing.T) {
	for _, format := range []Format{EROFS, Overlay} {
		s := newPlace(t).open(t, format)
		limit := snapshots.WithLabels(map[string]string{Dated: "1000"})
		mounts, err := s.Prepare(t.Context(), "work", "", limit)
		if err != nil {
			t.Fatal(err)
		}
		dir, future := mounts[0].Source, time.Now().Add(24*time.Hour)
		want := map[string]time.Time{"old": time.Unix(500, 7), "at": time.Unix(1000, 0), "bit": time.Unix(1000, 1), "new": time.Unix(1000, 0), "later": future, "d/new": time.Unix(1000, 0), "d": time.Unix(1000, 0), ".": time.Unix(1000, 0), "link": time.Unix(1000, 0)}
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, date := range map[string]time.Time{"old": time.Unix(500, 7), "at": time.Unix(1000, 0), "bit": time.Unix(1000, 1), "new": time.Now(), "later": future, "d/new": time.Now()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(dir, name), date, date); err != nil {
				t.Fatal(err)
			}
		}
		outside := filepath.Join(t.TempDir(), "outside")
		if err := os.WriteFile(outside, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), "layer", "work", limit); err != nil {
			t.Fatal(err)
		}
		root := lower(t, s, "layer")[0]
		for name, date := range want {
			fi, err := os.Lstat(filepath.Join(root, name))
			if err != nil || !fi.ModTime().Equal(date) {
				t.Errorf("%s: %s is dated %v, want %v (%v)", format, name, fi.ModTime(), date, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(outside, &st); err != nil || time.Since(time.Unix(st.Mtim.Unix())) > time.Hour {
			t.Errorf("what a link leads to is dated %v: %v", st.Mtim, err)
		}
	}
}

func TestWrongDateIsNoLayer(t *testing.T) {
	s := newPlace(t).open(t, Overlay)
	if _, err := s.Prepare(t.Context(), "work", "", snapshots.WithLabels(map[string]string{Dated: "soon"})); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), "layer", "work"); err == nil || !strings.Contains(err.Error(), "soon") {
		t.Errorf("committed: %v", err)
	}
}

func TestOneMoreName(t *testing.T) {
	s := newPlace(t).open(t, Overlay)
	named := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: "sha256:x"})
	for _, row := range []struct{ key, parent string }{{"one", ""}, {"two", "one"}} {
		if _, err := s.Prepare(t.Context(), row.key+" work", row.parent); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), row.key, row.key+" work"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Prepare(t.Context(), "trial", "one", named); err != nil {
		t.Fatalf("nobody has the name yet: %v", err)
	}
	if err := s.Remove(t.Context(), "trial"); err != nil {
		t.Fatal(err)
	}
	info := snapshots.Info{Name: "two", Labels: map[string]string{snapshots.LabelSnapshotRef: "sha256:x"}}
	if _, err := s.Update(t.Context(), info, "labels."+snapshots.LabelSnapshotRef); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(t.Context(), "trial", "one", named); !errdefs.IsAlreadyExists(err) {
		t.Errorf("on the same one: %v", err)
	}
	if _, err := s.Prepare(t.Context(), "trial", "", named); err != nil {
		t.Errorf("on another one: %v", err)
	}
}

func TestManyChangesStayADirectory(t *testing.T) {
	s := newPlace(t).open(t, EROFS)
	may := snapshots.WithLabels(map[string]string{MayStayDirectory: "yes"})
	for _, row := range []struct {
		files int
		label bool
		stays bool
	}{{manyNames + 1, true, true}, {manyNames - 1, true, false}, {manyNames + 1, false, false}} {
		var opts []snapshots.Opt
		if row.label {
			opts = append(opts, may)
		}
		mounts, err := s.Prepare(t.Context(), "work", "", opts...)
		if err != nil {
			t.Fatal(err)
		}
		dir := mounts[0].Source
		for i := range row.files {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(t.Context(), "layer", "work", opts...); err != nil {
			t.Fatal(err)
		}
		if stays := lower(t, s, "layer")[0] == dir; stays != row.stays {
			t.Errorf("%+v: a directory %v", row, stays)
		}
		if err := s.Remove(t.Context(), "layer"); err != nil {
			t.Fatal(err)
		}
	}
}
