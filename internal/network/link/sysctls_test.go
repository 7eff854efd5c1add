package link

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSysctlsOfNamespaces: each namespace has its own, also where a procfs is used up between two of them.
func TestSysctlsOfNamespaces(t *testing.T) {
	home, err := Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	const key = "net/ipv4/ip_unprivileged_port_start"
	read := func() string {
		b, err := os.ReadFile("/proc/sys/" + key)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	here := read()
	s := &Sysctls{}
	before := -1
	for i := range usesOfProc + 10 {
		err := Inside(namespace(t), home, func() error {
			if got := read(); got == strconv.Itoa(before) {
				t.Errorf("a new namespace has %s, as the one before it", got)
			}
			if err := s.Set(key, strconv.Itoa(2000+i)); err != nil {
				return err
			}
			if got := read(); got != strconv.Itoa(2000+i) {
				t.Errorf("%s instead of %d", got, 2000+i)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		before = 2000 + i
	}
	if s.proc == nil {
		t.Error("no procfs of its own")
	}
	if got := read(); got != here {
		t.Errorf("outside it was %s and is %s", here, got)
	}
	if err := s.Set("net/ipv4/no_such", "1"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such setting: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}
