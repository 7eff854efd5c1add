package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// explained are the facts that oar explain printed: what, how, and the command.
func explained(t *testing.T, out string) (facts []fact, prefix string) {
	t.Helper()
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		switch {
		case isCommand && strings.HasPrefix(command, "PID="):
			prefix = command + "; "
		case isCommand && len(facts) > 0:
			facts[len(facts)-1].proof = command
		case strings.HasPrefix(line, "  ") && len(line) > 19 && !isCommand:
			what, how, _ := strings.Cut(strings.TrimSpace(line), "  ")
			facts = append(facts, fact{strings.TrimSpace(what), strings.TrimSpace(how), ""})
		}
	}
	return facts, prefix
}

func shell(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v, %s", command, err, out)
	}
	return string(out)
}

// rich is a configuration that has something in every chapter.
func rich(s *specs.Spec) {
	limit, quota, period, pids := int64(64<<20), int64(50000), uint64(100000), int64(40)
	adj := 500
	s.Process.NoNewPrivileges = true
	s.Process.OOMScoreAdj = &adj
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}}
	s.Root.Readonly = true
	s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Options: []string{"nosuid", "size=1m"}},
		specs.Mount{Destination: "/sys", Type: "bind", Source: "/etc", Options: []string{"bind", "ro"}})
	l := s.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	l.GIDMappings = l.UIDMappings
	l.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "81", "kernel.msgmax": "4000"}
	l.MaskedPaths = []string{"/proc/keys", "/proc/no-such-file"}
	l.ReadonlyPaths = []string{"/proc/sys", "/proc/bus"}
	l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"syslog", "swapon"}, Action: specs.ActErrno}}}
	l.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}, Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
}

// TestExplainProvesEachLine runs the commands that oar explain prints, and holds what they show against what was asked for.
func TestExplainProvesEachLine(t *testing.T) {
	h := newHost(t, rich, "sleep", "1000")
	must(t, os.Chown(filepath.Join(h.dir, "rootfs"), 300000, 300000))
	h.create()
	h.oar("start", "c")
	facts, pid := explained(t, h.oar("explain", h.dir))
	if pid == "" {
		t.Fatal("the running container was not found")
	}
	for range 5000 { // its program has begun when start returns, its arguments are noted a moment later
		if shell(t, pid+"cat /proc/$PID/cmdline") != "" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	shown := map[string]string{}
	for _, f := range facts {
		if f.proof == "" {
			if f.what != "poststop" {
				t.Errorf("%s: no command proves it", f.what)
			}
			continue
		}
		out := shell(t, pid+f.proof)
		if out == "" {
			t.Errorf("%s: %s shows nothing", f.what, f.proof)
		}
		shown[f.what] += out
		if links := strings.Fields(out); strings.HasPrefix(f.proof, "readlink /proc/self/ns/") && (links[0] == links[1]) != strings.HasPrefix(f.how, "NOT isolated") {
			t.Errorf("%s: %q, and %s shows %q", f.what, f.how, f.proof, links)
		}
	}
	for what, want := range map[string]string{"command": "sleep 1000", "user": "Uid:\t300005", "users": "300000", "host name": "box", "sysctl": "81\n", "/": "ro,", "/tmp": "tmpfs",
		"/sys": "ro,", "/proc/keys": "null", "/proc/no-such-file": "not there", "/proc/sys": "ro,", "no_new_privs": "1", "system calls": "2", "capabilities": "CapBnd:\t0000000000000020", "processes": "40", "memory": "67108864",
		"processors": "50000", "rlimit_nofile": "Max open files            100                  200", "out of memory": "500", "control group": "wherry-oar-test", "pid": "pid:["} {
		if !strings.Contains(shown[what], want) {
			t.Errorf("%s: %q does not show %q", what, shown[what], want)
		}
	}
}

func TestExplainSaysWhatIsNotIsolated(t *testing.T) {
	dir := bundle(t, func(s *specs.Spec) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"}}
	}, "sh", "-c", "it's quoted")
	out, err := oar(t, "explain", dir).CombinedOutput()
	must(t, err)
	for _, want := range []string{"pid               NOT isolated: it sees the host's processes", "user              NOT isolated: root inside is root on the host", "network           shared with whoever else is in /proc/1/ns/net",
		"no_new_privs      NOT set", "system calls      NOT filtered", "memory            NOT limited", "No container of it runs", "oar run -d -b " + dir + " NAME", "capabilities      none"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err := oar(t, "explain", t.TempDir()).CombinedOutput(); err == nil || !strings.Contains(string(out), "config.json") {
		t.Errorf("without a bundle: %v, %s", err, out)
	}
}
