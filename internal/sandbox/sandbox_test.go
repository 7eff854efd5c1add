package sandbox

import (
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

func TestRangesNeverOverlap(t *testing.T) {
	r := NewRanges("/var/lib/one")
	kept := rootfs.IDMap{Base: firstBase + (r.next+1)*rangeSize, Size: rangeSize}
	r.Keep(kept)
	seen := map[uint32]bool{}
	for range 500 {
		m, err := r.Take()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Size != rangeSize || m.Base < firstBase || m.Base%rangeSize != 0:
			t.Fatalf("range %+v is no whole range", m)
		case m.Base == kept.Base:
			t.Fatal("a kept range was given out")
		case seen[m.Base]:
			t.Fatalf("range %d was given out twice", m.Base)
		case uint64(m.Base)+uint64(m.Size) > 1<<31:
			t.Fatalf("range %d does not fit in a signed number", m.Base)
		}
		seen[m.Base] = true
	}
}

func TestRangesRunOut(t *testing.T) {
	r := NewRanges("x")
	var last rootfs.IDMap
	for range ranges - 1 {
		m, err := r.Take()
		if err != nil {
			t.Fatal(err)
		}
		last = m
	}
	if _, err := r.Take(); err == nil {
		t.Fatal("more ranges than there are")
	}
	r.Give(last)
	if m, err := r.Take(); err != nil || m != last {
		t.Fatalf("the range that was given back: %v, %v", m, err)
	}
}

func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	hosts, resolv := filepath.Join(dir, "h"), filepath.Join(dir, "r")
	os.WriteFile(hosts, []byte("10.0.0.1 me\n"), 0o600)
	os.WriteFile(resolv, []byte("nameserver 1.1.1.1\nsearch old.example"), 0o600)
	n := HostNetwork{Hostname: "box", ExtraHosts: []string{"db:10.1.1.1", "six:[::2]"}, DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, HostHosts: hosts, HostResolveConf: resolv}
	f := FilesIn(dir)
	if err := f.Write(n.Content()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{f.Hosts: "10.0.0.1 me\n127.0.0.1\thost.docker.internal host.containers.internal\n10.1.1.1\tdb\n::2\tsix\n", f.Hostname: "box\n", f.ResolvConf: "search old.example\nnameserver 9.9.9.9\n"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
	}
	n.None = true
	if c := n.Content(); !strings.Contains(string(c.Hosts), "127.0.0.1\tlocalhost") || strings.Contains(string(c.Hosts), "me") {
		t.Errorf("hosts without a network: %q", c.Hosts)
	}
}

// TestLeasesHoldNobodyUp: a container's process that has a lease on its /etc/hosts does not make the engine wait.
func TestLeasesHoldNobodyUp(t *testing.T) {
	files := FilesIn(t.TempDir())
	content := Content{Hosts: []byte("first\n"), ResolvConf: []byte("x\n"), Hostname: "h"}
	if err := files.Write(content); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(files.Hosts, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGIO)
	defer signal.Reset(unix.SIGIO)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	content.Hosts = []byte("second\n")
	if err := files.Write(content); !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "lease") {
		t.Errorf("with a lease: %v", err)
	}
	f.Close()
	if err := files.Write(content); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(files.Hosts); err != nil || string(b) != "second\n" {
		t.Errorf("%q %v", b, err)
	}
}
