package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
)

// TestMain runs the tests in a network namespace of their own.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNET, m.Run) }

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

func open(t *testing.T, name string) *Table {
	t.Helper()
	table, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(table.Delete(), table.Close()); err != nil {
			t.Error(err)
		}
	})
	return table
}

func port(host string, first, last uint16, to string) Port {
	return Port{Host: netip.MustParseAddr(host), Proto: unix.IPPROTO_TCP, First: first, Last: last, To: netip.MustParseAddrPort(to)}
}

// TestTableAsNftReadsIt holds the table against what nft makes of it.
func TestTableAsNftReadsIt(t *testing.T) {
	table := open(t, "one")
	table.Still([]string{"eth0"})
	subnets := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	for _, b := range []Bridge{{Name: "br0", Masquerade: true, Subnets: subnets}, {Name: "br1", Internal: true, Foreign: true}, {Name: "br2", Masquerade: true, Trusted: []string{"lan0"},
		Families: [2]Family{{Source: netip.MustParseAddr("192.0.2.7")}, {Routed: true}}}, {Name: "br3", Parted: true, Families: [2]Family{{Open: true}, {}}}} {
		if err := table.SetBridge(b); err != nil {
			t.Fatal(err)
		}
	}
	ports := []Port{
		{By: "br3", To: netip.MustParseAddrPort("10.1.0.9:0")},
		port("0.0.0.0", 80, 0, "10.1.0.2:8080"), port("127.0.0.1", 81, 0, "10.1.0.2:8081"), port("192.0.2.1", 1000, 1999, "10.1.0.3:0"),
		port("::", 80, 0, "[fd00:1::2]:8080"), port("2001:db8::1", 81, 0, "[fd00:1::2]:8081"), port("::", 5000, 5999, "[fd00:1::2]:0"),
	}
	ports = append(ports, Port{Direct: true, Proto: unix.IPPROTO_TCP, First: 80, To: netip.MustParseAddrPort("10.1.0.9:0")},
		Port{From: netip.MustParseAddr("10.1.0.2"), Proto: unix.IPPROTO_TCP, First: 5432, To: netip.MustParseAddrPort("10.1.0.9:0")},
		Port{Direct: true, Proto: unix.IPPROTO_UDP, First: 90, Last: 99, To: netip.MustParseAddrPort("[fd00:1::9]:0")})
	if err := table.AddPorts(ports[:3]); err != nil {
		t.Fatal(err)
	}
	if err := table.Swap(); err != nil {
		t.Fatal(err)
	}
	if err := table.AddPorts(ports[3:]); err != nil {
		t.Fatal(err)
	}
	out := nft(t, "list", "table", "inet", "one")
	for _, want := range []string{
		`elements = { "br0" . 10.1.0.0/24 }`, `elements = { "br0" . fd00:1::/64 }`, `"br1"`, `"eth0"`,
		"elements = { tcp . 80 : 10.1.0.2 . 8080 }", "elements = { 127.0.0.1 . tcp . 81 : 10.1.0.2 . 8081 }",
		"elements = { 192.0.2.1 . tcp . 1000-1999 : 10.1.0.3 }", "elements = { tcp . 80 : fd00:1::2 . 8080 }",
		"elements = { 2001:db8::1 . tcp . 81 : fd00:1::2 . 8081 }", "elements = { tcp . 5000-5999 : fd00:1::2 }",
		"iifname @bridges ip daddr 127.0.0.0/8 drop", "oifname . ip saddr @neighbours4 ct status dnat masquerade",
		"meta nfproto ipv4 iifname @masquerade4 iifname . oifname != @same masquerade", "elements = { 10.1.0.9 . tcp . 80 }", "elements = { 10.1.0.2 . 10.1.0.9 . tcp . 5432 }", "elements = { fd00:1::9 . udp . 90-99 }",
		`elements = { "br2" : 192.0.2.7 }`, `elements = { "lan0" . "br2" }`, "iifname . oifname != @same snat ip to iifname map @sources4",
		"oifname @routed6 ip6 daddr . meta l4proto . th dport @direct6 accept", "iifname . oifname @trusted ip daddr . meta l4proto . th dport @direct4 accept",
		"oifname @open4 accept", "iifname @still oifname @still drop",
		"iifname @checked ip saddr != 0.0.0.0 ip saddr != @roaming4 fib saddr . iif oif 0 iifname . ip saddr != @answers4 drop", `elements = { "br3" . 10.1.0.9 }`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if !table.Whole() {
		t.Error("the table is not whole")
	}
	if among := nft(t, "list", "set", "inet", "one", "among"); strings.Contains(among, "br3") || !strings.Contains(among, `"br2" . "br2"`) {
		t.Errorf("containers reach each other on %s", among)
	}
	if checked := nft(t, "list", "set", "inet", "one", "checked"); strings.Contains(checked, "br1") || !strings.Contains(checked, "br0") {
		t.Errorf("sources are checked on %s", checked)
	}
	if err := table.RemovePorts(append(ports, ports...)); err != nil {
		t.Fatal(err)
	}
	if out := nft(t, "list", "table", "inet", "one"); strings.Contains(out, "tcp .") {
		t.Errorf("ports that were removed: %s", out)
	}
	if err := table.RemoveBridge("br1"); err != nil {
		t.Fatal(err)
	}
	if out := nft(t, "list", "table", "inet", "one"); strings.Contains(out, "br1") {
		t.Errorf("a bridge that was removed: %s", out)
	}
}

func TestThousandsOfPorts(t *testing.T) {
	table := open(t, "many")
	if err := table.Swap(); err != nil {
		t.Fatal(err)
	}
	var ports []Port
	for i := range 5000 {
		ports = append(ports, port("0.0.0.0", uint16(20000+i), 0, fmt.Sprintf("10.1.0.2:%d", 30000+i)))
	}
	if err := table.AddPorts(ports); err != nil {
		t.Fatal(err)
	}
	if !table.Whole() {
		t.Error("not all ports arrived")
	}
	if err := table.Swap(); err != nil {
		t.Fatal(err)
	}
	if !table.Whole() {
		t.Error("not all ports are there after a swap")
	}
	if err := table.RemovePorts(ports); err != nil {
		t.Fatal(err)
	}
}

func TestChangesByOthersAreNoticed(t *testing.T) {
	nft(t, "add", "table", "inet", "mine") // so that it is anybody's, as on older kernels
	table, other := open(t, "mine"), open(t, "theirs")
	for _, x := range []*Table{table, other} {
		if err := x.Swap(); err != nil {
			t.Fatal(err)
		}
	}
	w, err := table.Watch()
	if err != nil {
		t.Fatal(err)
	}
	noticed := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := w.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			noticed <- err
		}
	}()
	expect := func(what string, want bool) {
		t.Helper()
		select {
		case err := <-noticed:
			if err != nil || !want {
				t.Errorf("%s: noticed, %v", what, err)
			}
		case <-time.After(map[bool]time.Duration{true: time.Minute, false: 200 * time.Millisecond}[want]):
			if want {
				t.Errorf("%s: not noticed", what)
			}
		}
	}
	p := port("0.0.0.0", 80, 0, "10.1.0.2:80")
	if err := errors.Join(table.AddPorts([]Port{p}), table.Swap(), other.AddPorts([]Port{p}), other.Swap()); err != nil {
		t.Fatal(err)
	}
	expect("own changes and those of another table", false)
	nft(t, "delete", "element", "inet", "mine", "any_ports4", "{ tcp . 80 }")
	expect("an element that was deleted", true)
	if table.Whole() {
		t.Error("whole without an element")
	}
	nft(t, "delete", "table", "inet", "mine")
	expect("a table that was deleted", true)
	if table.Whole() {
		t.Error("whole without a table")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for {
		select {
		case err := <-noticed: // each deleted part has its notice
			if err != nil {
				t.Fatal(err)
			}
			continue
		case <-ended:
		}
		break
	}
	// Elements can be added and removed all the same: the table is made again.
	q := port("0.0.0.0", 81, 0, "10.1.0.2:81")
	if err := table.AddPorts([]Port{q}); err != nil || !table.Whole() {
		t.Errorf("a port in a table that was deleted: %v", err)
	}
}

// TestWatchEndsWithItsClose: wherever it is when it is closed.
func TestWatchEndsWithItsClose(t *testing.T) {
	table := open(t, "mine")
	for i := range 200 {
		w, err := table.Watch()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- w.Next() }()
		if i%2 == 0 {
			time.Sleep(time.Duration(i) * time.Microsecond)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// TestOthersCannotFlush: the table is its owner's, and the next engine's after that one's end.
func TestOthersCannotFlush(t *testing.T) {
	first, err := Open("mine")
	if err != nil {
		t.Fatal(err)
	}
	p := port("0.0.0.0", 80, 0, "10.1.0.2:80")
	if err := errors.Join(first.AddPorts([]Port{p}), first.Swap()); err != nil {
		t.Fatal(err)
	}
	if owned, err := first.claim(); err != nil || !owned {
		t.Skipf("this kernel's tables have no owners that they outlive (Linux 6.9): %v", err)
	}
	nft(t, "add", "table", "ip", "theirs")
	nft(t, "flush", "ruleset")
	if out := nft(t, "list", "ruleset"); !first.Whole() || strings.Contains(out, "theirs") || !strings.Contains(out, "tcp . 80 : 10.1.0.2 . 80") {
		t.Errorf("after another one has flushed everything: %s", out)
	}
	if err := exec.Command("nft", "delete", "table", "inet", "mine").Run(); err == nil {
		t.Error("another one deleted the table")
	}
	if err := first.dial(); err != nil { // a new socket, as after an error
		t.Fatal(err)
	}
	q := port("0.0.0.0", 81, 0, "10.1.0.2:81")
	if err := first.ChangePorts([]Port{p}, []Port{q}); err != nil || !first.Whole() {
		t.Errorf("by another socket: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if out := nft(t, "list", "ruleset"); !strings.Contains(out, "tcp . 81 : 10.1.0.2 . 81") {
		t.Errorf("after its owner's end: %s", out)
	}
	next := open(t, "mine")
	if err := errors.Join(next.AddPorts([]Port{p}), next.Swap()); err != nil || !next.Whole() {
		t.Fatalf("the next one: %v", err)
	}
	nft(t, "flush", "ruleset")
	if out := nft(t, "list", "ruleset"); !next.Whole() || strings.Contains(out, "10.1.0.2 . 81") {
		t.Errorf("in the next one's hands: %s", out)
	}
}

func TestObstacles(t *testing.T) {
	table := open(t, "mine")
	if err := table.Swap(); err != nil {
		t.Fatal(err)
	}
	nft(t, "add", "table", "ip", "filter")
	t.Cleanup(func() { nft(t, "delete", "table", "ip", "filter") })
	nft(t, "add chain ip filter INPUT { type filter hook input priority 0; policy drop; }")
	nft(t, "add chain ip filter USER")
	if got, err := table.Obstacles(); err != nil || len(got) != 0 {
		t.Errorf("without an obstacle: %q, %v", got, err)
	}
	nft(t, "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	if got, err := table.Obstacles(); err != nil || len(got) != 1 || got[0] != "ip filter FORWARD" {
		t.Errorf("with one: %q, %v", got, err)
	}
}

// TestKernelsWithoutSourceChecks: what a kernel before Linux 5.19 says of a rule that it does not take where it stands is understood, and all other rules are
// there without those.
func TestKernelsWithoutSourceChecks(t *testing.T) {
	refused := open(t, "refused")
	table := refused.conn.AddTable(&nftables.Table{Name: "refused", Family: nftables.TableFamilyINet})
	chain := refused.conn.AddChain(&nftables.Chain{Table: table, Name: "c", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	refused.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Fib{Register: reg, FlagDADDR: true, FlagOIF: true, ResultADDRTYPE: true}}})
	if err := refused.conn.Flush(); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a rule in a chain that it is not for: %v", err)
	}
	if err := refused.dial(); err != nil {
		t.Fatal(err)
	}
	old := open(t, "old")
	old.lax = true
	if err := errors.Join(old.SetBridge(Bridge{Name: "br0"}), old.Swap()); err != nil {
		t.Fatal(err)
	}
	if out := nft(t, "list", "table", "inet", "old"); !old.Whole() || old.ChecksSources() || strings.Contains(out, "@checked") || !strings.Contains(out, "iifname @internal fib") {
		t.Errorf("whole %v: %s", old.Whole(), out)
	}
}
