package container

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// TestVolumesWithOptions: what a volume's options mount is filled like any other; a container that cannot be made holds nothing.
func TestVolumesWithOptions(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for name, options := range map[string]map[string]string{
		"ram":   {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
		"bound": {"type": "none", "device": t.TempDir(), "o": "bind"},
		"never": {"type": "none", "device": filepath.Join(t.TempDir(), "missing"), "o": "bind"},
	} {
		if _, err := e.vols.Create(ctx, volume.CreateRequest{Name: name, DriverOpts: options}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ram", "bound"} {
		id := e.create(request{cmd: sh("cat /data/file && ls -A /data && stat -c '%u %a' /data/file"), h: container.HostConfig{Binds: []string{name + ":/data"}}})
		exit := e.arm(id, container.WaitConditionNextExit)
		e.start(id)
		if code := e.take(exit); code != 0 || e.output(id) != "from-image\nfile\nlink\nsub\n101 644\n" {
			t.Errorf("%s: %d %q", name, code, e.output(id))
		}
	}
	// After a reboot nothing is mounted: what is not there is mounted again, or the start says why it cannot be.
	source := filepath.Join(t.TempDir(), "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := e.vols.Create(ctx, volume.CreateRequest{Name: "later", DriverOpts: map[string]string{"type": "none", "device": source, "o": "bind"}}); err != nil {
		t.Fatal(err)
	}
	id := e.create(request{cmd: sh("cat /home/mark"), h: container.HostConfig{Binds: []string{"later:/home"}}})
	if err := errors.Join(os.WriteFile(filepath.Join(source, "mark"), []byte("here"), 0o644), unix.Unmount(filepath.Join(e.o.Root, "volumes/later/_data"), 0), os.Rename(source, source+"-away")); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx, id); err == nil || !strings.Contains(err.Error(), "volume later") {
		t.Errorf("started without its volume's file system: %v", err)
	}
	if err := os.Rename(source+"-away", source); err != nil {
		t.Fatal(err)
	}
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "here" {
		t.Errorf("%d %q", code, e.output(id))
	}
	q := request{cmd: sh("true"), c: container.Config{Volumes: map[string]struct{}{"/anonymous": {}}}, h: container.HostConfig{Binds: []string{"never:/data", "other:/home"}}}
	if _, err := e.tryCreate(q); err == nil {
		t.Error("a container of a volume that cannot be mounted is made")
	}
	list, err := e.vols.Usage(ctx)
	if err != nil || len(list) > 5 {
		t.Errorf("volumes are left: %+v, %v", list, err)
	}
	for _, v := range list {
		if v.UsageData.RefCount != 0 && v.Name != "ram" && v.Name != "bound" && v.Name != "later" {
			t.Errorf("volume %s is in use", v.Name)
		}
	}
}

// TestReadOnlyRoot: the places of mounts are made before the root becomes read-only.
func TestReadOnlyRoot(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: sh("touch /new 2>/dev/null || echo refused; echo x >/made/there && cat /made/there"), h: container.HostConfig{
		ReadonlyRootfs: true, Binds: []string{"some:/made"}}})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "refused\nx\n" {
		t.Errorf("%d %q", code, e.output(id))
	}
}

// TestModesOfMounts are told as Docker tells them: that of a volume of -v or --mount is z where none was given, an image's has none.
func TestModesOfMounts(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: sh("true"), c: container.Config{Volumes: map[string]struct{}{"/of-image": {}}}, h: container.HostConfig{
		Binds:  []string{"named:/named", "named:/read:ro", t.TempDir() + ":/bind"},
		Mounts: []mount.Mount{{Type: mount.TypeVolume, Target: "/anonymous"}, {Type: mount.TypeTmpfs, Target: "/ram"}},
	}})
	got := map[string]string{}
	for _, m := range e.rec(id).Mounts {
		got[m.Destination] = m.Mode
	}
	if want := map[string]string{"/named": "z", "/read": "ro", "/bind": "", "/anonymous": "z", "/ram": "", "/of-image": ""}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestVolumeEvents: as dockerd tells it, a volume is mounted at each start of a container and unmounted at its end, not at its creation and removal.
func TestVolumeEvents(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: sh("true"), h: container.HostConfig{Binds: []string{"told:/told:ro"}}})
	for range 2 {
		exit := e.arm(id, container.WaitConditionNextExit)
		e.start(id)
		e.take(exit)
	}
	if err := e.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.o.Events.Subscribe(ctx, time.Unix(1, 0), time.Now(), func(m events.Message) error {
		if m.Type == events.VolumeEventType || m.Action == events.ActionStart || m.Action == events.ActionDie {
			got = append(got, string(m.Action))
		}
		at := m.Actor.Attributes
		if m.Action == events.ActionMount && (m.Actor.ID != "told" || at["container"] != id || at["destination"] != "/told" || at["read/write"] != "false" || at["driver"] != "local") {
			t.Errorf("mount: %+v", m)
		}
		if m.Action == events.ActionUnmount && (m.Actor.ID != "told" || at["container"] != id || at["driver"] != "local" || len(at) != 2) {
			t.Errorf("unmount: %+v", m)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "create mount start unmount die mount start unmount die"; strings.Join(got, " ") != want {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestVolumesOfTwoContainers: where both have a volume at the same place the one of the last --volumes-from is mounted, as with Docker; and what options say
// of volumes they do not say of folders.
func TestVolumesOfTwoContainers(t *testing.T) {
	e := newEngine(t)
	for _, name := range []string{"first", "second"} {
		e.create(request{name: name, cmd: sh("true"), h: container.HostConfig{Binds: []string{name + ":/both", name + "-own:/" + name}}})
	}
	id := e.create(request{cmd: sh("true"), h: container.HostConfig{VolumesFrom: []string{"first", "second:ro"}}})
	got := map[string]string{}
	for _, m := range e.rec(id).Mounts {
		got[m.Destination] = m.Name
	}
	if !maps.Equal(got, map[string]string{"/both": "second", "/first": "first-own", "/second": "second-own"}) {
		t.Errorf("%v", got)
	}
	for bind, says := range map[string]string{"first:/x:shared": "not of volumes", t.TempDir() + ":/x:nocopy": "a folder of the host", "first:/x:rshard": "did you mean rshared"} {
		if _, err := e.tryCreate(request{cmd: sh("true"), h: container.HostConfig{Binds: []string{bind}}}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", bind, err)
		}
	}
}

// TestVolumesOfAnotherAreNotFilled: what --volumes-from brings is as the other container has it, empty where it is, whatever the image has at that place.
func TestVolumesOfAnotherAreNotFilled(t *testing.T) {
	e := newEngine(t)
	e.dataImage("bare:1")
	e.create(request{name: "owner", c: container.Config{Image: "bare:1"}, cmd: []string{"/none"}, h: container.HostConfig{Binds: []string{"empty:/data"}}})
	id := e.create(request{cmd: sh("cat /data/file"), h: container.HostConfig{VolumesFrom: []string{"owner"}}})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code == 0 || strings.Contains(e.output(id), "from-image") {
		t.Errorf("%d %q", code, e.output(id))
	}
	id = e.create(request{cmd: sh("cat /data/file"), h: container.HostConfig{Binds: []string{"empty:/data"}}})
	exit = e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "from-image\n" {
		t.Errorf("by its name: %d %q", code, e.output(id))
	}
}
