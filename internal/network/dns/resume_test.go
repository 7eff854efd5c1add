package dns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestOldQuestionsAreLeftOut: what waited in the socket longer than its client did gets no answer, what comes after it does.
func TestOldQuestionsAreLeftOut(t *testing.T) {
	for patience, want := range map[time.Duration]uint16{time.Hour: 1, 0: 2} {
		r := newResolver()
		r.s, r.resumed = New(book{}), true
		r.s.patience = patience
		var err error
		if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		in, err := r.udp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		setStamps(in, 1)
		client, err := net.DialUDP("udp4", nil, r.udp.LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		ask := func(id uint16) {
			q := new(dns.Msg).SetQuestion("db.", dns.TypeA)
			q.Id = id
			b, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		ask(1)
		buf := make([]byte, 4096)
		r.catchUp(t.Context(), in, buf)
		ask(2)
		ctx, cancel := context.WithCancel(t.Context())
		r.resumed = false
		r.s.wg.Go(func() { r.serveUDP(ctx) })
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		var a dns.Msg
		if err := a.Unpack(buf[:n]); err != nil || a.Id != want {
			t.Errorf("with patience of %s the first answer is to question %d, not %d: %v", patience, a.Id, want, err)
		}
		cancel()
		client.Close()
		r.udp.Close()
		r.s.wg.Wait()
	}
}

// TestCloseWaitsForAnswers: a question that is with a server upstream when the engine ends is answered; one that comes then stays in the socket.
func TestCloseWaitsForAnswers(t *testing.T) {
	upstream, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	s := New(full{at: upstream.LocalAddr().(*net.UDPAddr).AddrPort()})
	if err := s.Start(t.Context(), "c", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	sockets, _ := s.Sockets("c")
	kept, err := net.FilePacketConn(sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for _, f := range sockets {
		f.Close()
	}
	client, err := net.Dial("udp4", "127.0.0.11:53")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := &dns.Conn{Conn: client}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion("x.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, from, err := upstream.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		c.WriteMsg(new(dns.Msg).SetQuestion("db.", dns.TypeA))
		upstream.WriteToUDPAddrPort(good(buf[:n]), from)
	})
	s.Close()
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if a, err := c.ReadMsg(); err != nil || len(a.Question) != 1 || a.Question[0].Name != "x.example." {
		t.Errorf("%v, %v", a, err)
	}
	kept.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _, err := kept.ReadFrom(buf); err != nil || n == 0 {
		t.Errorf("the question that came last: %v", err)
	}
}
