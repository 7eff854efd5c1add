package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What callers of runc rely on, as its own tests of its command line show it.

func TestHelp(t *testing.T) {
	h := newHost(t, nil, "true")
	for _, args := range [][]string{{}, {"-h"}, {"--help"}, {"help"}} {
		if out := h.oar(args...); !strings.HasPrefix(out, "NAME:\n   oar - Open Container Initiative runtime\n") || !strings.Contains(out, "\n   update ") || !strings.Contains(out, "--root FOLDER") {
			t.Errorf("%q: %s", args, out)
		}
	}
	for _, c := range (&store{}).commands() {
		if c.does == "" || c.name == "help" || c.name == "version" {
			continue
		}
		for _, args := range [][]string{{c.name, "-h"}, {c.name, "--help"}, {"help", c.name}} {
			if out := h.oar(args...); !strings.HasPrefix(out, "NAME:\n   oar "+c.name+" - "+c.does+"\n") || strings.Contains(out, "kernel-memory") {
				t.Errorf("%q: %s", args, out)
			}
		}
	}
	if out := h.oar("create", "--help"); !strings.Contains(out, "--bundle FOLDER, -b FOLDER") {
		t.Errorf("an option's names: %s", out)
	}
	h.refuse("No help topic for 'foo'", "foo", "-h")
	h.refuse(`"kill" requires a maximum of 2 argument(s)`, "kill", "a", "b", "c")
	h.refuse(`"state" requires exactly 1 argument(s)`, "state")
	h.refuse("flag provided but not defined: -x", "list", "-x")
	h.refuse("invalid log-format", "--log-format", "xml", "list")
	h.refuse("not /", "--root", "/", "list")
}

// TestOptionsStandAnywhere: before and after the id, but never among another program's.
func TestOptionsStandAnywhere(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "exec sleep 1000")
	pid := filepath.Join(h.dir, "pid")
	h.oar("run", "c", "--bundle="+h.dir, "-d", "--pid-file", pid)
	if b, err := os.ReadFile(pid); err != nil || string(b) != strconv.Itoa(h.state().Pid) {
		t.Errorf("pid file: %q, %v", b, err)
	}
	if out := h.oar("exec", "c", "sh", "-c", "echo x$0", "-e", "--cwd"); out != "x-e\n" {
		t.Errorf("another program's options: %q", out)
	}
	if out := h.oar("ps", "c", "-o", "pid,args"); !strings.Contains(out, "sleep 1000") || strings.Contains(out, "ps -o") {
		t.Errorf("ps's options: %q", out)
	}
	h.oar("delete", "c", "--force")
	h.refuse("requires exactly 1", "delete", "--", "--force", "c")
}

func TestLists(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.refuse("no such file", "--root", filepath.Join(h.root, "none"), "list")
	h.create()
	out := h.oar("list", "--format", "json")
	if !strings.HasPrefix(out, `[{"ociVersion":"`+specs.Version+`","id":"c","pid":`) || strings.Count(out, "\n") != 1 {
		t.Errorf("list: %q", out)
	}
	if out := h.oar("ps", "-f", "json", "c"); out != "["+strconv.Itoa(h.state().Pid)+"]\n" {
		t.Errorf("ps: %q", out)
	}
}

// TestKillReachesAllOfAKilledInit: no pid namespace, and a first process that is gone already.
func TestKillReachesAllOfAKilledInit(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "sh", "-c", "sleep 1000 & exit")
	h.create()
	h.oar("start", "c")
	h.await(specs.StateStopped)
	h.oar("kill", "c", "KILL")
	var pids []int
	for range 2000 {
		if must(t, json.Unmarshal([]byte(h.oar("ps", "-f", "json", "c")), &pids)); len(pids) == 0 {
			break
		}
	}
	h.refuse("container not running", "kill", "c", "KILL")
	h.oar("kill", "--all", "c", "KILL")
}

// TestDescriptorsAreHandedOver: a pidfd of the process goes to who listens.
func TestDescriptorsAreHandedOver(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	socket := filepath.Join(h.dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer l.Close()
	for _, args := range [][]string{{"run", "-d", "-b", h.dir, "--pidfd-socket", socket, "c"}, {"exec", "--pidfd-socket", socket, "c", "sleep", "0.1"}} {
		h.oar(args...)
		conn, err := l.AcceptUnix()
		must(t, err)
		oob := make([]byte, 256)
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 256), oob)
		must(t, err)
		conn.Close()
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		must(t, err)
		fds, err := unix.ParseUnixRights(&messages[0])
		must(t, err)
		b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fds[0]))
		must(t, err)
		if got := line(string(b), "Pid"); args[0] == "run" && got != strconv.Itoa(h.state().Pid) || args[0] == "exec" && got != "-1" {
			t.Errorf("%s: a pidfd of %s", args[0], got)
		}
		unix.Close(fds[0])
	}
}

// TestLogTakesWarningsAndDetails: with a log, nothing but errors goes to the streams that may be the container's.
func TestLogTakesWarningsAndDetails(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/no/such"}}} }, "echo", "hello")
	log := filepath.Join(h.dir, "log")
	if out := h.oar("--debug", "--log", log, "--log-format", "json", "run", "-b", h.dir, "c"); out != "hello\n" {
		t.Errorf("it printed %q", out)
	}
	b, err := os.ReadFile(log)
	must(t, err)
	levels := map[string]int{}
	for l := range strings.Lines(string(b)) {
		var e struct{ Level, Msg, Time string }
		must(t, json.Unmarshal([]byte(l), &e))
		levels[e.Level]++
	}
	if levels["warning"] != 1 || levels["debug"] < 5 || len(levels) != 2 {
		t.Errorf("%v: %s", levels, b)
	}
	if out := h.oar("--debug", "run", "-b", h.dir, "c"); !strings.Contains(out, `level=debug msg="clone the child"`) || !strings.Contains(out, "oar: warning: ") {
		t.Errorf("without a log: %s", out)
	}
}

// TestLineEndsOfATerminal: what a terminal's program prints comes out of run as it was printed.
func TestLineEndsOfATerminal(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "echo a; echo b")
	if out := h.oar("run", "-b", h.dir, "c"); out != "a\nb\n" {
		t.Errorf("run: %q", out)
	}
	h = newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	if out := h.oar("exec", "-t", "c", "sh", "-c", "echo a; echo b"); out != "a\nb\n" {
		t.Errorf("exec: %q", out)
	}
}

// TestAnotherConfiguration: crun's callers name it.
func TestAnotherConfiguration(t *testing.T) {
	h := newHost(t, nil, "echo", "hello")
	must(t, os.Rename(filepath.Join(h.dir, "config.json"), filepath.Join(h.dir, "other.json")))
	h.refuse("JSON specification file", "run", "-b", h.dir, "c")
	if out := h.oar("--cgroup-manager", "cgroupfs", "run", "-b", h.dir, "--config", "other.json", "c"); out != "hello\n" {
		t.Errorf("%q", out)
	}
	h.refuse("cgroupfs or systemd", "--cgroup-manager", "x", "list")
}
