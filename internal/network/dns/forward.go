package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	patience = 4500 * time.Millisecond // a client asks again after five seconds
	avoided  = 30 * time.Second        // how long a server that did not answer is asked after the others
	remember = 256                     // servers that did not answer
)

// forward asks the servers upstream, one after the other, until one has an answer. Together they have the time that a client waits.
func (r *resolver) forward(ctx context.Context, q *dns.Msg, network string) *dns.Msg {
	ctx, cancel := context.WithTimeout(ctx, r.s.patience)
	defer cancel()
	servers := r.s.silent.last(r.s.names.Upstream(r.container))
	var last *dns.Msg
	for i, server := range servers {
		left, _ := ctx.Deadline()
		a := r.ask(ctx, q, network, server, time.Until(left)/time.Duration(len(servers)-i))
		if a == nil {
			continue
		}
		a.Id, a.Question = q.Id, q.Question
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
func (r *resolver) ask(ctx context.Context, q *dns.Msg, network string, server netip.AddrPort, patience time.Duration) *dns.Msg {
	copied := q.Copy()
	copied.Id = dns.Id()
	client := dns.Client{Net: network, Timeout: patience, UDPSize: dns.DefaultMsgSize}
	if o := q.IsEdns0(); o != nil {
		client.UDPSize = max(o.UDPSize(), dns.MinMsgSize)
	}
	a, err := exchange(ctx, &client, copied, func(ctx context.Context) (net.Conn, error) { return r.s.names.Dial(ctx, r.container, network, server) })
	if err != nil && context.Cause(ctx) != context.Canceled {
		r.s.silent.note(server)
	}
	if err != nil || !a.Response || len(a.Question) != 1 || !same(a.Question[0], q.Question[0]) {
		return nil
	}
	r.s.silent.forget(server)
	return a
}

// exchange sends a question and waits for its answer; an answer under another number is somebody else's.
func exchange(ctx context.Context, client *dns.Client, q *dns.Msg, dial func(context.Context) (net.Conn, error)) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, client.Timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a, _, err := client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: conn, UDPSize: client.UDPSize})
	return a, err
}

// same says that a question came back; some servers change the case of names.
func same(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// silent are servers that did not answer. The zero value works.
type silent struct {
	mu    sync.Mutex // guards since
	since map[netip.AddrPort]time.Time
}

func (s *silent) note(server netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since == nil || len(s.since) >= remember {
		s.since = map[netip.AddrPort]time.Time{}
	}
	s.since[server] = time.Now()
}

func (s *silent) forget(server netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, server)
}

// last are the servers in their order, those that lately did not answer behind the others. One whose time is over is tried by one question: the others do
// not wait for it as well.
func (s *silent) last(servers []netip.AddrPort) []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.since) == 0 {
		return servers
	}
	var first, later []netip.AddrPort
	for _, server := range servers {
		at, ok := s.since[server]
		if ok && time.Since(at) < avoided {
			later = append(later, server)
			continue
		}
		if ok {
			s.since[server] = time.Now()
		}
		first = append(first, server)
	}
	return append(first, later...)
}
