package firewall

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// chunk is how many elements go into one message: its attributes count bytes in 16 bits.
const chunk = 256

// sets are the table's sets and maps. Each kind of port has one for IPv4 and one for IPv6:
//
//	exact     host address . protocol . port        → address . port
//	any                      protocol . port        → address . port
//	exact…    host address . protocol . port range  → address         the port stays the same
//	any…                     protocol . port range  → address
type sets struct {
	bridges, internal, masquerade *nftables.Set
	same                          *nftables.Set // a bridge with itself
	still                         *nftables.Set
	neighbours                    [2]*nftables.Set       // a bridge and its subnet, by family
	ports                         [2][2][2]*nftables.Set // IPv6, any address, range
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

func newSets(table *nftables.Table) sets {
	id := uint32(0)
	set := func(name string, key ...nftables.SetDatatype) *nftables.Set {
		id++ // ids are counted here: the library's counter is shared by all connections and guarded by none
		s := &nftables.Set{Table: table, Name: name, ID: id, KeyType: key[0], KeyByteOrder: binaryutil.NativeEndian}
		if len(key) > 1 {
			s.KeyType, s.KeyByteOrder = nftables.MustConcatSetType(key...), nil
		}
		return s
	}
	out := sets{
		bridges: set("bridges", nftables.TypeIFName), internal: set("internal", nftables.TypeIFName),
		masquerade: set("masquerade", nftables.TypeIFName), same: set("same", nftables.TypeIFName, nftables.TypeIFName),
		still: set("still", nftables.TypeIFName),
	}
	for _, six := range []bool{false, true} {
		address, suffix := nftables.TypeIPAddr, "4"
		if six {
			address, suffix = nftables.TypeIP6Addr, "6"
		}
		exact := set("ports"+suffix, address, nftables.TypeInetProto, nftables.TypeInetService)
		anywhere := set("any_ports"+suffix, nftables.TypeInetProto, nftables.TypeInetService)
		exactRange := set("ranges"+suffix, address, nftables.TypeInetProto, nftables.TypeInetService)
		anyRange := set("any_ranges"+suffix, nftables.TypeInetProto, nftables.TypeInetService)
		for _, s := range []*nftables.Set{exact, anywhere} {
			s.IsMap, s.DataType = true, nftables.MustConcatSetType(address, nftables.TypeInetService)
		}
		for _, s := range []*nftables.Set{exactRange, anyRange} {
			s.IsMap, s.DataType, s.Interval, s.Concatenation = true, address, true, true
		}
		near := set("neighbours"+suffix, nftables.TypeIFName, address)
		near.Interval, near.Concatenation = true, true
		out.neighbours[index(six)] = near
		out.ports[index(six)] = [2][2]*nftables.Set{{exact, exactRange}, {anywhere, anyRange}}
	}
	return out
}

func (s sets) add(c *nftables.Conn, bridges []Bridge, still []string) error {
	var all, internal, masquerade, same, quiet []nftables.SetElement
	for _, b := range bridges {
		key := ifname(b.Name)
		all = append(all, nftables.SetElement{Key: key})
		same = append(same, nftables.SetElement{Key: append(ifname(b.Name), key...)})
		if b.Internal {
			internal = append(internal, nftables.SetElement{Key: key})
		} else if b.Masquerade {
			masquerade = append(masquerade, nftables.SetElement{Key: key})
		}
	}
	var near [2][]nftables.SetElement
	for _, b := range bridges {
		for _, p := range b.Subnets {
			i := index(p.Addr().Is6())
			near[i] = append(near[i], nftables.SetElement{
				Key: append(ifname(b.Name), p.Masked().Addr().AsSlice()...), KeyEnd: append(ifname(b.Name), lastOf(p)...),
			})
		}
	}
	for _, name := range still {
		quiet = append(quiet, nftables.SetElement{Key: ifname(name)})
	}
	for _, row := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{{s.bridges, all}, {s.internal, internal}, {s.masquerade, masquerade}, {s.same, same}, {s.still, quiet}, {s.neighbours[0], near[0]}, {s.neighbours[1], near[1]}} {
		if err := c.AddSet(row.set, nil); err != nil {
			return err
		}
		for len(row.elements) > 0 {
			n := min(chunk, len(row.elements))
			if err := c.SetAddElements(row.set, row.elements[:n]); err != nil {
				return err
			}
			row.elements = row.elements[n:]
		}
	}
	for _, family := range s.ports {
		for _, kind := range family {
			for _, m := range kind {
				if err := c.AddSet(m, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func lastOf(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}

func ifname(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

// elements sorts ports into maps.
func (s sets) elements(ports []Port) map[*nftables.Set][]nftables.SetElement {
	out := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		m := s.ports[index(p.Host.Is6())][index(p.Host.IsUnspecified())][index(p.isRange())]
		out[m] = append(out[m], p.element())
	}
	return out
}

// element is a port as key and value of its map; each part fills whole words of 32 bits.
func (p Port) element() nftables.SetElement {
	key := func(port uint16) []byte {
		var b []byte
		if !p.Host.IsUnspecified() {
			b = p.Host.AsSlice()
		}
		return word(append(b, p.Proto, 0, 0, 0), port)
	}
	to := p.To.Addr().AsSlice()
	if p.isRange() {
		return nftables.SetElement{Key: key(p.First), KeyEnd: key(p.Last), Val: to}
	}
	return nftables.SetElement{Key: key(p.First), Val: word(to, p.To.Port())}
}

func word(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// Element names the place of a port in the table: the map, and the element as nft writes it.
func (p Port) Element() (set, element string) {
	var at, to string
	set = [2][2]string{{"ports", "ranges"}, {"any_ports", "any_ranges"}}[index(p.Host.IsUnspecified())][index(p.isRange())]
	set += map[bool]string{false: "4", true: "6"}[p.Host.Is6()]
	if !p.Host.IsUnspecified() {
		at = p.Host.String() + " . "
	}
	at += map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[p.Proto] + " . " + strconv.Itoa(int(p.First))
	if to = p.To.Addr().String(); p.isRange() {
		at += "-" + strconv.Itoa(int(p.Last))
	} else {
		to += " . " + strconv.Itoa(int(p.To.Port()))
	}
	return set, at + " : " + to
}

// Has says that a packet to a port of an address of the host is one for p.
func (p Port) Has(proto uint8, port uint16) bool {
	return p.Proto == proto && (port == p.First || p.First <= port && port <= p.Last)
}
