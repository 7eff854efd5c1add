package container

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/image"
)

// TestWhatIsMadeOnAnImage: more layers, or more steps without one; not what shares only its beginning.
func TestWhatIsMadeOnAnImage(t *testing.T) {
	made := func(layers string, steps ...string) *image.Image {
		img := &image.Image{}
		for _, l := range layers {
			img.Config.RootFS.DiffIDs = append(img.Config.RootFS.DiffIDs, digest.FromString(string(l)))
		}
		for _, s := range steps {
			at := time.Unix(1000, 0)
			img.Config.History = append(img.Config.History, ocispec.History{CreatedBy: s, Created: &at})
		}
		return img
	}
	base := made("ab", "one", "two")
	for _, row := range []struct {
		what string
		img  *image.Image
		want bool
	}{
		{"itself", made("ab", "one", "two"), false},
		{"a layer more", made("abc", "one", "two", "three"), true},
		{"a label more", made("ab", "one", "two", "LABEL a=b"), true},
		{"other steps", made("ab", "one", "2", "LABEL a=b"), false},
		{"a layer less", made("a", "one", "two", "three"), false},
		{"other layers", made("acb", "one", "two", "three"), false},
	} {
		if got := isMadeOn(row.img, base); got != row.want {
			t.Errorf("%s: %v", row.what, got)
		}
	}
	if isMadeOn(made("ab", "x"), made("ab")) || isMadeOn(base, made("")) {
		t.Error("an image that tells of no steps, or has no layers, is no base of its equals")
	}
}

// listed are the names of a list, sorted.
func (e *engine) listed(o ListOptions) []string {
	e.t.Helper()
	list, err := e.List(context.Background(), o)
	if err != nil {
		e.t.Fatal(err)
	}
	names := []string{}
	for _, s := range list {
		names = append(names, strings.TrimPrefix(s.Names[0], "/"))
	}
	slices.Sort(names)
	return names
}

func only(filter string, values ...string) map[string]map[string]bool {
	set := map[string]bool{}
	for _, v := range values {
		set[v] = true
	}
	return map[string]map[string]bool{filter: set}
}

func TestFilters(t *testing.T) {
	e := newEngine(t)
	web := network.MustParsePort("80/tcp")
	e.create(request{name: "made", c: container.Config{Labels: map[string]string{"a": "1", "b": "2"}, ExposedPorts: network.PortSet{web: {}}}})
	e.exitOf(request{name: "ended", cmd: sh("exit 3"), c: container.Config{Labels: map[string]string{"a": "2"}}})
	up := e.run(request{name: "up", cmd: sh("sleep 1000"), h: container.HostConfig{NetworkMode: "bridge", Binds: []string{"vol:/data", "/tmp:/host"}, PortBindings: network.PortMap{web: {{HostPort: "8080"}}}}})
	frozen := e.run(request{name: "frozen", cmd: sh("sleep 1000"), h: container.HostConfig{NetworkMode: "host", Annotations: map[string]string{"tier": "front"}}})
	if err := e.Pause(context.Background(), frozen, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	e.run(request{name: "checked", cmd: sh("sleep 1000"), c: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Hour}}})
	everything := []string{"checked", "ended", "frozen", "made", "up"}
	if got := e.listed(ListOptions{}); !slices.Equal(got, []string{"checked", "frozen", "up"}) {
		t.Errorf("what runs: %v", got)
	}
	if got := e.listed(ListOptions{Limit: 2}); !slices.Equal(got, []string{"checked", "frozen"}) {
		t.Errorf("the last two: %v", got)
	}
	for _, row := range []struct {
		filters map[string]map[string]bool
		want    []string
	}{
		{nil, everything},
		{only("name", "de"), []string{"ended", "made"}},
		{only("name", "^/up$"), []string{"up"}},
		{only("name", "^u", "^f"), []string{"frozen", "up"}},
		{only("id", "^"+up[:10]), []string{"up"}},
		{only("label", "a"), []string{"ended", "made"}},
		{only("label", "a=1"), []string{"made"}},
		{only("label", "a", "b=2"), []string{"made"}},
		{only("label", "a=9"), []string{}},
		{only("annotation", "tier"), []string{"frozen"}},
		{only("annotation", "tier=back"), []string{}},
		{only("status", "paused", "created"), []string{"frozen", "made"}},
		{only("status", "exited"), []string{"ended"}},
		{only("exited", "3"), []string{"ended"}},
		{only("exited", "0"), []string{}},
		{only("health", "starting"), []string{"checked"}},
		{only("health", "none"), []string{"ended", "frozen", "made", "up"}},
		{only("before", "up"), []string{"ended", "made"}},
		{only("since", "up"), []string{"checked", "frozen"}},
		{only("ancestor", "busybox:1"), everything},
		{only("ancestor", "busybox"), []string{}},
		{only("volume", "vol"), []string{"up"}},
		{only("volume", "/data"), []string{"up"}},
		{only("volume", "/tmp"), []string{"up"}},
		{only("network", "host"), []string{"frozen"}},
		{only("publish", "8080"), []string{"up"}},
		{only("publish", "8070-8090/tcp"), []string{"up"}},
		{only("publish", "8080/udp"), []string{}},
		{only("publish", "80"), []string{}},
		{only("expose", "80/tcp"), []string{"made"}},
		{only("is-task", "true"), []string{}},
		{only("is-task", "false"), everything},
	} {
		if got := e.listed(ListOptions{All: true, Filters: row.filters}); !slices.Equal(got, row.want) {
			t.Errorf("%v: %v; want %v", row.filters, got, row.want)
		}
	}
	for _, bad := range []map[string]map[string]bool{only("stat", "x"), only("status", "up"), only("exited", "x"), only("health", "ill"), only("name", "("), only("publish", "x")} {
		if _, err := e.List(context.Background(), ListOptions{Filters: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := e.List(context.Background(), ListOptions{Filters: only("before", "nosuch")}); !errdefs.IsNotFound(err) {
		t.Errorf("before what is not there: %v", err)
	}
}

func TestSummary(t *testing.T) {
	e := newEngine(t)
	e.run(request{name: "box", cmd: []string{"sh", "-c", "sleep 1000"}, c: container.Config{Labels: map[string]string{"k": "v"}}, h: container.HostConfig{Binds: []string{"/tmp:/host:ro"}}})
	list, err := e.List(context.Background(), ListOptions{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s := list[0]
	if s.Command != "sh -c 'sleep 1000'" || s.Image != "busybox:1" || s.State != "running" || s.Status != "Up Less than a second" && !strings.HasPrefix(s.Status, "Up ") || s.Labels["k"] != "v" {
		t.Errorf("%+v", s)
	}
	if len(s.Mounts) != 1 || s.Mounts[0].Destination != "/host" || s.Mounts[0].RW {
		t.Errorf("mounts %+v", s.Mounts)
	}
	if _, err := e.images.Remove(context.Background(), "busybox:1", image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if list, err = e.List(context.Background(), ListOptions{}); err != nil || list[0].Image != list[0].ImageID || !strings.HasPrefix(list[0].Image, "sha256:") {
		t.Errorf("the image's name is gone: %q %v", list[0].Image, err)
	}
}

func TestStatusText(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for _, row := range []struct {
		r      Record
		health *container.Health
		want   string
	}{
		{Record{Status: Created}, nil, "Created"},
		{Record{Status: Running, StartedAt: ago(3*time.Minute + time.Second)}, nil, "Up 3 minutes"},
		{Record{Status: Running, StartedAt: ago(3*time.Minute + time.Second)}, &container.Health{Status: container.Healthy}, "Up 3 minutes (healthy)"},
		{Record{Status: Running, StartedAt: ago(90 * time.Minute)}, &container.Health{Status: container.Starting}, "Up 2 hours (health: starting)"},
		{Record{Status: Running, StartedAt: ago(70 * time.Second)}, &container.Health{Status: container.Unhealthy}, "Up About a minute (unhealthy)"},
		{Record{Status: Paused, StartedAt: ago(5 * 24 * time.Hour)}, &container.Health{Status: container.Healthy}, "Up 5 days (Paused)"},
		{Record{Status: Restarting, ExitCode: 1, StartedAt: ago(time.Hour), FinishedAt: ago(5*time.Second + time.Millisecond)}, nil, "Restarting (1) 5 seconds ago"},
		{Record{Status: Exited, ExitCode: 137, StartedAt: ago(time.Hour), FinishedAt: ago(21*24*time.Hour + time.Minute)}, nil, "Exited (137) 3 weeks ago"},
		{Record{Status: Running, Restarted: "fresh", StartedAt: ago(10*time.Second + time.Millisecond)}, nil, "Up 10 seconds, restarted fresh"},
		{Record{Status: Running, Restarted: "kept", StartedAt: ago(10*time.Second + time.Millisecond)}, nil, "Up 10 seconds"},
		{Record{Status: Removing}, nil, "Removal In Progress"},
		{Record{Status: Dead}, nil, "Dead"},
	} {
		if got := statusText(&row.r, row.health); got != row.want {
			t.Errorf("%q; want %q", got, row.want)
		}
	}
}

func TestPortList(t *testing.T) {
	p := network.MustParsePort
	got := portList(network.PortMap{p("80/tcp"): {{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: "8080"}, {HostIP: netip.MustParseAddr("::"), HostPort: "8080"}},
		p("53/udp"): nil})
	want := []container.PortSummary{{PrivatePort: 53, Type: "udp"}, {IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		{IP: netip.MustParseAddr("::"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestInspect(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: []string{"sh", "-c", "sleep 1000"}, c: container.Config{Hostname: "inside"}, h: container.HostConfig{Binds: []string{"/tmp:/host"}}})
	got, err := e.Inspect(ctx, "box")
	if err != nil {
		t.Fatal(err)
	}
	s := got.State
	if got.ID != id || got.Name != "/box" || got.Path != "sh" || !slices.Equal(got.Args, []string{"-c", "sleep 1000"}) || got.Config.Hostname != "inside" {
		t.Errorf("%+v", got.InspectResponse)
	}
	if s.Status != "running" || !s.Running || s.Pid == 0 || s.Health != nil || s.FinishedAt != "0001-01-01T00:00:00Z" {
		t.Errorf("state %+v", s)
	}
	if got.GraphDriver.Name != "overlayfs" || got.GraphDriver.Data["UpperDir"] == "" || got.Storage.RootFS.Snapshot.Name == "" || len(got.Mounts) != 1 {
		t.Errorf("storage %+v %+v %+v", got.GraphDriver, got.Storage, got.Mounts)
	}
	if got.NetworkSettings.Networks["none"] == nil || got.NetworkSettings.SandboxKey == "" || got.Wherry.Cgroup == "" || got.Wherry.UserNamespace == "" || got.ExecIDs != nil {
		t.Errorf("%+v %+v", got.NetworkSettings, got.Wherry)
	}
	v, err := e.View(ctx, id)
	if err != nil || !v.Running || v.Init == nil || v.Cgroup == nil || v.Pid != s.Pid || v.Rootfs.Upper != got.GraphDriver.Data["UpperDir"] {
		t.Errorf("view %+v %v", v, err)
	}
	if v.Init != nil {
		v.Init.Close()
	}
	if err := e.Kill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	e.eventually("it has ended", func() bool { return e.rec(id).Status == Exited })
	if got, err = e.Inspect(ctx, id); err != nil || got.State.Running || got.State.Pid != 0 || got.State.ExitCode != 137 || got.NetworkSettings.SandboxKey != "" {
		t.Errorf("%+v %v", got.State, err)
	}
	if v, err = e.View(ctx, id); err != nil || v.Running || v.Init != nil || v.Cgroup != nil {
		t.Errorf("view %+v %v", v, err)
	}
	e.start(id)
	if got, err = e.Inspect(ctx, id); err != nil || got.Wherry.Restarted != "kept" {
		t.Errorf("started again: %+v %v", got.Wherry, err)
	}
	if _, err := e.Inspect(ctx, "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("no such container: %v", err)
	}
}
