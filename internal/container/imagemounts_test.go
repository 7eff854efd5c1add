package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/trust"
)

// dataImage is an image of files and hostile links.
func (e *engine) dataImage(name string) {
	e.t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Name: "top", Mode: 0o644, Size: 3}, {Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "dir/inner", Mode: 0o640, Uid: 101, Size: 3},
		{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../etc"},
		{Name: "proc", Typeflag: tar.TypeSymlink, Linkname: "/proc/self/root/etc"}, {Name: "to-dir", Typeflag: tar.TypeSymlink, Linkname: "/dir"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			e.t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("abc")); err != nil {
				e.t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.images.Import(context.Background(), &layer, image.ImportOptions{Ref: name}); err != nil {
		e.t.Fatal(err)
	}
}

func imageMount(source, target, subpath string) container.HostConfig {
	m := mount.Mount{Type: mount.TypeImage, Source: source, Target: target}
	if subpath != "" {
		m.ImageOptions = &mount.ImageOptions{Subpath: subpath}
	}
	return container.HostConfig{Mounts: []mount.Mount{m}}
}

// TestImageMounts: an image's files are seen with the container's ids and cannot be changed; parts of it are found inside it, whatever its
// links say; it stays while the container does.
func TestImageMounts(t *testing.T) {
	e := newEngine(t)
	e.dataImage("data:1")
	rows := []struct{ subpath, cmd, want string }{
		{"", "cat /x/top; stat -c '%u %a' /x/dir/inner; echo y 2>/dev/null >/x/new || echo refused; rm -f /x/top 2>/dev/null || echo refused", "abc101 640\nrefused\nrefused\n"},
		{"dir", "ls /x; cat /x/inner", "inner\nabc"},
		{"dir/inner", "cat /x", "abc"},
	}
	for _, row := range rows {
		for _, privileged := range []bool{false, true} {
			h := imageMount("data:1", "/x", row.subpath)
			h.Privileged, h.ReadonlyRootfs = privileged, row.subpath == "dir"
			id := e.create(request{cmd: sh(row.cmd), h: h})
			exit := e.arm(id, container.WaitConditionNextExit)
			e.start(id)
			if e.take(exit); e.output(id) != row.want {
				t.Errorf("%q, privileged %v: %q", row.subpath, privileged, e.output(id))
			}
		}
	}
	for _, bad := range []string{"etc", "up", "proc", "to-dir", "missing", "dir/../../../etc/x"} {
		id, err := e.tryCreate(request{cmd: sh("ls /x"), h: imageMount("data:1", "/x", bad)})
		if err == nil {
			err = e.Start(context.Background(), id)
		}
		if err == nil || !strings.Contains(err.Error(), "path") {
			t.Errorf("subpath %s: %v", bad, err)
		}
	}
	for _, bad := range []string{"/etc", "../etc"} {
		if _, err := e.tryCreate(request{cmd: sh("true"), h: imageMount("data:1", "/x", bad)}); err == nil || !strings.Contains(err.Error(), "subpath must be a relative path within the volume") {
			t.Errorf("subpath %s: %v", bad, err)
		}
	}
	if left, _ := filepath.Glob(e.o.imagesDir("*")); len(left) > 0 {
		t.Errorf("left attached: %v", left)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), e.o.imagesDir("")) {
		t.Errorf("left attached: %v", err)
	}
}

// TestMountedImagesStay: what is mounted is what the name meant at creation, and is neither removed nor collected, over restarts too.
func TestMountedImagesStay(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	e.dataImage("data:1")
	id := e.create(request{name: "user", cmd: sh("cat /x/top; sleep 100"), h: imageMount("data:1", "/x", "")})
	first := e.rec(id).Mounts[0].Image
	if _, err := e.images.Remove(ctx, "data:1", image.RemoveOptions{}); err == nil || !strings.Contains(err.Error(), id[:12]) {
		t.Errorf("an image that is mounted was removed: %v", err)
	}
	if _, err := e.images.Remove(ctx, "data:1", image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	e.dataImage("data:1") // another image has the name now
	e.again()
	if _, err := e.images.Prune(ctx, map[string]map[string]bool{"dangling": {"true": true}}); err != nil {
		t.Fatal(err)
	}
	e.start(id)
	e.eventually("output", func() bool { return e.output(id) == "abc" })
	seen, err := e.Inspect(ctx, id)
	if err != nil || len(seen.Mounts) != 1 {
		t.Fatal(seen.Mounts, err)
	}
	m := seen.Mounts[0]
	if m.Type != mount.TypeImage || m.Name != "data:1" || m.Source != first.ID.String() || m.Destination != "/x" || m.RW {
		t.Errorf("inspect shows %+v", m)
	}
	// One that takes the volumes over pins it too.
	other := e.create(request{cmd: sh("cat /x/top"), h: container.HostConfig{VolumesFrom: []string{"user"}}})
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.images.Remove(ctx, first.ID.String(), image.RemoveOptions{}); err == nil {
		t.Error("an image that is mounted by --volumes-from was removed")
	}
	exit := e.arm(other, container.WaitConditionNextExit)
	e.start(other)
	if e.take(exit); e.output(other) != "abc" {
		t.Errorf("%q", e.output(other))
	}
	if err := e.Remove(ctx, other, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.images.Remove(ctx, first.ID.String(), image.RemoveOptions{}); err != nil {
		t.Errorf("nobody mounts it any more: %v", err)
	}
	if _, err := e.tryCreate(request{cmd: sh("true"), h: imageMount("missing:1", "/x", "")}); err == nil || !strings.Contains(err.Error(), "No such image: missing:1") {
		t.Errorf("a missing image: %v", err)
	}
}

// TestMountedArtifact: an artifact is a directory of its files.
func TestMountedArtifact(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, name := range []string{"model.bin", "doc/readme"} {
		if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 4}), func() error { _, err := w.Write([]byte("data")); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	artifacts := image.Artifacts{S: e.images}
	if _, err := artifacts.Add(ctx, &files, image.AddOptions{Name: "model:1"}); err != nil {
		t.Fatal(err)
	}
	id := e.create(request{cmd: sh("cd /m; stat -c '%u %a' model.bin; cat model.bin doc/readme; echo x 2>/dev/null >>model.bin || echo refused"), h: imageMount("model:1", "/m", "")})
	if err := artifacts.Remove(ctx, "model:1"); err == nil {
		t.Error("an artifact that is mounted was removed")
	}
	e.again()
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if e.take(exit); e.output(id) != "0 444\ndatadatarefused\n" {
		t.Errorf("%q", e.output(id))
	}
}

// TestMountedImagesArePermitted: the policy is asked for what a container mounts as for what it is made of, at each start too, and by the name
// that was mounted.
func TestMountedImagesArePermitted(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "policy.toml")
	policy := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte("default = \"accept\"\nlocal = \"as-named\"\n"+text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	policy("")
	e.trust = trust.New(trust.Options{Policy: path})
	e.again()
	e.dataImage("data:1")
	id := e.create(request{name: "user", cmd: sh("cat /x/top"), h: imageMount("data:1", "/x", "")})
	if m := e.rec(id).Mounts[0].Image; m.Ref != "docker.io/library/data:1" || m.Type == "" {
		t.Errorf("noted: %+v", m)
	}
	policy("[[rule]]\nscope = \"docker.io/library/data\"\naction = \"reject\"")
	for _, again := range []bool{false, true} {
		if again {
			e.again()
		}
		if err := e.Start(ctx, id); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "image data:1 is refused") {
			t.Errorf("started: %v", err)
		}
		for _, h := range []container.HostConfig{imageMount("data:1", "/x", ""), {VolumesFrom: []string{"user"}}} {
			if _, err := e.tryCreate(request{cmd: sh("true"), h: h}); !errdefs.IsPermissionDenied(err) {
				t.Errorf("created: %v", err)
			}
		}
	}
	policy("")
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if e.take(exit); e.output(id) != "abc" {
		t.Errorf("%q", e.output(id))
	}
}
