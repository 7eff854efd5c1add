package ociruntime

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// filtered gives the box a profile with an action for chdir, which a shell's cd calls and this runtime does not.
func (b *box) filtered(action specs.LinuxSeccompAction, errno *uint) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"chdir"}, Action: action, ErrnoRet: errno}}}
	b.spec.Linux.Seccomp = p
	return p
}

// TestSeccompActions sees the kernel's effect of each action, on the first process and on an exec's, with and without no_new_privs.
func TestSeccompActions(t *testing.T) {
	errno := uint(unix.EIO)
	for _, row := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		says   string
		signal int
	}{
		{specs.ActAllow, nil, "went", 0}, {specs.ActErrno, nil, "Operation not permitted", 0}, {specs.ActErrno, &errno, "Input/output error", 0},
		{specs.ActTrace, nil, "Function not implemented", 0}, {specs.ActLog, nil, "went", 0}, {specs.ActKill, nil, "", 31},
		{specs.ActKillThread, nil, "", 31}, {specs.ActKillProcess, nil, "", 31}, {specs.ActTrap, nil, "", 31},
	} {
		b := newBox(t, "sh", "-c", "cd /tmp && echo went")
		b.filtered(row.action, row.errno)
		b.spec.Process.NoNewPrivileges = row.action == specs.ActErrno
		out, status, err := b.run()
		if err != nil || !strings.Contains(out, row.says) || status.Signal != row.signal {
			t.Errorf("%s: %q, %+v, %v", row.action, out, status, err)
		}
		if row.says == "" {
			continue
		}
		c := b.sleeper()
		again, status, err := b.exec(c, &specs.Process{Args: []string{"sh", "-c", "cd /tmp && echo went"}})
		if err != nil || again != out || status.Signal != row.signal {
			t.Errorf("%s, exec: %q, %+v, %v", row.action, again, status, err)
		}
	}
}

// TestSeccompEnds: what ends a thread, what ends a process, and what is a signal that the program may handle.
func TestSeccompEnds(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]string{
		specs.ActAllow: "it went on: <nil>\n", specs.ActKillThread: "it is gone, the process lives\n", specs.ActKill: "it is gone, the process lives\n",
		specs.ActKillProcess: "", specs.ActTrap: "SIGSYS: bad system call\n",
	} {
		b := newBox(t, "probe", "thread").probe()
		b.filtered(action, nil)
		out, status, err := b.run()
		if err != nil || !strings.HasPrefix(out, want) || (status.Signal == 31) != (want == "") {
			t.Errorf("%s: %q, %+v, %v", action, out, status, err)
		}
	}
}

// TestSeccompTrace: a tracer is stopped for, and is told the number.
func TestSeccompTrace(t *testing.T) {
	b := newBox(t, "sh", "-c", "read x; cd /tmp && echo went")
	number := uint(1234)
	b.filtered(specs.ActTrace, &number)
	in, input, err := os.Pipe()
	must(t, err)
	r, out, err := os.Pipe()
	must(t, err)
	defer r.Close()
	b.in = in
	c, err := b.create(out)
	must(t, err)
	in.Close()
	out.Close()
	must(t, c.Start())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, seize(c.Pid(), unix.PTRACE_O_TRACESECCOMP))
	input.Close()
	var ws unix.WaitStatus
	_, err = unix.Wait4(c.Pid(), &ws, unix.WALL, nil)
	must(t, err)
	if ws>>16 != unix.PTRACE_EVENT_SECCOMP {
		t.Fatalf("stopped for %#x", ws)
	}
	if told, err := unix.PtraceGetEventMsg(c.Pid()); err != nil || told != number {
		t.Errorf("the tracer is told %d, %v", told, err)
	}
	must(t, unix.PtraceDetach(c.Pid()))
	if text, err := io.ReadAll(r); err != nil || string(text) != "went\n" {
		t.Errorf("%q, %v", text, err)
	}
	_, err = Reap(c.Pidfd())
	must(t, err)
}

// TestSeccompLogs: the kernel's audit has what the action and what the flag say.
func TestSeccompLogs(t *testing.T) {
	log, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	must(t, err)
	defer unix.Close(log)
	must(t, unix.Bind(log, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})) // AUDIT_NLGRP_READLOG
	must(t, unix.SetsockoptTimeval(log, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	for _, row := range []struct {
		action specs.LinuxSeccompAction
		flags  []specs.LinuxSeccompFlag
		code   uint32
	}{{specs.ActErrno, nil, 0}, {specs.ActLog, nil, unix.SECCOMP_RET_LOG}, {specs.ActErrno, []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, unix.SECCOMP_RET_ERRNO}} {
		b := newBox(t, "sh", "-c", "cd /tmp; kill -9 $$")
		b.filtered(row.action, nil).Flags = row.flags
		// A second call, which is logged whatever the rest says: the end of what there is to read.
		b.spec.Linux.Seccomp.Syscalls = append(b.spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActKillProcess})
		c, err := b.create(nil)
		must(t, err)
		must(t, c.Start())
		_, err = Reap(c.Pidfd())
		must(t, err)
		lines := auditOf(t, log, c.Pid())
		want := fmt.Sprintf("code=%#x", row.code)
		if logged := len(lines) == 2; logged != (row.code != 0) || logged && !strings.Contains(lines[0], want) {
			t.Errorf("%s %s: the kernel's audit has %q", row.action, row.flags, lines)
		}
	}
}

// auditOf reads the records of system calls of a process until that by which it was killed.
func auditOf(t *testing.T, log, pid int) (lines []string) {
	t.Helper()
	message := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(log, message, 0)
		if err == unix.ENOBUFS || err == unix.EINTR {
			continue
		}
		must(t, err)
		line := string(message[:n])
		if !strings.Contains(line, fmt.Sprintf(" pid=%d ", pid)) || !strings.Contains(line, "syscall=") {
			continue
		}
		if lines = append(lines, line); strings.Contains(line, "code=0x80000000") {
			return lines
		}
	}
}

// TestSeccompFlags: the kernel takes each, with and without a listener.
func TestSeccompFlags(t *testing.T) {
	for _, flag := range []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_NONSENSE"} {
		b := newBox(t, "sh", "-c", "cd /tmp || echo refused")
		b.filtered(specs.ActErrno, nil).Flags = []specs.LinuxSeccompFlag{flag}
		out, _, err := b.run()
		if bad := strings.Contains(string(flag), "NONSENSE"); bad != (err != nil) || !bad && !strings.Contains(out, "refused") {
			t.Errorf("%s: %q, %v", flag, out, err)
		}
		if err != nil {
			continue
		}
		b = newBox(t, "sh", "-c", "cd /tmp || echo refused")
		b.filtered(specs.ActNotify, nil).Flags = []specs.LinuxSeccompFlag{flag}
		a := newAgent(t, b)
		go a.serve(func(notification) answer { return answer{errno: unix.EACCES} })
		if out, _, err := b.run(); err != nil || !strings.Contains(out, "Permission denied\nrefused") {
			t.Errorf("%s with a listener: %q, %v", flag, out, err)
		}
	}
}

// TestSeccompAgent has an agent answer for mkdir: refuse, pretend, let go on.
func TestSeccompAgent(t *testing.T) {
	script := "for d in denied pretended made; do busybox mkdir /tmp/$d && echo $d; done; ls /tmp"
	want := "mkdir: can't create directory '/tmp/denied': Permission denied\npretended\nmade\nmade\n"
	for name, nnp := range map[string]bool{"": false, "no new privileges": true} {
		b := newBox(t, "sh", "-c", script)
		b.spec.Process.NoNewPrivileges = nnp
		b.spec.Annotations = map[string]string{"some": "note"}
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "opaque", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		a := newAgent(t, b)
		go a.serve(func(n notification) answer {
			switch n.path() {
			case "/tmp/denied":
				return answer{errno: unix.EACCES}
			case "/tmp/pretended":
				return answer{}
			}
			return answer{proceed: true}
		})
		out, status, err := b.run()
		if err != nil || out != want || status.Code != 0 {
			t.Errorf("%s: %q, %+v, %v", name, out, status, err)
		}
		s := <-a.states
		if s.Version == "" || len(s.Fds) != 1 || s.Fds[0] != "seccompFd" || s.Metadata != "opaque" || s.Pid == 0 || s.State.ID != "box" || s.State.Status != specs.StateCreating ||
			s.State.Pid != s.Pid || s.State.Bundle != filepath.Dir(b.image) || s.State.Annotations["some"] != "note" {
			t.Errorf("the agent is told %+v", s)
		}
	}
}

// TestSeccompAgentOfExecs: each exec has a listener of its own.
func TestSeccompAgentOfExecs(t *testing.T) {
	b := newBox(t)
	b.filtered(specs.ActNotify, nil)
	a := newAgent(t, b)
	go a.serve(func(n notification) answer { return answer{proceed: n.path() == "/tmp", errno: unix.ENOLCK} })
	c := b.sleeper()
	first := <-a.states
	for range 2 {
		out, _, err := b.exec(c, &specs.Process{Args: []string{"sh", "-c", "cd /tmp && pwd; cd /bin; pwd"}})
		if err != nil || out != "/tmp\nsh: cd: line 0: can't cd to /bin: No locks available\n/tmp\n" {
			t.Errorf("%q, %v", out, err)
		}
		if s := <-a.states; s.Pid == first.Pid || s.Pid == 0 || s.State.Pid != first.Pid || s.State.Status != specs.StateRunning {
			t.Errorf("the agent is told %+v, of the first process %+v", s, first)
		}
	}
}

// TestSeccompAsksAboutEverything: a profile may ask about each call of the process, even those with which it waits and starts its program.
func TestSeccompAsksAboutEverything(t *testing.T) {
	b := newBox(t, "echo", "hello")
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}
	b.spec.Process.NoNewPrivileges = true
	a := newAgent(t, b)
	seen := make(chan int, 4096)
	go a.serve(func(n notification) answer { seen <- n.call; return answer{proceed: true} })
	out, _, err := b.run()
	if err != nil || out != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	calls := map[int]bool{}
	for len(seen) > 0 {
		calls[<-seen] = true
	}
	for _, nr := range []int{unix.SYS_READ, unix.SYS_EXECVE, unix.SYS_WRITE, unix.SYS_EXIT_GROUP} {
		if !calls[nr] {
			t.Errorf("nobody was asked about call %d", nr)
		}
	}
}

// TestSeccompWaitKillable: once the agent has a call, a signal does not take it back.
func TestSeccompWaitKillable(t *testing.T) {
	for _, flags := range [][]specs.LinuxSeccompFlag{nil, {specs.LinuxSeccompFlagWaitKillableRecv}} {
		b := newBox(t, "sh", "-c", "trap 'echo asked' USR1; cd /tmp; echo done")
		b.filtered(specs.ActNotify, nil).Flags = flags
		a := newAgent(t, b)
		valid := make(chan bool, 16)
		first := true
		go a.serve(func(n notification) answer {
			if first {
				first = false
				_ = unix.Kill(n.pid, unix.SIGUSR1)
				valid <- n.stays()
			}
			return answer{proceed: true}
		})
		out, _, err := b.run()
		if got := <-valid; err != nil || got != (flags != nil) || !strings.Contains(out, "done") {
			t.Errorf("%s: the call stays: %t; %q, %v", flags, got, out, err)
		}
	}
}

// TestSeccompListenerIsRefused says what is missing.
func TestSeccompListenerIsRefused(t *testing.T) {
	dir := t.TempDir()
	for words, change := range map[string]func(*specs.LinuxSeccomp){
		"without listenerPath":       func(*specs.LinuxSeccomp) {},
		"set without listenerPath":   func(p *specs.LinuxSeccomp) { p.ListenerMetadata, p.Syscalls = "x", nil },
		"connect: no such file":      func(p *specs.LinuxSeccomp) { p.ListenerPath = dir + "/nobody" },
		"linux.seccomp.listenerPath": func(p *specs.LinuxSeccomp) { p.ListenerPath = "/" + strings.Repeat("x", 200) },
	} {
		b := newBox(t, "true")
		change(b.filtered(specs.ActNotify, nil))
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", words, err)
		}
		if _, err := os.Stat("/sys/fs/cgroup/unified" + b.spec.Linux.CgroupsPath); err == nil {
			t.Errorf("%q: the control group is left", words)
		}
	}
	b := newBox(t, "sh", "-c", "echo $PPID") // a path that is not used is no matter
	b.filtered(specs.ActErrno, nil).ListenerPath = dir + "/nobody"
	if out, _, err := b.run(); err != nil || strings.TrimSpace(out) != strconv.Itoa(0) {
		t.Errorf("%q, %v", out, err)
	}
}
