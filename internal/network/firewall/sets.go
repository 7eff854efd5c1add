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
	bridges, internal *nftables.Set
	same              *nftables.Set // a bridge with itself
	among             *nftables.Set // likewise, where containers reach each other
	still             *nftables.Set
	trusted           *nftables.Set // a link and a bridge
	linked            *nftables.Set // a container's IPv4 address . another one's . protocol . port
	checked           *nftables.Set // bridges behind which nobody else's addresses are
	lax               bool          // sources are not checked
	families          [2]familySets
	ports             [2][2][2]*nftables.Set // IPv6, any address, range
}

// familySets are those of IPv4 or IPv6.
type familySets struct {
	masquerade, routed, open *nftables.Set
	sources                  *nftables.Set // a bridge → the address that packets from it get
	neighbours               *nftables.Set // a bridge and its subnet
	direct                   *nftables.Set // container address . protocol . port range
	roaming                  *nftables.Set // subnets whose containers may answer through another bridge of theirs
	answers                  *nftables.Set // another bridge and a container's address, likewise
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
		same: set("same", nftables.TypeIFName, nftables.TypeIFName), among: set("among", nftables.TypeIFName, nftables.TypeIFName), still: set("still", nftables.TypeIFName),
		trusted: set("trusted", nftables.TypeIFName, nftables.TypeIFName), checked: set("checked", nftables.TypeIFName),
		linked: set("linked4", nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
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
		f := familySets{
			masquerade: set("masquerade"+suffix, nftables.TypeIFName), routed: set("routed"+suffix, nftables.TypeIFName), open: set("open"+suffix, nftables.TypeIFName),
			sources: set("sources"+suffix, nftables.TypeIFName), neighbours: set("neighbours"+suffix, nftables.TypeIFName, address),
			direct: set("direct"+suffix, address, nftables.TypeInetProto, nftables.TypeInetService), roaming: set("roaming"+suffix, address),
			answers: set("answers"+suffix, nftables.TypeIFName, address),
		}
		f.roaming.Interval = true
		f.sources.IsMap, f.sources.DataType = true, address
		for _, s := range []*nftables.Set{f.neighbours, f.direct} {
			s.Interval, s.Concatenation = true, true
		}
		out.families[index(six)] = f
		out.ports[index(six)] = [2][2]*nftables.Set{{exact, exactRange}, {anywhere, anyRange}}
	}
	return out
}

func (s sets) add(c *nftables.Conn, bridges []Bridge, still []string) error {
	for _, row := range s.rows(bridges, still) {
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

// row is a set with what is in it from the beginning.
type row struct {
	set      *nftables.Set
	elements []nftables.SetElement
}

// rows are all sets but those of ports.
func (s sets) rows(bridges []Bridge, still []string) []row {
	links := func(of func(Bridge) bool) (out []nftables.SetElement) {
		for _, b := range bridges {
			if of(b) {
				out = append(out, nftables.SetElement{Key: ifname(b.Name)})
			}
		}
		return out
	}
	var same, among, trusted, quiet []nftables.SetElement
	for _, b := range bridges {
		itself := nftables.SetElement{Key: append(ifname(b.Name), ifname(b.Name)...)}
		if same = append(same, itself); !b.Parted {
			among = append(among, itself)
		}
		for _, link := range b.Trusted {
			trusted = append(trusted, nftables.SetElement{Key: append(ifname(link), ifname(b.Name)...)})
		}
	}
	for _, name := range still {
		quiet = append(quiet, nftables.SetElement{Key: ifname(name)})
	}
	out := []row{
		{s.bridges, links(func(Bridge) bool { return true })}, {s.internal, links(func(b Bridge) bool { return b.Internal })},
		{s.same, same}, {s.among, among}, {s.trusted, trusted}, {s.still, quiet}, {s.checked, links(func(b Bridge) bool { return !b.Foreign })}, {s.linked, nil},
	}
	for i, f := range s.families {
		var near, sources, roaming []nftables.SetElement
		for _, b := range bridges {
			if a := b.Families[i].Source; a.IsValid() && b.masquerades(i) {
				sources = append(sources, nftables.SetElement{Key: ifname(b.Name), Val: a.AsSlice()})
			}
			for _, p := range b.Subnets {
				if index(p.Addr().Is6()) == i {
					near = append(near, nftables.SetElement{
						Key: append(ifname(b.Name), p.Masked().Addr().AsSlice()...), KeyEnd: append(ifname(b.Name), lastOf(p)...),
					})
					if b.reached(i) {
						roaming = append(roaming, interval(p)...)
					}
				}
			}
		}
		out = append(out, row{f.masquerade, links(func(b Bridge) bool { return b.masquerades(i) })}, row{f.routed, links(func(b Bridge) bool { return b.Families[i].Routed })},
			row{f.open, links(func(b Bridge) bool { return b.Families[i].Open })}, row{f.sources, sources}, row{f.neighbours, near}, row{f.direct, nil}, row{f.answers, nil}, row{f.roaming, roaming})
	}
	return out
}

// masquerades says that packets of a family leave with another address.
func (b Bridge) masquerades(family int) bool {
	return b.Masquerade && !b.Internal && !b.Families[family].Routed
}

// reached says that others reach containers at their own addresses of a family: the answers of one that is on other networks, too, leave by its way out.
func (b Bridge) reached(family int) bool {
	return b.Families[family].Routed || b.Families[family].Open || len(b.Trusted) > 0
}

// interval is a subnet in a set of addresses alone: where it begins, and where the next one would. One that ends with the last address of all has no next one.
func interval(p netip.Prefix) []nftables.SetElement {
	last, _ := netip.AddrFromSlice(lastOf(p))
	out := []nftables.SetElement{{Key: p.Masked().Addr().AsSlice()}}
	if next := last.Next(); next.IsValid() {
		out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
	}
	return out
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
		if p.By != "" {
			m := s.families[index(p.To.Addr().Is6())].answers
			out[m] = append(out[m], nftables.SetElement{Key: append(ifname(p.By), p.To.Addr().AsSlice()...)})
			continue
		}
		if p.From.IsValid() {
			key := append(append(p.From.AsSlice(), p.To.Addr().AsSlice()...), p.Proto, 0, 0, 0)
			out[s.linked] = append(out[s.linked], nftables.SetElement{Key: word(key, p.First)})
			continue
		}
		if p.Direct {
			m := s.families[index(p.To.Addr().Is6())].direct
			out[m] = append(out[m], p.direct())
			continue
		}
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

// direct is a port, or a range of them, at the container's own address.
func (p Port) direct() nftables.SetElement {
	key := func(port uint16) []byte { return word(append(p.To.Addr().AsSlice(), p.Proto, 0, 0, 0), port) }
	return nftables.SetElement{Key: key(p.First), KeyEnd: key(max(p.First, p.Last))}
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
