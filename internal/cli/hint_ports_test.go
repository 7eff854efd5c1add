package cli

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestOpenPorts(t *testing.T) {
	at := func(a string, port int) network.PortBinding {
		return network.PortBinding{HostIP: netip.MustParseAddr(a), HostPort: fmt.Sprint(port)}
	}
	many := network.PortMap{}
	for i := range 5000 {
		many[network.MustParsePort(fmt.Sprint(20000+i))] = []network.PortBinding{at("0.0.0.0", 20000+i)}
	}
	for _, row := range []struct {
		ports network.PortMap
		want  string
	}{
		{network.PortMap{network.MustParsePort("80"): nil}, ""},
		{network.PortMap{network.MustParsePort("80"): {at("127.0.0.1", 80), at("127.0.0.2", 80), at("::1", 80)}}, ""},
		{network.PortMap{network.MustParsePort("80"): {at("0.0.0.0", 8080), at("::", 8080)}},
			"port 8080 is open to other machines, at each address of this one. To keep it to this one: -p 127.0.0.1:8080:80"},
		{network.PortMap{network.MustParsePort("53/udp"): {at("192.0.2.1", 53)}, network.MustParsePort("80"): {at("127.0.0.1", 81), at("192.0.2.2", 82)}},
			"ports 53 and 82 are open to other machines, at 192.0.2.1 and 192.0.2.2. To keep them to this one: -p 127.0.0.1:53:53/udp"},
		{many, "ports 20000, 20001, 20002 and 4997 more are open to other machines, at each address of this one. To keep them to this one: -p 127.0.0.1:20000:20000"},
	} {
		if got := openPorts(row.ports); got != row.want {
			t.Errorf("%v\n got %q\nwant %q", row.ports, got, row.want)
		}
	}
}
