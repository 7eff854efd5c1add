package network

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sender sends datagrams from one port to 127.0.0.1:28053, and says which container the kernel sends them to.
func sender(t *testing.T) (send func(), at func() string) {
	t.Helper()
	c, err := net.Dial("udp4", "127.0.0.1:28053")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	own := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	send = func() { c.Write([]byte("x")) } // nobody listens: an error is of the datagram before
	return send, func() string {
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.SrcPort == own && f.Forward.DstPort == 28053 {
				return f.Reverse.SrcIP.String()
			}
		}
		return ""
	}
}

// TestSendersOfReplaced: who sends to a replaced container's UDP port goes on reaching it until it ends, new senders reach the new one; those are not
// torn from it when the old one goes. Fixed addresses are the new one's then.
func TestSendersOfReplaced(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.7.0.0/24")}}}})
	fixed := map[string]*network.EndpointSettings{"one": {MacAddress: network.HardwareAddr{2, 0, 0, 0, 0, 9}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.7.0.9")}}}
	a, b, far := newBox(t), newBox(t), newBox(t)
	a.attach(s, AllocateRequest{Networks: fixed, Ports: portMap("|28053|53/udp")})
	far.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"one": {}}})
	defer far.release(s)
	late := b.attach(s, AllocateRequest{Networks: fixed, Ports: portMap("|28053|53/udp"), Understudy: true}).Networks["one"].IPAddress.String()
	defer b.release(s)
	s.later.drain()
	sendOld, old := sender(t)
	sendNew, new := sender(t)
	sendOld()
	if err := TakeOver(s, a.id, PortsRequest{ContainerID: b.id, Ports: portMap("|28053|53/udp")}); err != nil {
		t.Fatal(err)
	}
	s.later.drain()
	sendOld()
	sendNew()
	if got := old() + " " + new(); got != "10.7.0.9 "+late {
		t.Errorf("after the switch the senders reach %s, not the old one and %s", got, late)
	}
	far.run("busybox", "ping", "-c1", "-W1", "10.7.0.9")
	a.release(s)
	s.later.drain()
	if got := old() + " " + new(); got != " "+late {
		t.Errorf("when the old one has gone: %q", got)
	}
	sendOld()
	if got := old(); got != late {
		t.Errorf("the next datagram goes to %q", got)
	}
	if err := TakeStatic(s, b.id); err != nil {
		t.Fatal(err)
	}
	if out := b.mustRun("ip", "addr", "show", "eth0"); !strings.Contains(out, "02:00:00:00:00:09") || !strings.Contains(out, "10.7.0.9/24") || !strings.Contains(out, late+"/24") {
		t.Errorf("addresses: %s", out)
	}
	if e, _, _ := s.Endpoints(b.id); e["one"].MacAddress.String() != "02:00:00:00:00:09" || e["one"].IPAddress.String() != "10.7.0.9" {
		t.Errorf("inspect: %+v", e["one"])
	}
	for _, address := range []string{"10.7.0.9", late} {
		if out, err := far.run("busybox", "ping", "-c1", "-W2", address); err != nil {
			t.Errorf("a neighbour pings %s: %v: %s", address, err, out)
		}
	}
}

// TestAddressesAreAnnounced: neighbours know at once that an address has another hardware address now.
func TestAddressesAreAnnounced(t *testing.T) {
	s := open(t)
	for name, options := range map[string]map[string]string{"one": nil, "quiet": bridgeOptions("advertise_addr_nmsgs=0")} {
		mustCreate(t, s, network.CreateRequest{Name: name, EnableIPv6: new(true), Options: options})
		far := newBox(t)
		far.attach(s, onNetwork(name, network.EndpointSettings{}))
		defer far.release(s)
		var known string
		var at *network.EndpointSettings
		for i := range byte(2) {
			a := newBox(t)
			at = a.attach(s, onNetwork(name, network.EndpointSettings{MacAddress: network.HardwareAddr{2, 0, 0, 0, 1, i}})).Networks[name]
			if i == 0 {
				far.mustRun("busybox", "ping", "-c1", "-W5", at.IPAddress.String())
				far.mustRun("busybox", "ping6", "-c1", "-W5", at.GlobalIPv6Address.String())
			}
			if i == 1 && options == nil {
				eventually(t, func() error { // packets within a machine take a moment, too
					if known := far.mustRun("ip", "neigh", "show", "dev", "eth0"); strings.Count(known, "02:00:00:00:01:01") != 2 {
						return fmt.Errorf("the neighbour knows %s", known)
					}
					return nil
				})
			}
			known = far.mustRun("ip", "neigh", "show", "dev", "eth0")
			a.release(s)
			s.later.drain()
		}
		for _, a := range []netip.Addr{at.IPAddress, at.GlobalIPv6Address} {
			want := a.String() + " lladdr 02:00:00:00:01:01"
			if strings.Contains(known, want) != (options == nil) {
				t.Errorf("%s: of %s the neighbour knows: %s", name, a, known)
			}
		}
	}
	for option, v := range map[string]string{"advertise_addr_nmsgs": "4", "advertise_addr_ms": "99"} {
		_, err := s.Create(t.Context(), network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network." + option: v}})
		if err == nil || !strings.Contains(err.Error(), "in the range") {
			t.Errorf("%s=%s: %v", option, v, err)
		}
	}
}

// TestHostFindsAddressesThatComeAgain: the host has asked for an address while nobody had it, and goes on waiting for an answer.
func TestHostFindsAddressesThatComeAgain(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", EnableIPv6: new(true)})
	n, err := s.find("one")
	if err != nil {
		t.Fatal(err)
	}
	known := func(a netip.Addr) string {
		out, err := exec.Command("ip", "neigh", "show", a.String(), "dev", n.Bridge).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	a := newBox(t)
	at := a.attach(s, onNetwork("one", network.EndpointSettings{})).Networks["one"]
	addresses := []netip.Addr{at.IPAddress, at.GlobalIPv6Address}
	for _, addr := range addresses {
		if k := known(addr); k != "" {
			t.Errorf("the host is told of %s, which it has not asked for: %s", addr, k)
		}
	}
	a.release(s)
	s.later.drain()
	for _, addr := range addresses {
		c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if k := known(addr); !strings.Contains(k, "INCOMPLETE") {
			t.Fatalf("the host does not ask for %s: %q", addr, k)
		}
	}
	newBox(t).attach(s, onNetwork("one", network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: addresses[0], IPv6Address: addresses[1]}}))
	for _, addr := range addresses {
		if k := known(addr); !strings.Contains(k, at.MacAddress.String()) {
			t.Errorf("of %s the host knows %q", addr, k)
		}
	}
}

// TestSeekersAreTold: a container that asks for an address while nobody has it learns at once where it is when somebody gets it: it has asked for the last time.
func TestSeekersAreTold(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "four"})
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv4: new(false), EnableIPv6: new(true)})
	for name, family := range map[string]string{"four": "ipv4", "six": "ipv6"} {
		seeker := newBox(t)
		seeker.attach(s, onNetwork(name, network.EndpointSettings{}))
		defer seeker.release(s)
		for key, value := range map[string]string{"retrans_time_ms": "600000", "mcast_solicit": "1"} {
			seeker.mustRun("busybox", "sysctl", "-w", "net."+family+".neigh.eth0."+key+"="+value)
		}
		a := newBox(t)
		at := a.attach(s, onNetwork(name, network.EndpointSettings{})).Networks[name]
		address, ping := at.IPAddress, "ping"
		if !address.IsValid() {
			address, ping = at.GlobalIPv6Address, "ping6"
		}
		seek := func() string {
			seeker.run("busybox", ping, "-c1", "-W1", address.String())
			return seeker.mustRun("ip", "neigh", "show", address.String(), "dev", "eth0")
		}
		for i, settings := range []network.EndpointSettings{
			{}, // the address that another one had
			{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: at.IPAddress, IPv6Address: at.GlobalIPv6Address}},
		} {
			a.release(s)
			s.later.drain()
			seeker.mustRun("ip", "neigh", "flush", "dev", "eth0")
			if k := seek(); !strings.Contains(k, "INCOMPLETE") {
				t.Fatalf("%s: the container does not ask for %s: %q", name, address, k)
			}
			if i > 0 { // who asks for an address is announced however long nobody has had it
				for p := range s.networks[at.NetworkID].pools() {
					clear(p.given)
				}
			}
			a = newBox(t)
			if again := a.attach(s, onNetwork(name, settings)).Networks[name]; again.IPAddress != at.IPAddress || again.GlobalIPv6Address != at.GlobalIPv6Address {
				t.Fatalf("%s: %v has other addresses than %v", name, again, at)
			}
			eventually(t, func() error {
				if k := seeker.mustRun("ip", "neigh", "show", address.String(), "dev", "eth0"); !strings.Contains(k, at.MacAddress.String()) {
					return fmt.Errorf("%s: of %s the container knows %q", name, address, k)
				}
				return nil
			})
		}
		a.release(s)
	}
}
