package firewall

import (
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: reg is the first of 128 bits, word(n) the n-th of 32 bits. Both count from the same place.
const (
	reg      = 1
	firstOf4 = 8 // NFT_REG32_00
)

func word32(n int) uint32 { return uint32(firstOf4 + n) }

// addRules writes the chains. In nft's words:
//
//	chain early   { type filter hook prerouting priority raw;
//	                iifname @bridges ip daddr 127.0.0.0/8 drop       # bridges route loopback addresses, for published ports only
//	                iifname @bridges ip saddr 127.0.0.0/8 drop }
//	chain inbound { type nat hook prerouting priority dstnat;
//	                ip daddr 127.0.0.0/8 return                      # from another host: the kernel drops it
//	                fib daddr type local jump publish }
//	chain local   { type nat hook output priority dstnat;
//	                ip6 daddr ::1 return                             # the kernel routes no answer back to it: refused at once, not timed out
//	                fib daddr type local jump publish }
//	chain publish { dnat ip to ip daddr . meta l4proto . th dport map @ports4 … }
//	chain source  { type nat hook postrouting priority srcnat;
//	                oifname . ip saddr @neighbours4 ct status dnat masquerade # a published port of a neighbour or of oneself; likewise 6
//	                ip saddr 127.0.0.0/8 oifname @bridges masquerade    # from the host through its loopback address
//	                iifname . oifname != @same snat ip to iifname map @sources4                 # likewise 6
//	                meta nfproto ipv4 iifname @masquerade4 iifname . oifname != @same masquerade }   # likewise 6
//	chain enter   { type filter hook input priority filter;
//	                iifname @checked ip saddr != 0.0.0.0 ip saddr != @roaming4 fib saddr . iif oif missing iifname . ip saddr != @answers4 drop     # likewise 6
//	                iifname @internal fib daddr . iif type unicast drop }   # an address that the host has elsewhere
//	chain pass    { type filter hook forward priority filter;
//	                iifname . oifname @among accept
//	                iifname @checked ip saddr != 0.0.0.0 ip saddr != @roaming4 fib saddr . iif oif missing iifname . ip saddr != @answers4 drop     # an address of somebody else's; likewise 6
//	                oifname @internal drop
//	                iifname @internal drop
//	                oifname @bridges ct state established,related accept
//	                oifname @bridges ct status dnat accept
//	                iifname . oifname @same ip saddr . ip daddr . meta l4proto . th dport @linked4 accept   # --link
//	                iifname . oifname @same drop                     # past the bridge, which does not let them, by the gateway
//	                oifname @open4 meta nfproto ipv4 accept                                     # likewise 6
//	                oifname @routed4 ip daddr . meta l4proto . th dport @direct4 accept         # published there; likewise 6
//	                oifname @routed4 meta l4proto icmp accept                                   # likewise 6
//	                iifname . oifname @trusted ip daddr . meta l4proto . th dport @direct4 accept   # likewise 6
//	                oifname @bridges drop                            # nothing else comes in, from outside or from another network
//	                iifname @still oifname @still drop }
func addRules(c *nftables.Conn, table *nftables.Table, s sets) {
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: table, Chain: chain}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		c.AddRule(r)
	}
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: table, Name: name, Type: kind, Hooknum: hook, Priority: priority})
	}

	early := base("early", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	rule(early, in(s.bridges), loopback(daddr4), verdict(expr.VerdictDrop))
	rule(early, in(s.bridges), loopback(saddr4), verdict(expr.VerdictDrop))

	publish := c.AddChain(&nftables.Chain{Table: table, Name: "publish"})
	for six, family := range s.ports {
		for anywhere, kind := range family {
			for ranges, m := range kind {
				rule(publish, translate(m, six == 1, anywhere == 0, ranges == 1))
			}
		}
	}
	inbound := base("inbound", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	rule(inbound, loopback(daddr4), verdict(expr.VerdictReturn))
	rule(inbound, toHost(), jump("publish"))
	local := base("local", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	rule(local, toLoopback6(), verdict(expr.VerdictReturn))
	rule(local, toHost(), jump("publish"))

	source := base("source", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{}}
	for six, f := range s.families {
		rule(source, fromNeighbour(f.neighbours, six == 1), translated(), masquerade)
	}
	rule(source, loopback(saddr4), out(s.bridges), masquerade)
	for six, f := range s.families {
		rule(source, ofFamily(six == 1), inOut(s.same, true), sourceOf(f.sources, six == 1))
		rule(source, ofFamily(six == 1), in(f.masquerade), inOut(s.same, true), masquerade)
	}

	// Not before: what a bridge passes on within itself may come by there, too, and has the addresses that it has.
	enter := base("enter", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	noForged := func(chain *nftables.Chain) {
		for six, f := range s.families {
			if !s.lax {
				rule(chain, in(s.checked), forged(f, six == 1), verdict(expr.VerdictDrop))
			}
		}
	}
	noForged(enter)
	rule(enter, in(s.internal), toElsewhere(), verdict(expr.VerdictDrop))

	pass := base("pass", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(pass, inOut(s.among, false), verdict(expr.VerdictAccept))
	noForged(pass)
	rule(pass, out(s.internal), verdict(expr.VerdictDrop))
	rule(pass, in(s.internal), verdict(expr.VerdictDrop))
	rule(pass, out(s.bridges), known(), verdict(expr.VerdictAccept))
	rule(pass, out(s.bridges), translated(), verdict(expr.VerdictAccept))
	rule(pass, inOut(s.same, false), toLinked(s.linked), verdict(expr.VerdictAccept))
	rule(pass, inOut(s.same, false), verdict(expr.VerdictDrop))
	for six, f := range s.families {
		rule(pass, ofFamily(six == 1), out(f.open), verdict(expr.VerdictAccept))
		rule(pass, ofFamily(six == 1), out(f.routed), toDirect(f.direct, six == 1), verdict(expr.VerdictAccept))
		rule(pass, ofFamily(six == 1), out(f.routed), icmp(six == 1), verdict(expr.VerdictAccept))
		rule(pass, ofFamily(six == 1), inOut(s.trusted, false), toDirect(f.direct, six == 1), verdict(expr.VerdictAccept))
	}
	rule(pass, out(s.bridges), verdict(expr.VerdictDrop))
	rule(pass, in(s.still), out(s.still), verdict(expr.VerdictDrop))
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func in(s *nftables.Set) []expr.Any  { return member(expr.MetaKeyIIFNAME, s) }
func out(s *nftables.Set) []expr.Any { return member(expr.MetaKeyOIFNAME, s) }

func member(key expr.MetaKey, s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID},
	}
}

// inOut matches the links by which a packet comes and goes against pairs of names.
func inOut(s *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg + 1},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: invert},
	}
}

// fromNeighbour matches packets to a bridge from its own subnet. The link by which they came says less: the kernel does not know it where a
// packet turned round within the bridge.
func fromNeighbour(s *nftables.Set, six bool) []expr.Any {
	offset, length := uint32(saddr4), uint32(4)
	if six {
		offset, length = 8, 16
	}
	return append(ofFamily(six),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Payload{DestRegister: word32(4), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID})
}

// forged matches packets with a source to which no route of the host's leads by the link they came from. Who has no address yet (DHCP, RFC 4862) has none,
// and those of some networks, and some containers of others, may come by another.
func forged(f familySets, six bool) []expr.Any {
	offset, length := uint32(saddr4), uint32(4)
	if six {
		offset, length = 8, 16
	}
	return append(ofFamily(six),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, length)},
		&expr.Lookup{SourceRegister: reg, SetName: f.roaming.Name, SetID: f.roaming.ID, Invert: true},
		&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Payload{DestRegister: word32(4), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg, SetName: f.answers.Name, SetID: f.answers.ID, Invert: true})
}

// Offsets of IPv4's addresses.
const (
	saddr4 = 12
	daddr4 = 16
)

// loopback matches 127.0.0.0/8.
func loopback(offset uint32) []expr.Any {
	return append(ofFamily(false),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{127}})
}

// toLoopback6 matches packets to ::1.
func toLoopback6() []expr.Any {
	return append(ofFamily(true),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: net.IPv6loopback})
}

func ofFamily(six bool) []expr.Any {
	family := byte(unix.NFPROTO_IPV4)
	if six {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
	}
}

// toHost matches what is for an address of the host.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// toElsewhere matches what is for none of the addresses of the link by which it came, nor for many.
func toElsewhere() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	}
}

func translated() []expr.Any { return ctBits(expr.CtKeySTATUS, 1<<5) } // IPS_DST_NAT

func known() []expr.Any {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

// sourceOf gives packets the address that a map has for the link by which they came.
func sourceOf(m *nftables.Set, six bool) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if six {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg},
	}
}

// toDirect matches what is for a port that is published at a container's own address.
func toDirect(s *nftables.Set, six bool) []expr.Any {
	words, offset := 1, uint32(daddr4)
	if six {
		words, offset = 4, 24
	}
	return []expr.Any{
		&expr.Payload{DestRegister: word32(0), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(4 * words)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word32(words)},
		&expr.Payload{DestRegister: word32(words + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: word32(0), SetName: s.Name, SetID: s.ID},
	}
}

// toLinked matches what is for a port that its sender has been linked to.
func toLinked(s *nftables.Set) []expr.Any {
	return append(ofFamily(false),
		&expr.Payload{DestRegister: word32(0), Base: expr.PayloadBaseNetworkHeader, Offset: saddr4, Len: 4},
		&expr.Payload{DestRegister: word32(1), Base: expr.PayloadBaseNetworkHeader, Offset: daddr4, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word32(2)},
		&expr.Payload{DestRegister: word32(3), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: word32(0), SetName: s.Name, SetID: s.ID})
}

func icmp(six bool) []expr.Any {
	proto := byte(unix.IPPROTO_ICMP)
	if six {
		proto = unix.IPPROTO_ICMPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
	}
}

// translate looks a packet's destination up in a map of ports and sends it where the map says.
func translate(m *nftables.Set, six, exact, ranges bool) []expr.Any {
	words, offset, family := 1, uint32(daddr4), uint32(unix.NFPROTO_IPV4)
	if six {
		words, offset, family = 4, 24, unix.NFPROTO_IPV6
	}
	out := ofFamily(six)
	at := 0
	if exact {
		out = append(out, &expr.Payload{DestRegister: word32(0), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(4 * words)})
		at = words
	}
	out = append(out,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word32(at)},
		&expr.Payload{DestRegister: word32(at + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: word32(0), DestRegister: word32(0), IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
	)
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: word32(0)}
	if !ranges {
		nat.RegProtoMin = word32(words)
	}
	return append(out, nat)
}
