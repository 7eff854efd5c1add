package container

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// interfacesOf lists a running container's interfaces.
func interfacesOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net/dev"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}

func TestConnect(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	if _, err := e.nets.Create(ctx, network.CreateRequest{Name: "blue"}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.nets.Remove(ctx, "blue"); err != nil {
			t.Error(err)
		}
	}()
	onBridge := container.HostConfig{NetworkMode: "bridge"}
	aliased := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"bridge": {Aliases: []string{"x"}}}}
	if _, err := requestedNetworks("bridge", aliased); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "network-scoped aliases") {
		t.Errorf("an alias where nobody asks for names: %v", err)
	}
	for _, name := range []string{"host", "none"} { // neither is a network that something can be plugged into
		about, err := e.nets.Inspect(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		for what, q := range map[string]CreateRequest{
			"by its id":          {HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(about.ID)}},
			"by a part of that":  {HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(about.ID[:12])}},
			"beside the default": {HostConfig: &onBridge, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: nil}}},
		} {
			q.Config = &container.Config{Image: "busybox:1", Cmd: sh("true")}
			if _, err := e.Create(ctx, q); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "--network "+name) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	id := e.run(request{name: "two", cmd: sh("sleep 3600"), h: onBridge})
	if got := interfacesOf(t, e.rec(id).Pid); got != "lo eth0" {
		t.Errorf("at first: %q", got)
	}
	aliases := &network.EndpointSettings{Aliases: []string{"deux"}}
	if err := e.ConnectNetwork(ctx, id, "blue", aliases); err != nil {
		t.Fatal(err)
	}
	if got := interfacesOf(t, e.rec(id).Pid); got != "lo eth0 eth1" {
		t.Errorf("connected: %q", got)
	}
	if err := e.ConnectNetwork(ctx, id, "blue", nil); !errdefs.IsPermissionDenied(err) {
		t.Errorf("twice: %v", err)
	}
	now := 0
	if err := e.Restart(ctx, id, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	if got := interfacesOf(t, e.rec(id).Pid); got != "lo eth0 eth1" {
		t.Errorf("after a restart: %q", got)
	}
	other := e.run(request{name: "asks", cmd: sh("ping -c 1 -W 5 deux >/dev/null && echo reached"), h: container.HostConfig{NetworkMode: "blue"}})
	e.eventually("it is reached by its alias", func() bool { return e.rec(other).Status == Exited && e.output(other) == "reached\n" })
	if err := e.DisconnectNetwork(ctx, id, "blue", false); err != nil {
		t.Fatal(err)
	}
	if got := interfacesOf(t, e.rec(id).Pid); len(strings.Fields(got)) != 2 { // eth0 is the first by name
		t.Errorf("disconnected: %q", got)
	}
	if err := e.DisconnectNetwork(ctx, id, "blue", false); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is not connected to the network blue") { // Terraform's provider looks for these words
		t.Errorf("disconnect twice: %v", err)
	}
	e.connectStopped(onBridge)
	e.refuseToConnect()
}

// connectStopped connects a container that does not run: its next start has the network.
func (e *engine) connectStopped(h container.HostConfig) {
	e.t.Helper()
	ctx := context.Background()
	id := e.create(request{name: "later", cmd: sh("sleep 3600"), h: h})
	for _, name := range []string{"blue", "blue", "bridge"} { // testcontainers for Node.js asks again for the network that a new container has anyhow
		if err := e.ConnectNetwork(ctx, id, name, nil); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := e.DisconnectNetwork(ctx, id, "bridge", false); err != nil {
		e.t.Fatal(err)
	}
	e.again()
	e.start(id)
	if got := interfacesOf(e.t, e.rec(id).Pid); got != "lo eth0" {
		e.t.Errorf("a stopped one: %q", got)
	}
	if _, ok := e.rec(id).Networks["bridge"]; ok {
		e.t.Error("the network that was left is still wanted")
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		e.t.Error(err)
	}
}

func (e *engine) refuseToConnect() {
	e.t.Helper()
	ctx := context.Background()
	alone, host := e.create(request{name: "alone"}), e.create(request{name: "hosts", h: container.HostConfig{NetworkMode: "host"}})
	guest := e.create(request{name: "guest", h: container.HostConfig{NetworkMode: "container:alone"}})
	for _, id := range []string{alone, host, guest} {
		if err := e.ConnectNetwork(ctx, id, "blue", nil); !errdefs.IsConflict(err) {
			e.t.Errorf("%s: %v", e.rec(id).Name, err)
		}
	}
	if err := e.ConnectNetwork(ctx, alone, "nothing", nil); !errdefs.IsNotFound(err) {
		e.t.Errorf("an unknown network: %v", err)
	}
	if err := e.DisconnectNetwork(ctx, alone, "nothing", false); !errdefs.IsNotFound(err) {
		e.t.Errorf("an unknown network: %v", err)
	}
}

// TestPorts: a taken port is one clear error, nothing is left of the start, and the port is free when its owner has ended.
func TestPorts(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	h := container.HostConfig{NetworkMode: "bridge", PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "28999"}}}}
	first, second := e.run(request{name: "first", cmd: sh("sleep 3600"), h: h}), e.create(request{name: "second", cmd: sh("sleep 3600"), h: h})
	if err := e.Start(ctx, second); err == nil || !strings.Contains(err.Error(), "28999") {
		t.Errorf("the same port twice: %v", err)
	}
	if r := e.rec(second); r.Status != Created || r.ExitCode != 128 {
		t.Errorf("%s %d", r.Status, r.ExitCode)
	}
	now := 0
	if err := e.Stop(ctx, first, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	e.start(second)
	if err := e.Start(ctx, first); err == nil {
		t.Error("the port has two owners")
	}
}

// TestConnectCutShort: the engine is killed after a container's network was changed and before that was written down. The next life makes one of the two.
func TestConnectCutShort(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for _, name := range []string{"blue", "green"} {
		if _, err := e.nets.Create(ctx, network.CreateRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	id := e.run(request{name: "between", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "green"}})
	if err := e.ConnectNetwork(ctx, id, "bridge", nil); err != nil {
		t.Fatal(err)
	}
	c, err := e.index.find(id)
	if err != nil {
		t.Fatal(err)
	}
	tk, r, err := c.running()
	if err != nil {
		t.Fatal(err)
	}
	netns, err := tk.Namespace("net")
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	if _, err := e.nets.Connect(ctx, "blue", r.allocateRequest(), nil, netns); err != nil {
		t.Fatal(err)
	}
	if err := e.nets.Disconnect(ctx, "bridge", id, netns); err != nil {
		t.Fatal(err)
	}
	e.again()
	e.eventually("the container is on green alone", func() bool {
		has, _, _ := e.nets.Endpoints(id)
		r := e.rec(id)
		return len(has) == 1 && has["green"] != nil && len(r.Networks) == 1 && r.Networks["green"] != nil
	})
	if got := interfacesOf(t, e.rec(id).Pid); got != "lo eth0" {
		t.Errorf("interfaces: %q", got)
	}
	if err := e.ConnectNetwork(ctx, id, "blue", nil); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestConnectNone: a container on no network excludes others until it is taken off it, whether it runs or not, and the other way round.
func TestConnectNone(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	subnet := []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.83.0.0/24")}}
	if _, err := e.nets.Create(ctx, network.CreateRequest{Name: "green", IPAM: &network.IPAM{Config: subnet}}); err != nil {
		t.Fatal(err)
	}
	on := func(id string) string { return strings.Join(slices.Sorted(maps.Keys(e.rec(id).Networks)), " ") }
	step := func(what string, err error, words string) {
		t.Helper()
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	at := func(address string) *network.EndpointSettings {
		return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(address)}}
	}
	const excludes = "multiple networks with one of the networks in private (none) mode: disconnect it from"
	for _, runs := range []bool{false, true} {
		r := request{name: "alone", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "none"}}
		id := ""
		if runs {
			id = e.run(r)
		} else {
			id = e.create(r)
		}
		step("beside none", e.ConnectNetwork(ctx, id, "green", nil), excludes+" none")
		step("host", e.ConnectNetwork(ctx, id, "host", nil), "create it with --network host")
		step("off none", e.DisconnectNetwork(ctx, id, "none", false), "")
		step("off none twice", e.DisconnectNetwork(ctx, id, "none", false), "is not connected to the network none")
		step("no address of the network's", e.ConnectNetwork(ctx, id, "green", at("10.84.0.9")), "10.84.0.9 is not part of subnet 10.83.0.0/24")
		step("an address on the default network", e.ConnectNetwork(ctx, id, "bridge", at("172.17.0.9")), "user-defined networks only")
		step("instead of none", e.ConnectNetwork(ctx, id, "green", at("10.83.0.9")), "")
		if !runs {
			e.start(id)
		}
		if got, has := interfacesOf(t, e.rec(id).Pid), networksOf(t, e, id)["green"]; got != "lo eth0" || has == nil || has.IPAddress.String() != "10.83.0.9" {
			t.Errorf("running before %v: %q, %+v", runs, got, has)
		}
		step("none beside another", e.ConnectNetwork(ctx, id, "none", nil), excludes+" green")
		step("off again", e.DisconnectNetwork(ctx, id, "green", false), "")
		step("none instead", e.ConnectNetwork(ctx, id, "none", nil), "")
		if got := on(id); got != "none" {
			t.Errorf("running before %v: on %q", runs, got)
		}
		now := 0
		if err := e.Restart(ctx, id, StopOptions{Timeout: &now}); err != nil {
			t.Fatal(err)
		}
		if got := interfacesOf(t, e.rec(id).Pid); got != "lo" {
			t.Errorf("running before %v: on none: %q", runs, got)
		}
		if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	hosts := e.create(request{name: "hosts", cmd: sh("sleep 1"), h: container.HostConfig{NetworkMode: "host"}})
	step("off the host's", e.DisconnectNetwork(ctx, hosts, "host", false), "cannot be disconnected from host network")
}

func networksOf(t *testing.T, e *engine, id string) map[string]*network.EndpointSettings {
	t.Helper()
	out, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return out.NetworkSettings.Networks
}
