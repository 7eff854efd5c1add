package dns

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// answer answers a question: from the container's networks where they know the name, else as the servers upstream do.
func (r *resolver) answer(ctx context.Context, q *dns.Msg, network string) *dns.Msg {
	if a := r.local(q); a != nil {
		return a
	}
	return r.forward(ctx, q, network)
}

// local answers what needs nobody else; nil for everything else.
func (r *resolver) local(q *dns.Msg) *dns.Msg {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		return new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented)
	}
	if q.Question[0].Qclass != dns.ClassINET {
		return nil
	}
	return r.own(q, q.Question[0])
}

// own answers what is a matter of the container's networks; nil for everything else.
func (r *resolver) own(q *dns.Msg, question dns.Question) *dns.Msg {
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	if question.Qtype == dns.TypePTR {
		address, ok := reverseAddress(name)
		if !ok {
			return nil
		}
		known, own := r.s.names.Reverse(r.container, address)
		if !own {
			return nil
		}
		a := reply(q)
		if known == "" {
			a.Rcode = dns.RcodeNameError
			return a
		}
		a.Answer = append(a.Answer, &dns.PTR{Hdr: header(question), Ptr: dns.Fqdn(known)})
		return a
	}
	addresses, known := r.s.names.Lookup(r.container, name)
	if !known {
		return nil
	}
	a := reply(q)
	for _, address := range rotate(addresses, int(r.s.turn.Add(1))) {
		switch {
		case address.Is4() && question.Qtype == dns.TypeA:
			a.Answer = append(a.Answer, &dns.A{Hdr: header(question), A: address.AsSlice()})
		case address.Is6() && question.Qtype == dns.TypeAAAA:
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: header(question), AAAA: address.AsSlice()})
		}
	}
	return a // without answers: the name is there, it has nothing of that type
}

func reply(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	a.Authoritative, a.RecursionAvailable = true, true
	if o := q.IsEdns0(); o != nil {
		a.SetEdns0(o.UDPSize(), false)
	}
	return a
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
}

// rotate begins with another address each time, so that all containers with one alias have their turn.
func rotate(a []netip.Addr, turn int) []netip.Addr {
	if len(a) < 2 {
		return a
	}
	n := turn % len(a)
	return append(append(make([]netip.Addr, 0, len(a)), a[n:]...), a[:n]...)
}

// reverseAddress is the address that a name below in-addr.arpa or ip6.arpa means.
func reverseAddress(name string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
			parts[i], parts[j] = parts[j], parts[i]
		}
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	labels, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(labels) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := range 32 { // a digit for each label, the last one first
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteByte(labels[62-2*i])
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
