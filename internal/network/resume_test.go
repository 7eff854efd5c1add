package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// keeper stands in for a shim that keeps sockets.
type keeper struct{ kept []*os.File }

func (k *keeper) keep(s *Service, id string) {
	if got := Sockets(s, id); got != nil {
		closeFiles(k.kept)
		k.kept = got
	}
}

func (k *keeper) give(context.Context, string) (out []*os.File, err error) {
	for _, f := range k.kept {
		c, err := duplicate(f)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// question asks from inside, once, and does not wait yet.
func (b *box) question(t *testing.T, proto, name string) (answer func() (*dns.Msg, error)) {
	t.Helper()
	home, err := link.Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var conn net.Conn
	err = link.Inside(b.netns, home, func() (err error) {
		conn, err = net.DialTimeout(proto, "127.0.0.11:53", 10*time.Second)
		return err
	})
	if err != nil {
		t.Fatalf("ask by %s: %v", proto, err)
	}
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	return func() (*dns.Msg, error) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.ReadMsg()
	}
}

// TestQuestionsOutliveTheEngine: a question that comes while no engine runs is answered by the next one, without having been asked again. So it is
// after an engine that had other sockets in between, which knows nothing of those that are kept.
func TestQuestionsOutliveTheEngine(t *testing.T) {
	upstream(t)
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	b := newBox(t)
	b.attach(s, AllocateRequest{Name: "b", Networks: map[string]*network.EndpointSettings{"one": {}}})
	k := &keeper{}
	defer func() { closeFiles(k.kept) }()
	k.keep(s, b.id)
	if again := Sockets(s, b.id); again != nil {
		t.Error("what is kept is given again")
	}
	rules := func() string { return b.mustRun("nft", "list", "ruleset") }
	before := rules()
	for round, want := range []string{"the same rules", "other rules", "the same rules", "other rules"} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if round == 1 { // an engine of a build that knows nothing of kept sockets
			o := s.o
			o.Kept = nil
			s = reopen(t, o)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if round == 3 { // the shim has lost them
			closeFiles(k.kept)
			k.kept = nil
		}
		answers := map[string]func() (*dns.Msg, error){}
		if round%2 == 0 {
			for _, name := range []string{"b", "world.example"} {
				for _, proto := range []string{"udp", "tcp"} {
					answers[fmt.Sprintf("round %d: %s by %s", round, name, proto)] = b.question(t, proto, name)
				}
			}
		}
		o := s.o
		o.Kept = k.give
		s = reopen(t, o)
		k.keep(s, b.id)
		for what, answer := range answers {
			if a, err := answer(); err != nil || len(a.Answer) != 1 {
				t.Errorf("%s: %v, %v", what, a, err)
			}
		}
		for _, proto := range []string{"udp", "tcp"} {
			if a, err := b.ask(proto, "b", dns.TypeA); err != nil || len(a.Answer) != 1 {
				t.Errorf("round %d, by %s: %v, %v", round, proto, a, err)
			}
		}
		after := rules()
		if got := map[bool]string{true: "the same rules", false: "other rules"}[strings.TrimSpace(after) == strings.TrimSpace(before)]; got != want {
			t.Errorf("round %d: %s: %s", round, got, after)
		}
		before = after
	}
	b.release(s)
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return os.NewFile(uintptr(fd), f.Name()), err
}
