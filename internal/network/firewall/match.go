package firewall

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// answer says whether a packet matches.
type answer int

const (
	no answer = iota
	maybe
	yes
)

// rule says whether a rule matches the packet, and its verdict; nil where it has none.
func (j *judge) rule(r *nftables.Rule) (match answer, verdict *expr.Verdict) {
	registers := map[uint32][]byte{} // what is not known is not there
	match = yes
	for _, e := range r.Exprs {
		got := yes
		switch e := e.(type) {
		case *expr.Meta:
			registers[e.Register] = j.meta(e)
		case *expr.Payload:
			registers[e.DestRegister] = j.payload(e)
		case *expr.Ct:
			registers[e.Register] = j.conntrack(e)
		case *expr.Bitwise:
			registers[e.DestRegister] = bitwise(registers[e.SourceRegister], e)
		case *expr.Cmp:
			got = compare(registers[e.Register], e)
		case *expr.Range:
			got = within(registers[e.Register], e)
		case *expr.Lookup:
			got = j.lookup(registers[e.SourceRegister], e)
			if e.IsDestRegSet {
				got, verdict = maybe, &expr.Verdict{Kind: expr.VerdictQueue} // a map of verdicts
			}
		case *expr.Match:
			got = j.extension(e)
		case *expr.Verdict:
			verdict = e
		case *expr.Reject:
			verdict = &expr.Verdict{Kind: expr.VerdictDrop}
		case *expr.Target:
			if e.Name == "REJECT" || e.Name == "DROP" {
				verdict = &expr.Verdict{Kind: expr.VerdictDrop}
			}
		case *expr.Counter, *expr.Log:
		default:
			got = maybe
		}
		if got == no {
			return no, nil
		}
		match = min(match, got)
	}
	return match, verdict
}

func (j *judge) meta(e *expr.Meta) []byte {
	p := j.packet
	switch e.Key {
	case expr.MetaKeyIIFNAME:
		return ifname(p.In)
	case expr.MetaKeyOIFNAME:
		return ifname(p.Out)
	case expr.MetaKeyL4PROTO:
		return []byte{p.Proto}
	case expr.MetaKeyNFPROTO:
		if p.To.Addr().Is6() {
			return []byte{unix.NFPROTO_IPV6}
		}
		return []byte{unix.NFPROTO_IPV4}
	}
	return nil
}

func (j *judge) payload(e *expr.Payload) []byte {
	p, to := j.packet, j.packet.To
	type field struct {
		base        expr.PayloadBase
		offset, len uint32
	}
	source, destination := field{expr.PayloadBaseNetworkHeader, saddr4, 4}, field{expr.PayloadBaseNetworkHeader, daddr4, 4}
	protocol := field{expr.PayloadBaseNetworkHeader, 9, 1}
	if to.Addr().Is6() {
		source, destination, protocol = field{expr.PayloadBaseNetworkHeader, 8, 16}, field{expr.PayloadBaseNetworkHeader, 24, 16}, field{expr.PayloadBaseNetworkHeader, 6, 1}
	}
	switch (field{e.Base, e.Offset, e.Len}) {
	case source:
		if p.From.IsValid() {
			return p.From.AsSlice()
		}
	case destination:
		return to.Addr().AsSlice()
	case protocol:
		return []byte{p.Proto}
	case field{expr.PayloadBaseTransportHeader, 2, 2}:
		return []byte{byte(to.Port() >> 8), byte(to.Port())}
	}
	return nil
}

func (j *judge) conntrack(e *expr.Ct) []byte {
	switch e.Key {
	case expr.CtKeySTATE:
		return binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
	case expr.CtKeyDIRECTION:
		return []byte{0}
	case expr.CtKeySTATUS:
		const destinationChanged = 1 << 5 // IPS_DST_NAT; what else has a name comes later in a connection's life
		return binaryutil.NativeEndian.PutUint32(uint32(index(j.packet.Mapped)) * destinationChanged)
	}
	return nil
}

func bitwise(value []byte, e *expr.Bitwise) []byte {
	if len(value) == 0 || len(value) != len(e.Mask) || len(value) != len(e.Xor) {
		return nil
	}
	out := make([]byte, len(value))
	for i := range value {
		out[i] = value[i]&e.Mask[i] ^ e.Xor[i]
	}
	return out
}

// compare holds a register against a value, which may be the beginning of it only: "eth*", 10.0.0.0/8.
func compare(value []byte, e *expr.Cmp) answer {
	if len(value) < len(e.Data) || len(e.Data) == 0 {
		return maybe
	}
	c := bytes.Compare(value[:len(e.Data)], e.Data)
	holds := map[expr.CmpOp]bool{
		expr.CmpOpEq: c == 0, expr.CmpOpNeq: c != 0, expr.CmpOpLt: c < 0, expr.CmpOpLte: c <= 0, expr.CmpOpGt: c > 0, expr.CmpOpGte: c >= 0,
	}[e.Op]
	return said(holds)
}

func within(value []byte, e *expr.Range) answer {
	if len(value) == 0 || len(value) != len(e.FromData) {
		return maybe
	}
	inside := bytes.Compare(value, e.FromData) >= 0 && bytes.Compare(value, e.ToData) <= 0
	return said(inside == (e.Op == expr.CmpOpEq))
}

// lookup looks for a register in a set. Keys of several parts are not understood.
func (j *judge) lookup(value []byte, e *expr.Lookup) answer {
	elements, err := j.conn.GetSetElements(&nftables.Set{Table: j.table, Name: e.SetName})
	if err != nil || len(value) == 0 {
		return maybe
	}
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int {
		return cmp.Or(bytes.Compare(a.Key, b.Key), index(b.IntervalEnd)-index(a.IntervalEnd))
	})
	interval := slices.ContainsFunc(elements, func(x nftables.SetElement) bool { return x.IntervalEnd })
	inside := false
	for _, x := range elements {
		if len(x.Key) != len(value) || len(x.KeyEnd) > 0 {
			return maybe
		}
		switch c := bytes.Compare(x.Key, value); {
		case c == 0 && !interval:
			inside = true
		case c <= 0 && interval:
			inside = !x.IntervalEnd
		}
	}
	return said(inside != e.Invert)
}

// extension understands what iptables writes most.
func (j *judge) extension(e *expr.Match) answer {
	const states, newState = 1, 1 << 3 // XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
	p := j.packet
	port := func(span [2]uint16) answer {
		return said(span[0] <= p.To.Port() && p.To.Port() <= span[1])
	}
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo3:
		if info.MatchFlags != states {
			return maybe
		}
		return said((info.StateMask&newState != 0) == (info.InvertFlags&states == 0))
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		if p.Proto != unix.IPPROTO_TCP {
			return no
		}
		return port(info.DstPorts)
	case *xt.Udp:
		if p.Proto != unix.IPPROTO_UDP {
			return no
		}
		return port(info.DstPorts)
	}
	return maybe
}

func said(b bool) answer {
	if b {
		return yes
	}
	return no
}
