package sysprog

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// apart makes a program that joins this process's own time namespace, which a child that shares memory may not, and executes path.
func apart(t *testing.T, path string, flags uint64) *Program {
	t.Helper()
	clocks, err := os.Open("/proc/self/ns/time")
	must(t, err)
	t.Cleanup(func() { clocks.Close() })
	p, err := NewApart(4096)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	p.Call("join the time namespace", unix.SYS_SETNS, int(clocks.Fd()), unix.CLONE_NEWTIME)
	p.Fork("clone", flags, -1)
	p.Mark(1)
	p.Call("execute", unix.SYS_EXECVE, p.String(path), p.Strings([]string{path}), p.Strings(nil))
	return p
}

func TestApartMayJoinATimeNamespace(t *testing.T) {
	for _, flags := range []uint64{0, ForkApart} {
		p := apart(t, "/bin/true", flags)
		pr, err := p.Start(0, true)
		must(t, err)
		must(t, pr.Wait(1))
		must(t, pr.Release())
		pidfd, err := Pollable(pr.Pidfd)
		must(t, err)
		if code, signal, err := Status(pidfd); code != 0 || signal != 0 || err != nil {
			t.Errorf("%d, %d, %v", code, signal, err)
		}
		pidfd.Close()
	}
}

// TestApartTellsOfItsFailures, before the fork, where no kernel clears a word, and behind it.
func TestApartTellsOfItsFailures(t *testing.T) {
	var failed *Error
	p, err := NewApart(4096)
	must(t, err)
	defer p.Close()
	p.Call("join nothing", unix.SYS_SETNS, -1, unix.CLONE_NEWTIME)
	p.Fork("clone", 0, -1)
	p.Fail("be reached", int(unix.EINVAL))
	if _, err := p.Start(0, true); !errors.As(err, &failed) || failed.Name != "join nothing" || failed.Errno != unix.EBADF {
		t.Errorf("before the fork: %v", err)
	}
	for _, flags := range []uint64{0, ForkApart} {
		p = apart(t, "/no/such", flags)
		pr, err := p.Start(0, true)
		must(t, err)
		if err := pr.Wait(1); !errors.As(err, &failed) || failed.Errno != unix.ENOENT {
			t.Errorf("behind the fork: %v", err)
		}
		pr.Discard()
	}
}

// TestApartIsAwaited: what the child notes is seen, and its death where it notes nothing.
func TestApartIsAwaited(t *testing.T) {
	for _, dies := range []bool{false, true} {
		p, err := NewApart(4096)
		must(t, err)
		defer p.Close()
		note := p.Word(0)
		p.Fork("clone", ForkApart, -1)
		if !dies {
			p.Call("note", unix.SYS_GETPID)
			p.Store(Op(p.Len() - 1))
			p.put(Op(p.Len()-1), 7, uintptr(note))
		}
		p.Fail("end", int(unix.EPROTO))
		pr, err := p.Start(0, true)
		must(t, err)
		v, err := pr.Await(note)
		if dies != errors.Is(err, unix.EPROTO) || !dies && v != uint64(pr.Pid) {
			t.Errorf("%d of %d, %v", v, pr.Pid, err)
		}
		pr.Discard()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
