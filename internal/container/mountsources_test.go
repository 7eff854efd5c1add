package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/spec"
)

// TestEnginesOwnMounts: through a bind of a folder that has the engine's own mounts in it, the container loses them when the engine does.
func TestEnginesOwnMounts(t *testing.T) {
	o := &Options{Root: "/var/lib/wherry", State: "/run/wherry"}
	for source, want := range map[string]mount.Propagation{
		"/var/lib/wherry": "rslave", "/var/lib/wherry/volumes/x/_data": "rslave", "/var/lib": "rslave", "/": "rslave", "/run": "rslave",
		"/var/lib/wherry2": "rprivate", "/home": "rprivate", "/run/wherry/wherry.sock": "rprivate",
	} {
		for asked, means := range map[mount.Propagation]mount.Propagation{"": want, "rshared": "rshared", "rslave": "rslave", "rprivate": "rprivate", "slave": "slave"} {
			m := spec.Mount{Type: mount.TypeBind, Source: source, Propagation: asked}
			err := o.propagate(&m)
			if refused := want == "rslave" && (asked == "rprivate" || asked == "slave"); refused != (err != nil) || err != nil && !errdefs.IsInvalidArgument(err) || err == nil && m.Propagation != means {
				t.Errorf("%s %q: %q, %v", source, asked, m.Propagation, err)
			}
		}
	}
	e := newEngine(t)
	id := e.create(request{cmd: sh("grep -c ' /host ' /proc/self/mountinfo"), h: container.HostConfig{Binds: []string{"/:/host:ro"}}})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.rec(id).Mounts[0].Propagation != mount.PropagationRSlave {
		t.Errorf("%d, %+v", code, e.rec(id).Mounts)
	}
}

// TestMountsThatDoNotReach: a bind that is to share mounts needs a source that does, or else nothing would come through and nobody would say so.
func TestMountsThatDoNotReach(t *testing.T) {
	e := newEngine(t)
	kinds := map[string]uintptr{"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED, "slave": unix.MS_SLAVE}
	at := map[string]string{}
	for kind, flag := range kinds {
		dir := t.TempDir()
		for _, flags := range []uintptr{0, flag} {
			if err := unix.Mount("tmpfs", dir, "tmpfs", flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		if kind == "slave" { // of a peer that is still there
			peer := t.TempDir()
			for _, step := range []func() error{
				func() error { return unix.Mount("", dir, "", unix.MS_SHARED, "") },
				func() error { return unix.Mount(dir, peer, "", unix.MS_BIND, "") },
				func() error { return unix.Mount("", dir, "", unix.MS_SLAVE, "") },
			} {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			defer unix.Unmount(peer, unix.MNT_DETACH)
		}
		at[kind] = filepath.Join(dir, "part")
		if err := os.Mkdir(at[kind], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		kind string
		p    mount.Propagation
		want string
	}{
		{"private", "rshared", "is not a shared mount"}, {"private", "shared", "is not a shared mount"}, {"private", "rslave", "is not a shared or slave mount"},
		{"private", "slave", "is not a shared or slave mount"}, {"private", "rprivate", ""}, {"private", "", ""},
		{"slave", "rshared", "is not a shared mount"}, {"slave", "rslave", ""}, {"shared", "rshared", ""}, {"shared", "slave", ""},
	} {
		id := e.create(request{cmd: sh("true"), h: container.HostConfig{Mounts: []mount.Mount{
			{Type: mount.TypeBind, Source: at[row.kind], Target: "/m", BindOptions: &mount.BindOptions{Propagation: row.p}}}}})
		err := e.Start(context.Background(), id)
		if row.want == "" {
			if err != nil {
				t.Errorf("%s of a %s mount: %v", row.p, row.kind, err)
			}
			continue
		}
		if err == nil || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "path "+at[row.kind]+" is mounted on "+filepath.Dir(at[row.kind])) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s of a %s mount: %v", row.p, row.kind, err)
		}
	}
}

// TestReadOnlyFlat: for older clients "ro" leaves what is mounted below a folder alone; --tmpfs shows in the host configuration alone, and a
// working directory without its last slash.
func TestReadOnlyFlat(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(below, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, flat := range []bool{false, true} {
		made, err := e.Create(context.Background(), CreateRequest{
			ReadOnlyFlat: flat, Config: &container.Config{Image: "busybox:1", Cmd: sh("grep -o ' /[ab]/below [a-z]*' /proc/self/mountinfo"), WorkingDir: "/tmp/"},
			HostConfig: &container.HostConfig{NetworkMode: "none", Binds: []string{dir + ":/a:ro"}, Tmpfs: map[string]string{"/t/": ""},
				Mounts: []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: "/b", ReadOnly: true}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		about, err := e.Inspect(context.Background(), made.ID)
		if err != nil || len(about.Mounts) != 2 || about.Config.WorkingDir != "/tmp" {
			t.Errorf("%+v in %s, %v", about.Mounts, about.Config.WorkingDir, err)
		}
		exit := e.arm(made.ID, container.WaitConditionNextExit)
		e.start(made.ID)
		want := " /a/below ro\n /b/below ro\n"
		if flat {
			want = strings.ReplaceAll(want, "ro", "rw")
		}
		if e.take(exit); e.output(made.ID) != want {
			t.Errorf("flat %v: %q", flat, e.output(made.ID))
		}
	}
}
