package dns

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// patience is how long one server may take. A client asks again after five seconds.
const patience = 2 * time.Second

// forward asks the servers upstream, one after the other, until one has an answer.
func (r *resolver) forward(ctx context.Context, q *dns.Msg, network string) *dns.Msg {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var last *dns.Msg
	for _, server := range r.s.names.Upstream(r.container) {
		a := ask(ctx, q, network, server)
		if a == nil {
			continue
		}
		a.Id = q.Id
		if a.Rcode != dns.RcodeServerFailure && a.Rcode != dns.RcodeRefused {
			return a
		}
		last = a
	}
	if last != nil {
		return last
	}
	a := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	a.RecursionAvailable = true
	return a
}

// ask asks one server under a number of its own, so that an answer cannot be guessed by who asked; nil where none comes.
func ask(ctx context.Context, q *dns.Msg, network string, server netip.AddrPort) *dns.Msg {
	copied := q.Copy()
	copied.Id = dns.Id()
	client := dns.Client{Net: network, Timeout: patience, UDPSize: dns.DefaultMsgSize}
	if o := q.IsEdns0(); o != nil {
		client.UDPSize = max(o.UDPSize(), dns.MinMsgSize)
	}
	a, _, err := client.ExchangeContext(ctx, copied, server.String())
	if err != nil || !a.Response || len(a.Question) != 1 || a.Question[0] != q.Question[0] {
		return nil
	}
	return a
}
