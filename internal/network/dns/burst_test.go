package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// full is a container's world with one name of its own and a server that knows all others.
type full struct {
	book
	at netip.AddrPort
}

func (f full) Upstream(string) []netip.AddrPort { return []netip.AddrPort{f.at} }

// TestBurstOfQuestions: far more questions at once than servers upstream are asked at once, all answered: a lost one costs its client seconds.
func TestBurstOfQuestions(t *testing.T) {
	upstream, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	enlarge(upstream)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := upstream.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			b := good(buf[:n])
			time.AfterFunc(20*time.Millisecond, func() { upstream.WriteToUDPAddrPort(b, from) }) // all places are taken for a while
		}
	}()
	for name, pattern := range map[string]string{"servers upstream": "x%d.example.", "containers": "db."} {
		n := 6 * questionsAtOnce
		if pattern == "db." { // which take no time but their own
			n = 10000
		}
		r := newResolver()
		r.s = New(full{at: upstream.LocalAddr().(*net.UDPAddr).AddrPort()})
		if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		enlarge(r.udp)
		client, err := net.DialUDP("udp4", nil, r.udp.LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		enlarge(client)
		for i := range n { // before anybody reads
			text := pattern
			if pattern != "db." {
				text = fmt.Sprintf(pattern, i)
			}
			q := new(dns.Msg).SetQuestion(text, dns.TypeA)
			q.Id = uint16(i)
			b, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		r.s.wg.Go(func() { r.serveUDP(ctx) })
		answered := map[uint16]bool{}
		buf := make([]byte, 4096)
		for len(answered) < n {
			client.SetReadDeadline(time.Now().Add(10 * time.Second)) // of nothing at all
			got, err := client.Read(buf)
			if err != nil {
				t.Errorf("questions for %s: %d of %d are answered: %v", name, len(answered), n, err)
				break
			}
			var a dns.Msg
			if err := a.Unpack(buf[:got]); err != nil || a.Rcode != dns.RcodeSuccess || len(a.Answer) == 0 {
				t.Fatalf("questions for %s: %v: %v", name, err, a)
			}
			answered[a.Id] = true
		}
		cancel()
		client.Close()
		r.udp.Close()
		r.s.wg.Wait()
	}
}
