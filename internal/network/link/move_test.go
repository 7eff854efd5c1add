package link

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMove(t *testing.T) {
	for as, want := range map[string]string{"": "moved0", "other": "other", "eth%d": "eth0"} {
		ip(t, "link", "add", "moved0", "mtu", "1300", "address", "02:00:00:00:00:42", "type", "veth", "peer", "name", "stays0")
		ip(t, "addr", "add", "10.77.0.2/24", "brd", "10.77.0.255", "label", "moved0:x", "dev", "moved0")
		ip(t, "addr", "add", "10.78.0.1", "peer", "10.78.0.2/32", "noprefixroute", "dev", "moved0")
		ip(t, "addr", "add", "10.79.0.1/24", "scope", "link", "dev", "moved0")
		ip(t, "addr", "add", "10.80.0.1/24", "valid_lft", "1000", "preferred_lft", "1000", "dev", "moved0")
		ip(t, "addr", "add", "fd00:77::2/64", "nodad", "dev", "moved0")
		ip(t, "link", "set", "moved0", "up")
		to := namespace(t)
		if err := (Move{Name: "moved0", As: as, To: to}).Do(); err != nil {
			t.Fatal(err)
		}
		home, err := Home()
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := Inside(to, home, func() error { got = ip(t, "addr", "show", "dev", want); return nil }); err != nil {
			t.Fatal(err)
		}
		home.Close()
		label := " " + want + ":x\n"
		if strings.Contains(as, "%") {
			label = "\n"
		}
		for _, text := range []string{"mtu 1300", "02:00:00:00:00:42", "inet 10.77.0.2/24 brd 10.77.0.255 scope global" + label, "10.78.0.1 peer 10.78.0.2/32 scope global noprefixroute", "fd00:77::2/64 scope global", ",UP"} {
			if !strings.Contains(strings.ReplaceAll(got, " "+want+"\n", "\n"), strings.ReplaceAll(text, " "+want+"\n", "\n")) {
				t.Errorf("as %q: no %q in %s", as, text, got)
			}
		}
		for _, text := range []string{"10.79.0.1", "10.80.0.1"} { // of the link only; for a time only
			if strings.Contains(got, text) {
				t.Errorf("as %q: %q in %s", as, text, got)
			}
		}
		ip(t, "link", "del", "stays0")
	}
}

func TestMoveThatCannotBe(t *testing.T) {
	to := namespace(t)
	if err := (Move{Name: "nothing0", To: to}).Do(); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "nothing0") {
		t.Errorf("an interface that is not there: %v", err)
	}
	ip(t, "link", "add", "moved0", "type", "veth", "peer", "name", "stays0")
	defer ip(t, "link", "del", "stays0")
	if err := (Move{Name: "moved0", As: "lo", To: to}).Do(); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "%d") {
		t.Errorf("a name that is taken: %v", err)
	}
	ip(t, "link", "show", "dev", "moved0") // it has stayed
}
