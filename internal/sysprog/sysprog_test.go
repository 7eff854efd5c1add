package sysprog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func program(t *testing.T) *Program {
	t.Helper()
	p, err := New(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// execute ends a program with an execve of busybox-like /bin/sh.
func execute(p *Program, script string) {
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Bytes(make([]byte, 8)), nil, 8)
	p.Mark(1)
	p.Call("execute /bin/sh", unix.SYS_EXECVE, p.String("/bin/sh"), p.Strings([]string{"sh", "-c", script}), p.Strings([]string{"PATH=/bin:/usr/bin"}))
}

func finish(t *testing.T, pr *Process) int {
	t.Helper()
	if err := pr.Release(); err != nil {
		t.Fatal(err)
	}
	info, err := reap(pr.Pidfd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pr.Pidfd)
	return int(status(info))
}

func TestChildExecutes(t *testing.T) {
	p := program(t)
	execute(p, "exit 7")
	pr, err := p.Start(0, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Wait(1); err != nil {
		t.Fatal(err)
	}
	if code := finish(t, pr); code != 7 {
		t.Fatalf("exit code %d", code)
	}
}

func TestForkedChildIsOurs(t *testing.T) {
	p := program(t)
	p.Fork("make the namespaces", unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWNS|unix.CLONE_NEWIPC, -1)
	name := p.String("inside")
	p.Call("set the host name", unix.SYS_SETHOSTNAME, name, 6)
	execute(p, `[ "$(uname -n)" = inside ] && [ $$ = 1 ] && exit 5`)
	pr, err := p.Start(0, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Wait(1); err != nil {
		t.Fatal(err)
	}
	if code := finish(t, pr); code != 5 {
		t.Fatalf("exit code %d", code)
	}
	if name, _ := os.Hostname(); name == "inside" {
		t.Fatal("the host's name was changed")
	}
}

func TestFailureNamesTheStep(t *testing.T) {
	for _, forks := range []bool{false, true} {
		p := program(t)
		if forks {
			p.Fork("fork", 0, -1)
		}
		p.Call("open what is not there", unix.SYS_OPENAT, unix.AT_FDCWD, p.String("/no/such/file"), unix.O_RDONLY)
		execute(p, "exit 0")
		pr, err := p.Start(0, forks)
		if err != nil {
			t.Fatal(err)
		}
		err = pr.Wait(1)
		var e *Error
		if !errors.As(err, &e) || e.Name != "open what is not there" || e.Errno != unix.ENOENT {
			t.Fatalf("forks %v: %v", forks, err)
		}
		finish(t, pr)
	}
}

func TestStoredResultsAndTolerance(t *testing.T) {
	dir := t.TempDir()
	p := program(t)
	open := p.Call("open the folder", unix.SYS_OPENAT, unix.AT_FDCWD, p.String(dir), unix.O_RDONLY|unix.O_DIRECTORY)
	fd := p.Store(open)
	missing := p.Call("remove what is not there", unix.SYS_UNLINKAT, fd, p.String("none"), 0)
	why := p.Store(missing)
	p.Tolerate(missing, 1, unix.ENOENT)
	p.Fail("not skipped", 5)
	p.JumpIfEqual(why, int(unix.ENOENT), 1)
	p.Fail("the reason was not stored", 6)
	p.Call("make a folder", unix.SYS_MKDIRAT, fd, p.String("made"), 0o700)
	p.Fail("end", 17)
	pr, err := p.Start(0, false)
	if err != nil {
		t.Fatal(err)
	}
	err = pr.Wait(1)
	if err == nil || !strings.HasPrefix(err.Error(), "end: ") {
		t.Fatalf("ended with %v", err)
	}
	finish(t, pr)
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Fatal(err)
	}
}

// TestStand: a child goes no further than its parent lets it, whoever of the two is first.
func TestStand(t *testing.T) {
	for _, early := range []bool{true, false} {
		p := program(t)
		p.Fork("clone", 0, -1)
		stand := Stand(p, "wait to be let on")
		execute(p, "exit 3")
		if early {
			p.store(uintptr(stand), 1)
		}
		pr, err := p.Start(0, true)
		must(t, err)
		if !early {
			time.Sleep(50 * time.Millisecond)
			if p.Marked() != 0 {
				t.Error("it has gone on")
			}
			pr.Pass(stand)
		}
		must(t, pr.Wait(1))
		if code := finish(t, pr); code != 3 {
			t.Errorf("let on early: %v, exit code %d", early, code)
		}
	}
}

func TestUserNamespace(t *testing.T) {
	f, err := UserNamespace([]Mapping{{Inside: 0, Outside: 0x10000000, Count: 65536}}, []Mapping{{Inside: 0, Outside: 0x10000000, Count: 65536}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := program(t)
	p.Call("join the user namespace", unix.SYS_SETNS, int(f.Fd()), unix.CLONE_NEWUSER)
	p.Fork("make the namespaces", unix.CLONE_NEWPID|unix.CLONE_NEWNS, -1)
	p.Call("become root inside", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root inside", unix.SYS_SETRESUID, 0, 0, 0)
	execute(p, `read a b c </proc/self/uid_map; [ "$a $b $c" = "0 268435456 65536" ] && [ "$(id -u)" = 0 ] && exit 4; exit 1`)
	pr, err := p.Start(0, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Wait(1); err != nil {
		t.Fatal(err)
	}
	if code := finish(t, pr); code != 4 {
		t.Fatalf("exit code %d", code)
	}
}

func TestManyAtOnce(t *testing.T) {
	done := make(chan error)
	for range 8 {
		go func() {
			for range 20 {
				p, err := New(1 << 12)
				if err != nil {
					done <- err
					return
				}
				p.Fork("fork", unix.CLONE_NEWPID, -1)
				execute(p, "exit 0")
				pr, err := p.Start(0, true)
				if err == nil {
					err = pr.Wait(1)
				}
				if err == nil {
					err = pr.Release()
				}
				if err == nil {
					_, err = reap(pr.Pidfd)
					unix.Close(pr.Pidfd)
				}
				if err != nil {
					done <- err
					return
				}
				p.Close()
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestManyOperations: those beyond a thousand take room of the data's, until there is none.
func TestManyOperations(t *testing.T) {
	const many = 3000
	p, err := New(many*OpSize + 1<<12)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range many {
		p.Call("ask for the pid", unix.SYS_GETPID)
	}
	execute(p, "exit 7")
	pr, err := p.Start(0, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Wait(1); err != nil {
		t.Fatal(err)
	}
	if code := finish(t, pr); code != 7 {
		t.Fatalf("exit code %d", code)
	}
	p = program(t)
	for range many {
		p.Call("ask for the pid", unix.SYS_GETPID)
	}
	if _, err := p.Start(0, false); err == nil || !strings.Contains(err.Error(), "no room for operation") {
		t.Errorf("without room: %v", err)
	}
}
