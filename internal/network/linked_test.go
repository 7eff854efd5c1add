package network

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/event"
)

// TestLinksOpenPorts: on a default network that keeps its containers from each other, one that is linked to another reaches what that one exposes or
// publishes, and nothing else; nobody else does, and nothing is left of it.
func TestLinksOpenPorts(t *testing.T) {
	dir := t.TempDir()
	o := Options{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Events: event.New(), Log: func(err error) { t.Log(err) },
		Defaults: Defaults{Options: []string{"com.docker.network.bridge.enable_icc=false"}}}
	s := reopen(t, o)
	mustCreate(t, s, network.CreateRequest{Name: "own"})
	db, app, other := newBox(t), newBox(t), newBox(t)
	serving := AllocateRequest{Name: "db", Networks: map[string]*network.EndpointSettings{"bridge": {}},
		Exposed: network.PortSet{network.MustParsePort("8080/tcp"): {}}, Ports: network.PortMap{network.MustParsePort("8081/tcp"): {{HostPort: "28099"}}}}
	address := func(a *Allocation) string { return a.Networks["bridge"].IPAddress.String() }
	at := address(db.attach(s, serving))
	appAt := address(app.attach(s, AllocateRequest{Name: "app", Networks: map[string]*network.EndpointSettings{"bridge": {Links: []string{db.id + ":store", db.id + ":db"}}}}))
	other.attach(s, onNetwork("bridge", network.EndpointSettings{}))
	for _, port := range []int{8080, 8081, 8082} {
		db.serve(port, "db")
	}
	app.serve(8080, "app")
	check := func(when string, linked bool) {
		t.Helper()
		for _, row := range []struct {
			from    *box
			to      string
			reached bool
		}{{app, at + ":8080", linked}, {app, at + ":8081", linked}, {app, at + ":8082", false}, {other, at + ":8080", false}, {db, appAt + ":8080", false}} {
			if out, err := row.from.get(row.to); (err == nil) != row.reached {
				t.Errorf("%s: box %s to %s: %q, %v", when, row.from.id[:4], row.to, out, err)
			}
		}
	}
	check("linked", true)
	s.Close()
	s = reopen(t, o)
	check("with the next engine", true)
	db.release(s)
	s.later.drain()
	if left := s.linkedElements(); len(left) != 0 {
		t.Errorf("the other one has gone: %v", left)
	}
	blocker := newBox(t) // has the address that was the other one's
	blocker.attach(s, AllocateRequest{Name: "x", Networks: serving.Networks, Exposed: serving.Exposed})
	db = newBox(t)
	app2 := s.holdings[app.id]
	app2.Endpoints[0].Asked.Links = []string{"db:store"} // by name, for it is another box here
	at = address(db.attach(s, serving))
	for _, port := range []int{8080, 8081, 8082} {
		db.serve(port, "db")
	}
	check("it has come again elsewhere", true)
	if _, err := s.Connect(t.Context(), "own", AllocateRequest{ContainerID: app.id, Name: "app"}, nil, app.netns); err != nil {
		t.Fatal(err)
	}
	check("on another network, too", true)
	Unlink(s, app.id, "store")
	check("the link is taken away", false)
	if left := s.linkedElements(); len(left) != 0 {
		t.Errorf("the link is taken away: %v", left)
	}
}

// TestLinksOpenNothingElsewhere: links on a network of one's own are names only, and a default network without the option needs none.
func TestLinksOpenNothingElsewhere(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "quiet", Options: bridgeOptions("bridge.enable_icc=false")})
	a, b := newBox(t), newBox(t)
	both := func(links ...string) map[string]*network.EndpointSettings {
		return map[string]*network.EndpointSettings{"quiet": {Links: links}, "bridge": {Links: links}}
	}
	a.attach(s, AllocateRequest{Name: "a", Networks: both(), Exposed: network.PortSet{network.MustParsePort("80/tcp"): {}}})
	b.attach(s, AllocateRequest{Name: "b", Networks: both("a:x")})
	if got := s.linkedElements(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// linkedElements are the ports that links have opened, as the firewall has them.
func (s *Service) linkedElements() (out []string) {
	for _, h := range s.holdings {
		for _, p := range rulesOf(&s.state, h) {
			if p.From.IsValid() {
				out = append(out, "wanted "+p.From.String()+" to "+p.To.String())
			}
		}
	}
	b, _ := exec.Command("nft", "list", "ruleset").CombinedOutput()
	_, rest, _ := strings.Cut(string(b), "set linked4 {")
	rest, _, _ = strings.Cut(rest, "}\n")
	if _, elements, ok := strings.Cut(rest, "elements = {"); ok {
		out = append(out, elements)
	}
	slices.Sort(out)
	return out
}
