package container

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/sandbox"
)

// TestLinks: a link is to a container, not to a name, and gives it a further one.
func TestLinks(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	bridge := func(links ...string) container.HostConfig {
		return container.HostConfig{NetworkMode: "bridge", Links: links}
	}
	if _, err := e.tryCreate(request{cmd: sh("true"), h: bridge("nobody")}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a link to nobody: %v", err)
	}
	e.create(request{name: "other", cmd: sh("true"), h: container.HostConfig{NetworkMode: "host"}})
	if _, err := e.tryCreate(request{cmd: sh("true"), h: bridge("other")}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a link to one on the host's network: %v", err)
	}
	db := e.run(request{name: "db", cmd: sh("sleep 3600"), c: container.Config{Hostname: "fred"}, h: bridge()})
	e.run(request{name: "guest", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "container:db"}})
	id := e.run(request{cmd: sh("sleep 3600"), h: bridge("guest")})
	if l := e.rec(id).Links; len(l) != 1 || l[0].ID != db { // who shares another's network is reached there
		t.Errorf("a link to one in another's network: %v", l)
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	app := e.create(request{name: "app", cmd: sh("grep -w mysql /etc/hosts"), h: bridge("db:/mysql", "db")})
	if err := e.Rename(ctx, db, "old"); err != nil {
		t.Fatal(err)
	}
	e.create(request{name: "db", cmd: sh("true"), h: bridge()})
	if err := e.Rename(ctx, app, "web"); err != nil {
		t.Fatal(err)
	}
	about, err := e.Inspect(ctx, app)
	if want := []string{"/old:/web/mysql", "/old:/web/db"}; err != nil || !slices.Equal(about.HostConfig.Links, want) {
		t.Errorf("links are shown as %v, %v; want %v", about.HostConfig.Links, err, want)
	}
	if about, err = e.Inspect(ctx, "web/mysql"); err != nil || about.ID != db {
		t.Errorf("web/mysql is %s, %v", about.ID, err)
	}
	if _, err = e.Inspect(ctx, "web/else"); !errdefs.IsNotFound(err) {
		t.Errorf("web/else: %v", err)
	}
	list, err := e.List(ctx, ListOptions{All: true, Filters: map[string]map[string]bool{"id": {db: true}}})
	if err != nil || len(list) != 1 || !slices.Equal(list[0].Names, []string{"/old", "/web/db", "/web/mysql"}) {
		t.Errorf("list: %+v, %v", list, err)
	}
	answer := e.arm(app, container.WaitConditionNextExit)
	e.start(app)
	if code := e.take(answer); code != 0 {
		t.Errorf("the link's alias is not in /etc/hosts: exit %d", code)
	}
	follows := e.run(request{name: "follows", cmd: sh("sleep 3600"), h: bridge("old:alias")})
	now := 0
	if err := e.Stop(ctx, db, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx, app); err == nil || !strings.Contains(err.Error(), "non running container: /old AS /web/mysql") {
		t.Errorf("a start before the other one: %v", err)
	}
	e.run(request{name: "between", cmd: sh("sleep 3600"), h: bridge()}) // has the address now
	e.start(db)
	if about, err = e.Inspect(ctx, db); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(sandbox.FilesIn(e.o.etcDir(follows)).Hosts)
	if want := about.NetworkSettings.Networks["bridge"].IPAddress.String() + "\talias fred old"; err != nil || !strings.Contains(string(hosts), want) {
		t.Errorf("not %q: %s, %v", want, hosts, err)
	}
}

// TestLinkEnvironment: ports, ranges of them, and the other's variables, for the program and for execs.
func TestLinkEnvironment(t *testing.T) {
	to := &Record{Config: &container.Config{Env: []string{"PATH=/bin", "MODE=fast", "EMPTY="}, ExposedPorts: network.PortSet{}}}
	for _, p := range []string{"8081/tcp", "53/udp", "8080/tcp", "53/tcp", "8082/tcp"} {
		to.Config.ExposedPorts[network.MustParsePort(p)] = struct{}{}
	}
	got := linkVariables("/web/my-db", netip.MustParseAddr("172.17.0.2"), to)
	for _, want := range []string{
		"MY_DB_PORT=tcp://172.17.0.2:53", "MY_DB_PORT_53_TCP=tcp://172.17.0.2:53", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_PORT_8080_TCP_START=tcp://172.17.0.2:8080",
		"MY_DB_PORT_8080_TCP_PORT_END=8082", "MY_DB_PORT_8081_TCP_ADDR=172.17.0.2", "MY_DB_NAME=/web/my-db", "MY_DB_ENV_MODE=fast", "MY_DB_ENV_EMPTY=",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %q", want, got)
		}
	}
	if n := len(got); n != 1+5*4+4+1+2 {
		t.Errorf("%d variables: %q", n, got)
	}
	e := newEngine(t)
	h := container.HostConfig{NetworkMode: "bridge"}
	e.run(request{name: "db", cmd: sh("sleep 3600"), c: container.Config{Env: []string{"KIND=pg"}}, h: h})
	h.Links = []string{"db:store", "db:other"}
	app := e.run(request{name: "app", cmd: sh("echo $STORE_NAME $STORE_ENV_KIND; sleep 3600"), c: container.Config{Env: []string{"OTHER_NAME=mine"}}, h: h})
	e.eventually("the program's variables", func() bool { return strings.Contains(e.output(app), "/app/store pg") })
	if got := e.exec(app, container.ExecCreateRequest{Cmd: sh("echo $STORE_NAME $OTHER_NAME")}, nil); got.out != "/app/store mine\n" {
		t.Errorf("an exec's: %+v", got)
	}
	if err := Unlink(t.Context(), e.Service, "app", "store"); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(sandbox.FilesIn(e.o.etcDir(app)).Hosts)
	if err != nil || strings.Contains(string(hosts), "store") || !strings.Contains(string(hosts), "other") {
		t.Errorf("%s, %v", hosts, err)
	}
	e.again()
	for alias, class := range map[string]func(error) bool{"store": errdefs.IsNotFound, "": errdefs.IsConflict} {
		if err := Unlink(t.Context(), e.Service, "app", alias); !class(err) {
			t.Errorf("unlink %q: %v", alias, err)
		}
	}
	about, err := e.Inspect(t.Context(), app)
	if err != nil || !slices.Equal(about.HostConfig.Links, []string{"/db:/app/other"}) {
		t.Errorf("links %v, %v", about.HostConfig.Links, err)
	}
	if on := about.NetworkSettings.Networks["bridge"]; on == nil || on.Links != nil { // where Docker shows those of networks of one's own
		t.Errorf("on its network: %+v", on)
	}
}

// TestNetworksOfACreate: networks that are named are all that there are, and a port that is published nowhere in particular gets a free one.
func TestNetworksOfACreate(t *testing.T) {
	only, err := requestedNetworks("bridge", &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"blue": nil}})
	if err != nil || len(only) != 1 || only["blue"] == nil {
		t.Errorf("%v, %v", only, err)
	}
	if none, err := requestedNetworks("bridge", nil); err != nil || len(none) != 1 || none["bridge"] == nil {
		t.Errorf("%v, %v", none, err)
	}
	port := network.MustParsePort("80/tcp")
	asked := container.HostConfig{PortBindings: network.PortMap{port: {}}}
	if got := withDefaults(&asked).PortBindings[port]; len(got) != 1 {
		t.Errorf("bindings %v", got)
	}
}

// TestNetworkOfOneOnTheHosts: who joins the network of a container that is on the host's is there too.
func TestNetworkOfOneOnTheHosts(t *testing.T) {
	e := newEngine(t)
	first := e.run(request{name: "first", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "host"}})
	second := e.run(request{name: "second", cmd: sh("ls /sys/class/net >/dev/null && sleep 3600"), h: container.HostConfig{NetworkMode: "container:first"}})
	link := func(id string) string {
		name, err := os.Readlink("/proc/" + strconv.Itoa(e.rec(id).Pid) + "/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	if a, b := link(first), link(second); a != b {
		t.Errorf("%s and %s", a, b)
	}
}

// TestNetworkOfOneInAnothers: --network container: leads to the one whose network it is, and to its files of /etc, over any number of containers.
func TestNetworkOfOneInAnothers(t *testing.T) {
	e := newEngine(t)
	in := func(name string) container.HostConfig {
		return container.HostConfig{NetworkMode: container.NetworkMode("container:" + name)}
	}
	first := e.run(request{name: "first", cmd: sh("echo 192.0.2.1 mark >>/etc/hosts; sleep 3600"), h: container.HostConfig{NetworkMode: "bridge"}})
	e.eventually("the line", func() bool {
		b, err := os.ReadFile(sandbox.FilesIn(e.o.etcDir(first)).Hosts)
		return err == nil && strings.Contains(string(b), "mark")
	})
	e.run(request{name: "second", cmd: sh("sleep 3600"), h: in("first")})
	third := e.create(request{name: "third", cmd: sh("grep -w mark /etc/hosts && cat /etc/hostname"), h: in("second")})
	exit := e.arm(third, container.WaitConditionNextExit)
	e.start(third)
	if code := e.take(exit); code != 0 || e.output(third) != "192.0.2.1 mark\n"+first[:12]+"\n" {
		t.Errorf("%d %q", code, e.output(third))
	}
	for _, name := range []string{"second", "third"} {
		if about, err := e.Inspect(context.Background(), name); err != nil || about.HostsPath != sandbox.FilesIn(e.o.etcDir(first)).Hosts {
			t.Errorf("%s has %s, %v", name, about.HostsPath, err)
		}
	}
}

// TestLinksFollowReplacement: who is linked to a container that is replaced is linked to the one in its place, and the new one to whom the old
// one was linked, whatever they are called by then.
func TestLinksFollowReplacement(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	h := func(links ...string) container.HostConfig {
		return container.HostConfig{NetworkMode: "bridge", Links: links}
	}
	cache := e.run(request{name: "cache", cmd: sh("sleep 3600"), h: h()})
	db := e.run(request{name: "db", cmd: sh("sleep 3600"), h: h("cache")})
	app := e.create(request{name: "app", cmd: sh("grep -w mysql /etc/hosts"), h: h("db:mysql")})
	if err := e.Rename(ctx, cache, "memory"); err != nil {
		t.Fatal(err)
	}
	now, err := Replace(ctx, e.Service, db, "busybox:1", ReplaceOptions{Settle: time.Millisecond, Drain: -1, Stop: StopOptions{Timeout: new(int)}})
	if err != nil {
		t.Fatal(err)
	}
	about, err := e.Inspect(ctx, now)
	if want := []string{"/memory:/db/cache"}; err != nil || !slices.Equal(about.HostConfig.Links, want) {
		t.Errorf("the new one's links: %v, %v; want %v", about.HostConfig.Links, err, want)
	}
	if about, err = e.Inspect(ctx, "app/mysql"); err != nil || about.ID != now {
		t.Errorf("app/mysql is %s, %v; want %s", about.ID, err, now)
	}
	answer := e.arm(app, container.WaitConditionNextExit)
	e.start(app)
	if code := e.take(answer); code != 0 {
		t.Errorf("the new one is not in /etc/hosts: exit %d", code)
	}
}

// TestLinkersAreIndexed: a start asks the index who is linked to it, not all containers.
func TestLinkersAreIndexed(t *testing.T) {
	x := newIndex()
	linked := newContainer(&Record{ID: "b", Links: []Link{{ID: "a", Alias: "db"}}}, "", "")
	x.add(newContainer(&Record{ID: "a"}, "", ""))
	x.add(linked)
	if got := x.linkers("a"); len(got) != 1 || got[0] != linked || len(x.linkers("b")) != 0 || len(x.links) != 1 {
		t.Errorf("linked to a: %v of %v", got, x.links)
	}
	x.remove(linked)
	if got := x.linkers("a"); len(got) != 0 || len(x.links) != 0 {
		t.Errorf("removed: %v of %v", got, x.links)
	}
}
