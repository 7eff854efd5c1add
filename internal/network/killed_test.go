package network

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

const killedEngine = "WHERRY_TEST_KILLED_ENGINE"

// TestKilledEngine is the engine of the test below when the environment says so: it makes networks, puts a container on them and takes all away
// again, until it is killed.
func TestKilledEngine(t *testing.T) {
	dir := os.Getenv(killedEngine)
	if dir == "" {
		return // TestKillAmongNetworks runs it, as a program of its own
	}
	s, err := Open(t.Context(), Options{Root: dir + "/root", State: dir + "/state"})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	netns, err := os.Open(dir + "/netns")
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	id := newID()
	for i := 0; ; i++ {
		if err := comeAndGo(s, id, i, netns); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// comeAndGo is one round of everything that can be cut short; what comes next is said before it begins.
func comeAndGo(s *Service, id string, round int, netns *os.File) error {
	ctx := context.Background()
	driver, name := []string{"bridge", "macvlan"}[round%2], fmt.Sprint("n", round)
	r := AllocateRequest{ContainerID: id, Name: "c", Hostname: "c", Networks: map[string]*network.EndpointSettings{"bridge": {}}, Ports: portMap("|28090|80/tcp")}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"create", func() error {
			_, err := s.Create(ctx, network.CreateRequest{Name: name, Driver: driver})
			return err
		}},
		{"attach", func() error {
			if _, err := s.Allocate(ctx, r); err != nil {
				return err
			}
			return s.Attach(ctx, id, netns)
		}},
		{"connect", func() error {
			_, err := s.Connect(ctx, name, r, nil, netns)
			return err
		}},
		{"disconnect", func() error { return s.Disconnect(ctx, name, id, netns) }},
		{"release", func() error { return s.Release(ctx, id) }},
		{"remove", func() error { return s.Remove(ctx, name) }},
		{"drain", func() error { s.later.drain(); return nil }},
	} {
		fmt.Println(step.what)
		if err := step.do(); err != nil {
			return fmt.Errorf("failed: %s: %w", step.what, err)
		}
	}
	return nil
}

// TestKillAmongNetworks: wherever in the making, joining and removing of networks an engine is killed, the next one opens, says of nothing that it is
// damaged, and leaves nothing behind when what is left is removed.
func TestKillAmongNetworks(t *testing.T) {
	before := snapshot(t)
	dir := t.TempDir()
	b := newBox(t)
	if err := os.Symlink(fmt.Sprintf("/proc/%d/ns/net", b.pid), dir+"/netns"); err != nil {
		t.Fatal(err)
	}
	for step := range 14 { // two rounds of seven
		killEngine(t, dir, step)
		var told []string
		s, err := Open(t.Context(), Options{Root: dir + "/root", State: dir + "/state", Log: func(err error) { told = append(told, err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range told {
			if strings.Contains(line, "damaged") {
				t.Error(line)
			}
		}
		if err := s.Retain(t.Context(), nil); err != nil { // the container has ended
			t.Error(err)
		}
		s.later.drain()
		list, err := s.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			if strings.HasPrefix(n.Name, "n") && n.Name != "none" {
				if err := s.Remove(t.Context(), n.Name); err != nil {
					t.Error(err)
				}
			}
		}
		s.later.drain()
		if files, _ := filepath.Glob(dir + "/root/networks/*"); len(files) != 3 {
			t.Errorf("step %d: files are left: %q", step, files)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if after := snapshot(t); after != before {
			t.Errorf("step %d: before:\n%s\nafter:\n%s", step, before, after)
		}
		if inside := b.mustRun("ip", "-o", "link"); strings.Contains(inside, "eth") {
			t.Errorf("step %d: interfaces are left inside: %s", step, inside)
		}
	}
}

// killEngine starts an engine and kills it when it has begun with a step.
func killEngine(t *testing.T, dir string, step int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestKilledEngine$")
	cmd.Env = append(os.Environ(), killedEngine+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; i <= step && lines.Scan(); i++ {
		if strings.HasPrefix(lines.Text(), "failed") {
			t.Errorf("the engine: %s", lines.Text())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "failed") {
			t.Errorf("the engine: %s", lines.Text())
		}
	}
	cmd.Wait()
}

// TestElevenHundredEndpoints: a network with more containers than a bridge of the kernel has ports, all with interfaces of their own. The first
// and the last one reach each other and the host, and all is gone afterwards.
func TestElevenHundredEndpoints(t *testing.T) {
	const boxes, each = 44, 25
	s := open(t)
	ids := []string{}
	var first, last *box
	var address string
	for i := range boxes {
		b := newBox(t)
		for j := range each {
			r := AllocateRequest{ContainerID: newID(), Name: fmt.Sprint("c", i, "-", j), Networks: map[string]*network.EndpointSettings{
				"bridge": {DriverOpts: map[string]string{"com.docker.network.endpoint.ifname": fmt.Sprint("eth", j)}}}}
			a, err := s.Allocate(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ContainerID)
			if j > 0 { // its default route is there already
				s.holdings[r.ContainerID].Endpoints[0].Default4 = false
			}
			if err := s.Attach(t.Context(), r.ContainerID, b.netns); err != nil {
				t.Fatalf("endpoint %d: %v", len(ids), err)
			}
			if j == 0 {
				address = a.Networks["bridge"].IPAddress.String()
			}
		}
		if first == nil {
			first = b
			b.serve(8080, "first")
		}
		last = b
	}
	last.serve(8080, "last")
	if n, err := s.Inspect(t.Context(), "bridge"); err != nil || len(n.Containers) != boxes*each {
		t.Errorf("%d containers on it, %v", len(n.Containers), err)
	}
	if got, err := first.get(address + ":8080"); err != nil || got != "last" {
		t.Errorf("the first asks the last: %q, %v", got, err)
	}
	if got, err := last.get("172.17.0.2:8080"); err != nil || got != "first" {
		t.Errorf("the last asks the first: %q, %v", got, err)
	}
	if got, err := get(address + ":8080"); err != nil || got != "last" {
		t.Errorf("the host asks the last: %q, %v", got, err)
	}
	for _, id := range ids {
		if err := s.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	s.later.drain()
	if links := mustHost(t, "ip", "-o", "link"); strings.Contains(links, s.names.ends) {
		t.Errorf("ends are left: %s", links)
	}
}
