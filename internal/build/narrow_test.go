package build

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	digest "github.com/opencontainers/go-digest"
)

// dirRef is a directory that stands for a snapshot.
type dirRef struct {
	cache.ImmutableRef
	dir string
}

func (d dirRef) ID() string                                 { return d.dir }
func (d dirRef) GetEqualMutable() (cache.RefMetadata, bool) { return nil, false }
func (d dirRef) GetExternal(string) ([]byte, error)         { return nil, os.ErrNotExist }
func (d dirRef) SetExternal(string, []byte) error           { return nil }
func (d dirRef) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: d.dir, Options: []string{"rbind"}}}, nil, nil
}

type dirSnapshot struct {
	dirRef
	snapshot.Mountable
}

func (d dirSnapshot) Mount() ([]mount.Mount, func() error, error) { return d.dirRef.Mount() }

// snapshotRef is a dirRef as BuildKit wants one.
type snapshotRef struct{ dirRef }

func (s snapshotRef) Mount(context.Context, bool, session.Group) (snapshot.Mountable, error) {
	return dirSnapshot{dirRef: s.dirRef}, nil
}

// filesToCopy makes a file system of a directory, a deeper one, files and links.
func filesToCopy(t *testing.T) snapshotRef {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"out/a", "out/b/c", "deep/er/file", "deep/er/more", "other/file", "single"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte("content of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "out", "out/up": "../other", "file-link": "single"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return snapshotRef{dirRef{dir: root}}
}

func copyAction(src string, wildcard bool) *pb.FileAction {
	return &pb.FileAction{Input: 0, SecondaryInput: 1, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: src, AllowWildcard: wildcard}}}
}

// TestPartsHaveTheHashOfTheWhole: a step that copies is found in the cache again just as if all had been walked.
func TestPartsHaveTheHashOfTheWhole(t *testing.T) {
	ref := filesToCopy(t)
	for _, c := range []struct {
		src  string
		opts contenthash.ChecksumOpts
	}{
		{"/out", contenthash.ChecksumOpts{}},
		{"/out/", contenthash.ChecksumOpts{FollowLinks: true}},
		{"/single", contenthash.ChecksumOpts{}},
		{"/deep/er/file", contenthash.ChecksumOpts{}},
		{"/deep/er/*", contenthash.ChecksumOpts{Wildcard: true}},
		{"/deep/*/m*", contenthash.ChecksumOpts{Wildcard: true}},
		{"/s*", contenthash.ChecksumOpts{Wildcard: true}},
		{"/out", contenthash.ChecksumOpts{ExcludePatterns: []string{"b"}}},
		{"/out", contenthash.ChecksumOpts{IncludePatterns: []string{"b/**"}}},
		{"/link", contenthash.ChecksumOpts{FollowLinks: true}},
		{"/link/b", contenthash.ChecksumOpts{}},
		{"/file-link", contenthash.ChecksumOpts{}},
		{"/out/up/file", contenthash.ChecksumOpts{FollowLinks: true}},
		{"/missing", contenthash.ChecksumOpts{}},
	} {
		want, wantErr := contenthash.Checksum(t.Context(), ref, c.src, c.opts, nil)
		contenthash.ClearCacheContext(ref)
		paths := copiedFrom(&pb.FileOp{Actions: []*pb.FileAction{copyAction(c.src, c.opts.Wildcard)}})[1]
		if len(paths) == 0 {
			if c.src != "/s*" {
				t.Errorf("%s is not known by path", c.src)
			}
			continue
		}
		n := &narrowRef{ImmutableRef: ref, paths: paths}
		got, err := contenthash.Checksum(t.Context(), n, c.src, c.opts, nil)
		contenthash.ClearCacheContext(n)
		if got != want || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Errorf("%s %+v: %s %v, of the whole %s %v", c.src, c.opts, got, err, want, wantErr)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "buildkit-mount*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

// TestPartsShowNothingElse: what is not copied is not walked.
func TestPartsShowNothingElse(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ref := filesToCopy(t)
	n := &narrowRef{ImmutableRef: ref, paths: []string{"/deep/er", "/single"}}
	m, err := n.Mount(t.Context(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	local := snapshot.LocalMounter(m)
	dir, err := local.Mount()
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	err = filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		seen = append(seen, rel)
		return err
	})
	if err != nil || !slices.Equal(seen, []string{".", "deep", "deep/er", "deep/er/file", "deep/er/more", "single"}) {
		t.Errorf("%v: %v", seen, err)
	}
	if err := local.Unmount(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatStepsCopy(t *testing.T) {
	named := &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "www", Input: 2}}}}
	owned := copyAction("/c", false)
	owned.GetCopy().Owner, owned.SecondaryInput = named, 2
	for name, c := range map[string]struct {
		actions []*pb.FileAction
		want    map[int][]string
	}{
		"two":                   {[]*pb.FileAction{copyAction("/b", false), copyAction("a/", false)}, map[int][]string{1: {"/a", "/b"}}},
		"all":                   {[]*pb.FileAction{copyAction("/b", false), copyAction("/", false)}, map[int][]string{}},
		"names in the root":     {[]*pb.FileAction{copyAction("/b*", true)}, map[int][]string{}},
		"a star that is a name": {[]*pb.FileAction{copyAction("/b*", false)}, map[int][]string{1: {"/b*"}}},
		"an owner by name":      {[]*pb.FileAction{owned, copyAction("/b", false)}, map[int][]string{1: {"/b"}}},
	} {
		if got := copiedFrom(&pb.FileOp{Actions: c.actions}); !maps.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// mapOp is a step whose cache map has one dependency, which is hashed by what hash says.
type mapOp struct {
	solver.Op
	hash solver.ResultBasedCacheFunc
}

func (m mapOp) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	out := &solver.CacheMap{}
	out.Deps = append(out.Deps, struct {
		Selector          digest.Digest
		ComputeDigestFunc solver.ResultBasedCacheFunc
		PreprocessFunc    solver.PreprocessFunc
	}{ComputeDigestFunc: m.hash})
	return out, true, nil
}

// TestWhatIsKnownIsNotHashedAgain: of a client's files BuildKit has the hashes, by the snapshot's own name.
func TestWhatIsKnownIsNotHashedAgain(t *testing.T) {
	for _, known := range []bool{false, true} {
		var narrow bool
		op := &copyOp{sources: map[int][]string{0: {"/out"}}, Op: mapOp{hash: func(_ context.Context, res solver.Result, _ session.Group) (digest.Digest, error) {
			_, narrow = res.Sys().(*worker.WorkerRef).ImmutableRef.(*narrowRef)
			return "", nil
		}}}
		m, _, err := op.CacheMap(t.Context(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var ref cache.ImmutableRef = filesToCopy(t)
		if known {
			ref = knownRef{ref}
		}
		if _, err := m.Deps[0].ComputeDigestFunc(t.Context(), worker.NewWorkerRefResult(ref, nil), nil); err != nil || narrow == known {
			t.Errorf("known %v, narrow %v: %v", known, narrow, err)
		}
	}
}

type knownRef struct{ cache.ImmutableRef }

func (knownRef) GetExternal(string) ([]byte, error) { return []byte("hashes"), nil }
