package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// world is a container's servers upstream; it knows no name itself.
type world struct{ servers []netip.AddrPort }

func (world) Lookup(string, string) ([]netip.Addr, bool)   { return nil, false }
func (world) Reverse(string, netip.Addr) (string, bool)    { return "", false }
func (w world) Upstream(container string) []netip.AddrPort { return w.servers }
func (world) Dial(ctx context.Context, _, network string, server netip.AddrPort) (net.Conn, error) {
	return book{}.Dial(ctx, "", network, server)
}

// server answers packets with what reply makes of them, nothing for nil.
func server(t testing.TB, reply func(q []byte) []byte) (at netip.AddrPort, asked *atomic.Int32) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	asked = &atomic.Int32{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			asked.Add(1)
			if b := reply(buf[:n]); b != nil {
				c.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), asked
}

// good gives the address 203.0.113.7 to every name.
func good(b []byte) []byte {
	var q dns.Msg
	if q.Unpack(b) != nil {
		return nil
	}
	a := new(dns.Msg).SetReply(&q)
	a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(203, 0, 113, 7)}}
	out, _ := a.Pack()
	return out
}

func asking(servers ...netip.AddrPort) *resolver {
	s := New(world{servers})
	s.patience = 600 * time.Millisecond
	return &resolver{s: s, container: "c"}
}

// TestDeadServers: the next one is asked, also the third; and for a while those that did not answer come last.
func TestDeadServers(t *testing.T) {
	nobody := func([]byte) []byte { return nil }
	one, askedOne := server(t, nobody)
	two, askedTwo := server(t, nobody)
	three, askedThree := server(t, good)
	r := asking(one, two, three)
	for i := range 5 {
		a := r.answer(t.Context(), new(dns.Msg).SetQuestion("world.example.", dns.TypeA), "udp")
		if a.Rcode != dns.RcodeSuccess || len(a.Answer) != 1 {
			t.Fatalf("question %d: %v", i, a)
		}
	}
	if askedOne.Load() != 1 || askedTwo.Load() != 1 || askedThree.Load() != 5 {
		t.Errorf("asked %d, %d and %d times", askedOne.Load(), askedTwo.Load(), askedThree.Load())
	}
	r = asking(one, two)
	if a := r.answer(t.Context(), new(dns.Msg).SetQuestion("world.example.", dns.TypeA), "udp"); a.Rcode != dns.RcodeServerFailure {
		t.Errorf("nobody answers: %v", a)
	}
}

// TestOneQuestionTriesAgain: when a server that did not answer may be tried again, one question waits for it, not all that come meanwhile.
func TestOneQuestionTriesAgain(t *testing.T) {
	dead, asked := server(t, func([]byte) []byte { return nil })
	alive, _ := server(t, good)
	r := asking(dead, alive)
	r.s.silent.since = map[netip.AddrPort]time.Time{dead: time.Now().Add(-avoided)}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := r.answer(t.Context(), new(dns.Msg).SetQuestion("world.example.", dns.TypeA), "udp"); a.Rcode != dns.RcodeSuccess {
				t.Error(a)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the server was tried by %d questions", n)
	}
}

// TestForeignAnswers: what is no answer to the question is none, and the next server is asked.
func TestForeignAnswers(t *testing.T) {
	change := func(f func(a *dns.Msg)) func([]byte) []byte {
		return func(b []byte) []byte {
			var a dns.Msg
			if a.Unpack(good(b)) != nil {
				return nil
			}
			f(&a)
			out, _ := a.Pack()
			return out
		}
	}
	for name, reply := range map[string]func([]byte) []byte{
		"garbage": func(b []byte) []byte { return []byte(strings.Repeat("\xff\xc0", 60)) },
		"short":   func(b []byte) []byte { return b[:3] },
		"a loop of labels": func(b []byte) []byte {
			return append(append(append([]byte{}, b[:2]...), 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1)
		},
		"another id":       change(func(a *dns.Msg) { a.Id++ }),
		"another question": change(func(a *dns.Msg) { a.Question[0].Name = "other.example." }),
		"another type":     change(func(a *dns.Msg) { a.Question[0].Qtype = dns.TypeMX }),
		"no question":      change(func(a *dns.Msg) { a.Question = nil }),
		"a question":       func(b []byte) []byte { return append([]byte{}, b...) },
		"refused":          change(func(a *dns.Msg) { a.Rcode, a.Answer = dns.RcodeRefused, nil }),
		"failed":           change(func(a *dns.Msg) { a.Rcode, a.Answer = dns.RcodeServerFailure, nil }),
	} {
		bad, asked := server(t, reply)
		next, _ := server(t, good)
		a := asking(bad, next).answer(t.Context(), new(dns.Msg).SetQuestion("world.example.", dns.TypeA), "udp")
		if a.Rcode != dns.RcodeSuccess || len(a.Answer) != 1 || asked.Load() == 0 {
			t.Errorf("%s: %v", name, a)
		}
	}
	small, _ := server(t, change(func(a *dns.Msg) { a.Question[0].Name = strings.ToLower(a.Question[0].Name) }))
	a := asking(small).answer(t.Context(), new(dns.Msg).SetQuestion("WoRlD.example.", dns.TypeA), "udp")
	if a.Rcode != dns.RcodeSuccess || a.Question[0].Name != "WoRlD.example." {
		t.Errorf("a server that changes the case: %v", a)
	}
	no, _ := server(t, change(func(a *dns.Msg) { a.Rcode, a.Answer = dns.RcodeNameError, nil }))
	next, asked := server(t, good)
	if a := asking(no, next).answer(t.Context(), new(dns.Msg).SetQuestion("world.example.", dns.TypeA), "udp"); a.Rcode != dns.RcodeNameError || asked.Load() != 0 {
		t.Errorf("a name that there is not: %v, and the next server was asked %d times", a, asked.Load())
	}
}

// FuzzForeignAnswer: whatever a server sends, the client gets an answer to its own question, in a packet that has room.
func FuzzForeignAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("world.example.", dns.TypeA)
	b, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good(b))
	f.Add(b)
	f.Add(good(b)[:20])
	var next atomic.Pointer[[]byte]
	at, _ := server(f, func(q []byte) []byte {
		out := append([]byte{}, *next.Load()...)
		if len(out) > 2 {
			copy(out, q[:2])
		}
		return out
	})
	r := asking(at)
	r.s.patience = 50 * time.Millisecond
	f.Fuzz(func(t *testing.T, b []byte) {
		next.Store(&b)
		a := r.answer(t.Context(), q, "udp")
		a.Truncate(room(q))
		if a.Id != q.Id || len(a.Question) != 1 || a.Question[0] != q.Question[0] {
			t.Errorf("an answer to something else: %v", a)
		}
		if packed, err := a.Pack(); err == nil && len(packed) > dns.MinMsgSize && !a.Truncated {
			t.Errorf("%d bytes, %d have room", len(packed), dns.MinMsgSize)
		}
	})
}

func TestSilentServersAreBounded(t *testing.T) {
	var s silent
	for i := range 3 * remember {
		s.note(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 53))
	}
	if len(s.since) > remember {
		t.Errorf("%d servers are remembered", len(s.since))
	}
}
