package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/access"
)

func said(list []image.DeleteResponse) string {
	var out []string
	for _, d := range list {
		switch {
		case d.Untagged != "":
			out = append(out, "-"+d.Untagged)
		default:
			out = append(out, "deleted")
		}
	}
	return strings.Join(out, " ")
}

// TestRemove holds Docker's rules of rmi: names, ids, several names, containers.
func TestRemove(t *testing.T) {
	rows := []struct {
		name, tags, user string
		remove           string // ID stands for the image's id
		force            bool
		want, err        string
		left             int // images listed afterwards
	}{
		{name: "the only tag", tags: "a:1", remove: "a:1", want: "-a:1 deleted"},
		{name: "one of two tags", tags: "a:1 a:2", remove: "a:1", want: "-a:1", left: 1},
		{name: "by id with one tag", tags: "a:1", remove: "ID", want: "-a:1 deleted"},
		{name: "by id with two tags", tags: "a:1 a:2", remove: "ID", err: "must be forced", left: 1},
		{name: "by id with two repositories", tags: "a:1 b:1", remove: "ID", err: "multiple repositories", left: 1},
		{name: "by id with two tags, forced", tags: "a:1 b:2", remove: "ID", force: true, want: "-a:1 -b:2 deleted"},
		{name: "in use", tags: "a:1", user: "c1", remove: "a:1", err: "container c1 is using", left: 1},
		{name: "in use, another tag stays", tags: "a:1 a:2", user: "c1", remove: "a:1", want: "-a:1", left: 1},
		{name: "in use, forced", tags: "a:1", user: "c1", remove: "a:1", force: true, want: "-a:1", left: 1},
		{name: "in use, by id", tags: "a:1", user: "c1", remove: "ID", err: "(must be forced) - image is being used by stopped container c1", left: 1},
		{name: "in use by one that runs, forced", tags: "a:1", user: "r1", remove: "a:1", force: true, want: "-a:1", left: 1},
		{name: "in use by one that runs, by id, forced", tags: "a:1", user: "r1", remove: "ID", force: true, err: "(cannot be forced) - image is being used by running container r1", left: 1},
		{name: "two tags, in use by one that runs, by id", tags: "a:1 b:1", user: "r1", remove: "ID", err: "(cannot be forced) - image is being used by running container r1", left: 1},
		{name: "in use, by id, forced", tags: "a:1", user: "c1", remove: "ID", force: true, want: "-a:1", left: 1},
		{name: "unknown", tags: "a:1", remove: "x:1", err: "No such image: x:1", left: 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			running := func(container string) bool { return strings.HasPrefix(container, "r") }
			tags := strings.Fields(row.tags)
			img := imported(t, s, tags[0], file1("a", row.name))
			for _, tag := range tags[1:] {
				if err := s.Tag(t.Context(), tags[0], tag); err != nil {
					t.Fatal(err)
				}
			}
			if row.user != "" {
				if err := s.Acquire(t.Context(), img.ID, img.Manifest.Digest, row.user); err != nil {
					t.Fatal(err)
				}
			}
			out, err := s.Remove(t.Context(), strings.Replace(row.remove, "ID", img.ID.Encoded()[:12], 1), RemoveOptions{Force: row.force, Running: running})
			if row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) || row.err == "" && err != nil || said(out) != row.want {
				t.Errorf("%q %v", said(out), err)
			}
			list, err := s.List(t.Context(), ListOptions{})
			if err != nil || len(list) != row.left {
				t.Errorf("%d are left: %v", len(list), err)
			}
			if _, err := os.Stat(img.Lower[0]); (err == nil) != (row.left > 0) {
				t.Errorf("the layer: %v", err)
			}
			if row.user == "" || row.want == "" {
				return
			}
			s.Release(t.Context(), row.user)
			report, err := s.Prune(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if named := len(tags) > 1 && !row.force; named != (len(report.ImagesDeleted) == 0) {
				t.Errorf("pruned: %+v", report)
			}
		})
	}
}

// TestReplacedImagesStay: a name that is given to another image leaves the old one nameless, with its layers, until it is pruned.
func TestReplacedImagesStay(t *testing.T) {
	s := open(t)
	old := imported(t, s, "app", file1("a", "old"))
	if err := s.Acquire(t.Context(), old.ID, old.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	fresh := imported(t, s, "app", file1("a", "new"))
	if err := s.collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(old.Lower[0], "a")); err != nil {
		t.Fatalf("a container stands on what was collected: %v", err)
	}
	list, err := s.List(t.Context(), ListOptions{Filters: map[string]map[string]bool{"dangling": {"true": true}}})
	if err != nil || len(list) != 1 || list[0].ID != old.ID.String() || len(list[0].RepoTags)+len(list[0].RepoDigests) != 0 {
		t.Fatalf("%+v %v", list, err)
	}
	if report, err := s.Prune(t.Context(), nil); err != nil || len(report.ImagesDeleted) != 0 {
		t.Fatalf("pruned under a container: %+v %v", report, err)
	}
	s.Release(t.Context(), "c1")
	report, err := s.Prune(t.Context(), nil)
	if err != nil || said(report.ImagesDeleted) != "deleted" || report.SpaceReclaimed == 0 {
		t.Fatalf("%+v %v", report, err)
	}
	if _, err := os.Stat(fresh.Lower[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Acquire(t.Context(), old.ID, old.Manifest.Digest, "c2"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such image") {
		t.Errorf("an image that is gone can be used, or clients do not know to pull it again: %v", err)
	}
	// A nameless image that gets a name is an image like others again.
	id, err := s.Import(t.Context(), layer(t, file1("b", "c")), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), id.Encoded()[:12], "sha256:1"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("a name like a digest: %v", err)
	}
	if _, err := s.Import(t.Context(), layer(t, file1("c", "d")), ImportOptions{Ref: "sha256"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an import under a name like a digest: %v", err)
	}
	if err := s.Tag(t.Context(), id.Encoded()[:12], "named"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Remove(t.Context(), "named", RemoveOptions{}); err != nil || said(out) != "-named:latest deleted" {
		t.Errorf("%v %v", said(out), err)
	}
}

func TestListFilters(t *testing.T) {
	s := open(t)
	imported(t, s, "team/app:1", file1("a", "1"))
	first, err := s.Inspect(t.Context(), "team/app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if _, err := s.Import(t.Context(), layer(t, file1("a", "2")), ImportOptions{Ref: "team/web:2", Changes: []string{"LABEL kind=web"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if _, err := s.Import(t.Context(), layer(t, file1("a", "3")), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	rows := []struct{ key, value, want string }{
		{"reference", "team/app", "team/app:1"}, {"reference", "team/*", "team/app:1 team/web:2"}, {"reference", "*:2", ""}, {"reference", "team/web:2", "team/web:2"},
		{"reference", "docker.io/team/*:2", "team/web:2"}, {"reference", "docker.io/*/app", "team/app:1"}, {"reference", "docker.io/*", ""},
		{"reference", "docker.io/team/web:2", "team/web:2"}, {"reference", "other", ""}, {"label", "kind", "team/web:2"}, {"label", "kind=web", "team/web:2"},
		{"label", "kind=app", ""}, {"label!", "kind", "<none> team/app:1"}, {"dangling", "true", "<none>"}, {"dangling", "false", "team/app:1 team/web:2"},
		{"since", "team/app:1", "<none> team/web:2"}, {"before", "team/web:2", "team/app:1"}, {"until", "1h", ""}, {"until", "0s", "<none> team/app:1 team/web:2"},
		{"since", first.ID, "<none> team/web:2"},
	}
	for _, row := range rows {
		list, err := s.List(t.Context(), ListOptions{Filters: map[string]map[string]bool{row.key: {row.value: true}}})
		if err != nil {
			t.Errorf("%s=%s: %v", row.key, row.value, err)
		}
		names := map[string]bool{}
		for _, i := range list {
			if len(i.RepoTags) == 0 {
				names["<none>"] = true
			}
			for _, tag := range i.RepoTags {
				names[tag] = true
			}
		}
		var got []string
		for _, n := range []string{"<none>", "team/app:1", "team/web:2"} {
			if names[n] {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s=%s: %v, want %s", row.key, row.value, got, row.want)
		}
	}
	for key, value := range map[string]string{"no-such": "x", "dangling": "perhaps", "until": "yesterday", "reference": "[", "since": "unknown:1"} {
		if _, err := s.List(t.Context(), ListOptions{Filters: map[string]map[string]bool{key: {value: true}}}); err == nil {
			t.Errorf("%s=%s is taken", key, value)
		}
	}
	if _, err := s.Prune(t.Context(), map[string]map[string]bool{"reference": {"x": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("prune takes a filter of list: %v", err)
	}
}

// TestDiskUsage: what two images share is counted once, and only what no container needs can be reclaimed.
func TestDiskUsage(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base", file1("bin/a", strings.Repeat("x", 1<<20)))
	if _, err := s.Commit(t.Context(), layer(t, file1("etc/b", "small")), CommitOptions{Parent: base, Ref: "child", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	u, err := s.DiskUsage(t.Context())
	du := u.DiskUsage
	if err != nil || du.TotalCount != 2 || du.ActiveCount != 0 || du.Reclaimable != du.TotalSize {
		t.Fatalf("%+v %v", du, err)
	}
	if du.TotalSize < 1<<20 || du.TotalSize > 1<<20+200<<10 {
		t.Errorf("a shared MiB counts as %d", du.TotalSize)
	}
	if u.Shared < 1<<20 || u.Unique < 4<<10 || u.Unused != 0 || u.Unique+u.Shared != du.TotalSize {
		t.Errorf("%d unique, %d shared, %d unused of %d", u.Unique, u.Shared, u.Unused, du.TotalSize)
	}
	for _, i := range du.Items {
		if i.SharedSize < 1<<20 || i.Size < i.SharedSize {
			t.Errorf("%v: %d of %d are shared", i.RepoTags, i.SharedSize, i.Size)
		}
	}
	if err := s.Acquire(t.Context(), base.ID, base.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	u, err = s.DiskUsage(t.Context())
	if err != nil || u.ActiveCount != 1 || u.Reclaimable > 100<<10 {
		t.Errorf("with a container on the base: %+v %v", u, err)
	}
}

// TestBuiltInImageFollowsOar: another oar makes another image; the old one stays nameless, and somebody's own `hello` is left alone.
func TestBuiltInImageFollowsOar(t *testing.T) {
	s := open(t)
	first, err := s.Resolve(t.Context(), "hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.builtIn.oar, []byte("another program"), 0o755); err != nil {
		t.Fatal(err)
	}
	second, err := s.Resolve(t.Context(), "docker.io/library/hello:latest", nil)
	if err != nil || second.ID == first.ID {
		t.Fatalf("%v: oar has changed, and the image has not", err)
	}
	if b, err := os.ReadFile(filepath.Join(second.Lower[0], "oar")); err != nil || string(b) != "another program" {
		t.Errorf("%q %v", b, err)
	}
	var told []string
	if err := s.Pull(t.Context(), "hello", TransferOptions{Progress: statuses(&told)}); err != nil || !strings.Contains(strings.Join(told, " "), "built into") {
		t.Errorf("pull: %v %q", err, told)
	}
	stamp, err := s.builtIn.now()
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{"1-1", stamp} { // what an image says of itself is not believed
		liar := importedAs(t, s, "hello", `LABEL `+labelOar+`="`+claim+`"`, file1("a", claim))
		if liar.Config.Config.Labels[labelOar] != claim || s.builtIn.stands(in(t.Context())) {
			t.Errorf("an image that says %q is taken for the built-in one", claim)
		}
		if got, err := s.Resolve(t.Context(), "hello", nil); err != nil || got.ID != liar.ID {
			t.Errorf("an image that says %q was replaced: %v", claim, err)
		}
	}
	own := imported(t, s, "hello", file1("a", "mine"))
	if s.builtIn.stands(in(t.Context())) {
		t.Error("somebody's own image is taken for the built-in one")
	}
	if got, err := s.Resolve(t.Context(), "hello", nil); err != nil || got.ID != own.ID {
		t.Errorf("somebody's own image was replaced: %v", err)
	}
	var saved bytes.Buffer
	fresh := open(t)
	if err := fresh.Save(t.Context(), []string{"hello"}, SaveOptions{}, &saved); err != nil || saved.Len() == 0 {
		t.Errorf("save it before it is there: %v", err)
	}
}

func TestInspectAndHistory(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base:1", file1("bin/a", "program"))
	c := base.Config.Config
	c.Cmd = []string{"/bin/b"}
	if _, err := s.Commit(t.Context(), layer(t, file1("bin/b", "b")), CommitOptions{Parent: base, Ref: "child:1", Config: c, Author: "me", Comment: "why"}); err != nil {
		t.Fatal(err)
	}
	i, err := s.Inspect(t.Context(), "child:1", nil)
	if err != nil || i.RepoTags[0] != "child:1" || !strings.HasPrefix(i.RepoDigests[0], "child@sha256:") || i.Author != "me" || i.Comment != "why" || i.Os != "linux" ||
		len(i.RootFS.Layers) != 2 || i.RootFS.Type != "layers" || i.Size == 0 || i.Created == "" || i.Descriptor.Digest.String() != i.ID || i.Metadata.LastTagTime.IsZero() {
		t.Fatalf("%+v %v", i, err)
	}
	if i, err = s.Inspect(t.Context(), "child:1", &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}); err != nil || i.Descriptor.Platform == nil || i.Descriptor.Platform.OS != "linux" {
		t.Errorf("of one platform: %+v %v", i.Descriptor, err)
	}
	h, err := s.History(t.Context(), "child:1", nil)
	if err != nil || len(h) != 2 || h[0].Comment != "why" || h[0].ID != i.ID || h[0].Tags[0] != "child:1" || h[1].ID != "<missing>" || h[1].CreatedBy != "import" || h[0].Size == 0 {
		t.Fatalf("%+v %v", h, err)
	}
}

// TestEventsOfImages: they have the image's labels, by which people choose among them; a label is no owner and no name.
func TestEventsOfImages(t *testing.T) {
	s := open(t)
	if _, err := s.Import(t.Context(), layer(t, file1("a", "b")), ImportOptions{Ref: "app:1", Changes: []string{"LABEL team=blue name=x " + access.OwnerAttribute + "=someone"}}); err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := errors.Join(s.Tag(t.Context(), "app:1", "app:2"), s.Save(t.Context(), []string{"app:2"}, SaveOptions{}, &saved), s.Load(t.Context(), &saved, TransferOptions{})); err != nil {
		t.Fatal(err)
	}
	base, err := s.Resolve(t.Context(), "app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), layer(t, file1("c", "d")), CommitOptions{Parent: base, Ref: "app:3", Config: base.Config.Config, Changes: []string{"LABEL team=red"}}); err != nil {
		t.Fatal(err)
	}
	ctx, done := heldBy(t, s)
	defer done()
	built, _ := build(ctx, t, s, base, chainID(base.Config.RootFS.DiffIDs))
	if err := Keep(ctx, s, built); err != nil {
		t.Fatal(err)
	}
	hear := func(scope access.Scope) (told []string) {
		if err := s.events.Subscribe(access.With(t.Context(), scope), time.Unix(1, 0), time.Now(), func(m events.Message) error {
			told = append(told, string(m.Action)+" "+strings.TrimPrefix(m.Actor.Attributes["name"], m.Actor.ID)+" "+m.Actor.Attributes["team"])
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return told
	}
	told := hear(access.Scope{})
	if theirs := hear(access.Scope{Owner: "someone", Limited: true}); len(theirs) > 0 {
		t.Errorf("who is named in a label hears %q", theirs)
	}
	if want := []string{"import app:1 blue", "tag app:2 blue", "save app:2 blue", "load app:2 blue", "tag app:3 red", "create  ", "tag app:1 "}; !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
}
