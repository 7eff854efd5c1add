package dns

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
)

// TestMain runs the tests in a network namespace of their own, so that the machine's rules stay as they are.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNET, m.Run) }

// book is a container's world: one name, one subnet.
type book struct{}

func (book) Lookup(_, name string) ([]netip.Addr, bool) {
	if name != "db" {
		return nil, false
	}
	return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::2")}, true
}

func (book) Reverse(_ string, a netip.Addr) (string, bool) {
	switch {
	case a == netip.MustParseAddr("10.0.0.2") || a == netip.MustParseAddr("fd00::2"):
		return "db.one", true
	case netip.MustParsePrefix("10.0.0.0/24").Contains(a):
		return "", true
	}
	return "", false
}

func (book) Upstream(string) []netip.AddrPort { return nil }

func (book) Dial(ctx context.Context, _, network string, server netip.AddrPort) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, server.String())
}

func testResolver() *resolver { return &resolver{s: New(book{}), container: "c"} }

func TestAnswers(t *testing.T) {
	r := testResolver()
	for _, row := range []struct {
		name  string
		kind  uint16
		rcode int
		n     int
	}{
		{"db.", dns.TypeA, dns.RcodeSuccess, 2},
		{"DB.", dns.TypeA, dns.RcodeSuccess, 2},
		{"db.", dns.TypeAAAA, dns.RcodeSuccess, 1},
		{"db.", dns.TypeMX, dns.RcodeSuccess, 0},
		{"other.", dns.TypeA, dns.RcodeServerFailure, 0},
		{"2.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, 1},
		{"9.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, 0},
		{"9.0.0.11.in-addr.arpa.", dns.TypePTR, dns.RcodeServerFailure, 0},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, dns.RcodeSuccess, 1},
		{"x.ip6.arpa.", dns.TypePTR, dns.RcodeServerFailure, 0},
	} {
		q := new(dns.Msg).SetQuestion(row.name, row.kind)
		q.SetEdns0(1232, false)
		a := r.answer(t.Context(), q, "udp")
		if a.Rcode != row.rcode || len(a.Answer) != row.n || a.Id != q.Id || !a.Response {
			t.Errorf("%s %s: %v", row.name, dns.TypeToString[row.kind], a)
		}
		for _, rr := range a.Answer {
			if rr.Header().Name != row.name { // the question's own case comes back
				t.Errorf("%s: answer for %s", row.name, rr.Header().Name)
			}
		}
		if a.Rcode == dns.RcodeSuccess && a.IsEdns0() == nil {
			t.Errorf("%s: the answer lost EDNS", row.name)
		}
	}
	notify := new(dns.Msg).SetNotify("db.")
	if a := r.answer(t.Context(), notify, "udp"); a.Rcode != dns.RcodeNotImplemented {
		t.Errorf("a notification: %v", a)
	}
}

func TestTurns(t *testing.T) {
	r := testResolver()
	first := map[string]int{}
	for range 20 {
		a := r.answer(t.Context(), new(dns.Msg).SetQuestion("db.", dns.TypeA), "udp")
		first[a.Answer[0].String()]++
	}
	if len(first) != 2 {
		t.Errorf("always the same is first: %v", first)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"db.", "2.0.0.10.in-addr.arpa.", "x.ip6.arpa."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypePTR).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := testResolver()
	f.Fuzz(func(t *testing.T, b []byte) {
		var q dns.Msg
		if q.Unpack(b) != nil || q.Response {
			return
		}
		a := r.answer(t.Context(), &q, "udp")
		a.Truncate(room(&q))
		if packed, err := a.Pack(); err == nil && len(packed) > max(room(&q), dns.MinMsgSize) && !a.Truncated {
			t.Errorf("%d bytes, %d have room", len(packed), room(&q))
		}
	})
}

func FuzzReverseAddress(f *testing.F) {
	f.Add("4.3.2.1.in-addr.arpa")
	f.Add("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddress(name)
		if !ok {
			return
		}
		if back, err := dns.ReverseAddr(a.String()); err != nil {
			t.Errorf("%s gave %s: %v", name, a, err)
		} else if again, ok := reverseAddress(back[:len(back)-1]); !ok || again != a {
			t.Errorf("%s gave %s, then %s", name, a, again)
		}
	})
}
