package network

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"wherry.dev/wherry/internal/network/link"
)

// portsPerBridge is how many containers share one bridge. The kernel has 1023 ports for one and looks at all of them for each that is added.
//
// Where a network has more containers it gets annexes: further bridges, each hung on the network's own by a pair of interfaces. Together they
// are one link: the same addresses, one gateway, everybody reaches everybody.
const portsPerBridge = 256

// place chooses the bridge of a network's next container: 0 is the network's own, others are its annexes. The caller holds the lock.
func (n *lan) place() int {
	ports := map[int]int{}
	for _, e := range n.endpoints {
		ports[e.Annex]++
	}
	for number := 0; ; number++ {
		if ports[number] < portsPerBridge {
			return number
		}
	}
}

// annexNames are those of an annex and of the two ends of the pair that it hangs on.
type annexNames struct{ bridge, upper, lower string }

func (n names) annexOf(networkID string, number int) annexNames {
	rest := networkID[:n.annexDigits] + "-" + strconv.Itoa(number)
	return annexNames{n.annexes[0] + rest, n.annexes[1] + rest, n.annexes[2] + rest}
}

// raiseAnnexes makes the annexes that plugs go into, where they are not there, and tells the plugs their numbers.
func raiseAnnexes(s *Service, plugs []plug) error {
	for i := range plugs {
		p := &plugs[i]
		if p.e.Annex == 0 || p.stack != nil {
			continue
		}
		s.mu.Lock()
		index := p.n.annexes[p.e.Annex]
		s.mu.Unlock()
		if index == 0 {
			var err error
			if index, err = s.raiseAnnex(p.n, s.names.annexOf(p.n.ID, p.e.Annex)); err != nil {
				return fmt.Errorf("network %s: %w", p.n.Name, err)
			}
			s.mu.Lock()
			p.n.annexes[p.e.Annex] = index
			s.mu.Unlock()
		}
		p.pair.Bridge = index
	}
	return nil
}

// raiseAnnex makes an annex, or mends the one that is there; several callers may do so at a time.
func (k *kernel) raiseAnnex(n *lan, names annexNames) (index int, err error) {
	b := link.Bridge{Name: names.bridge, MTU: n.mtu(), Apart: true} // the firewall's rules are about the network's own bridge
	if index, err = b.Ensure(k.host); err != nil {
		return 0, err
	}
	t := link.Trunk{Upper: names.upper, Lower: names.lower, Bridge: n.index, Annex: index, MTU: n.mtu(), Isolated: !n.flag("bridge.enable_icc", true), Home: k.home}
	return index, t.Ensure(k.host)
}

// annexLinks are the names whose deletion takes a network's annexes away. The caller holds the lock, or has the network for itself.
func (s *state) annexLinks(n *lan) []string {
	var out []string
	for number := range n.annexes {
		a := s.names.annexOf(n.ID, number)
		out = append(out, a.upper, a.bridge)
	}
	return out
}

// ownLinks are the names of all links of networks, and of annexes that live endpoints are on.
func (s *state) ownLinks() map[string]bool {
	out := map[string]bool{}
	for _, n := range s.networks {
		out[n.Bridge] = true
		for _, e := range n.endpoints {
			if e.Annex > 0 {
				a := s.names.annexOf(n.ID, e.Annex)
				out[a.bridge], out[a.upper], out[a.lower] = true, true, true
			}
		}
	}
	return out
}

// isEnd says that a link is the host's end of a pair of this engine's: its name is one that endOf makes.
func (n names) isEnd(l netlink.Link) bool {
	rest, ok := strings.CutPrefix(l.Attrs().Name, n.ends)
	_, odd := strconv.ParseUint(rest, 16, 64)
	return ok && l.Type() == "veth" && len(rest) == n.digits && odd == nil
}

// isAnnexes says that a link is of an annex of this engine's: its name is one that annexOf makes. A prefix alone may begin anybody's links,
// "whatever0" among them.
func (n names) isAnnexes(l netlink.Link) bool {
	for i, prefix := range n.annexes {
		kind := "veth"
		if i == 0 {
			kind = "bridge"
		}
		rest, ok := strings.CutPrefix(l.Attrs().Name, prefix)
		if !ok || l.Type() != kind || len(rest) <= n.annexDigits || rest[n.annexDigits] != '-' {
			continue
		}
		number, err := strconv.ParseUint(rest[n.annexDigits+1:], 10, 16)
		if _, odd := strconv.ParseUint(rest[:n.annexDigits], 16, 64); odd == nil && err == nil && number > 0 {
			return true
		}
	}
	return false
}
