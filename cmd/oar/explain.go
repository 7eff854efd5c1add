package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fact is one thing that isolates a container, or does not, in words, and the plain command that shows it.
type fact struct {
	what, how string
	proof     string // a command for a shell, of Linux's own tools; it finds the container's process in $PID
}

// chapter is a group of facts.
type chapter struct {
	title string
	facts []fact
}

// explain says what a bundle's configuration isolates and how, each line with the command that proves it.
func (r *store) explain(_ context.Context, f flags) error {
	if err := f.parseCount(0, 1); err != nil {
		return err
	}
	bundle, err := filepath.Abs(f.Arg(0))
	if err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(bundle, configFile))
	if err != nil {
		return fmt.Errorf("the bundle: %w", err)
	}
	spec, err := parseSpec(filepath.Join(bundle, configFile), config)
	if err != nil {
		return err
	}
	if err := checkSpec(spec, creation{}); err != nil {
		return err
	}
	c := &record{ID: "NAME", Bundle: bundle, dir: bundle, spec: spec, logger: &r.logger}
	running := r.from(bundle)
	if running != nil {
		c.ID = running.ID // the control group's name may follow from it
	}
	if err := c.fill("", r.systemd); err != nil {
		return err
	}
	fmt.Printf("What %s asks for, and how oar does it.\n", filepath.Join(bundle, configFile))
	if running == nil {
		fmt.Printf("No container of it runs. Run one, and the commands below show each line on it:\n\n    $ %s run -d -b %s NAME\n    $ PID=$(%s state NAME | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')\n",
			programName(), bundle, programName())
	} else {
		fmt.Printf("Container %s runs from it: the commands below show each line on its first process.\n\n    $ PID=%d\n", running.ID, running.Pid)
	}
	for _, ch := range explanation(c) {
		ch.print()
	}
	return nil
}

// from finds a container that runs from a bundle; nil when none does.
func (r *store) from(bundle string) *record {
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		c, err := r.load(e.Name())
		if err != nil || c.Bundle != bundle {
			continue
		}
		if pidfd, alive := c.process(); alive {
			pidfd.Close()
			return c
		}
	}
	return nil
}

func (ch chapter) print() {
	if len(ch.facts) == 0 {
		return
	}
	fmt.Printf("\n%s\n", ch.title)
	for _, f := range ch.facts {
		fmt.Printf("  %-16s  %s\n", f.what, f.how)
		if f.proof != "" {
			fmt.Printf("  %-16s  $ %s\n", "", f.proof)
		}
	}
}

func explanation(c *record) []chapter {
	return []chapter{
		{"The program", programFacts(c.spec)},
		{"What it sees", namespaceFacts(c.spec)},
		{"Its files", fileFacts(c)},
		{"What it may do", rightFacts(c.spec)},
		{"What it may use", limitFacts(c)},
		{"What others run for it (nothing of the container's environment reaches them)", hookFacts(c.spec.Hooks)},
	}
}

func programFacts(s *specs.Spec) []fact {
	p := s.Process
	facts := []fact{
		{"command", strings.Join(p.Args, " "), "tr '\\0' ' ' </proc/$PID/cmdline"},
		{"folder", p.Cwd, "readlink /proc/$PID/cwd"},
		{"user", fmt.Sprintf("%d, group %d%s (as numbered inside)", p.User.UID, p.User.GID, also(p.User.AdditionalGids)), "grep -E '^(Uid|Gid|Groups):' /proc/$PID/status"},
		{"streams", "three descriptors, and no other that was open before", "ls -l /proc/$PID/fd"},
	}
	if p.Terminal {
		facts = append(facts, fact{"terminal", "one of its own, from its own devpts", "readlink /proc/$PID/fd/0"})
	}
	return facts
}

func also(groups []uint32) string {
	var out []string
	for _, g := range groups {
		out = append(out, strconv.Itoa(int(g)))
	}
	if len(out) == 0 {
		return ""
	}
	return " and " + strings.Join(out, ", ")
}

// views are the kinds of namespaces: the name in /proc/PID/ns, and what it means to have one's own or the host's.
func views() []struct {
	kind           specs.LinuxNamespaceType
	file, own, not string
} {
	return []struct {
		kind           specs.LinuxNamespaceType
		file, own, not string
	}{
		{specs.PIDNamespace, "pid", "its program is process 1 and sees no process of the host", "it sees the host's processes"},
		{specs.MountNamespace, "mnt", "a mount table of its own, from which the host's root is gone", "what it mounts is mounted on the host"},
		{specs.NetworkNamespace, "net", "interfaces, ports and firewall of its own: a loopback, until somebody adds more", "the host's interfaces and ports: two servers cannot share one"},
		{specs.UTSNamespace, "uts", "a host name of its own", "the host's name"},
		{specs.IPCNamespace, "ipc", "shared memory, semaphores and queues of its own", "the host's shared memory and queues"},
		{specs.UserNamespace, "user", "users of its own: its root is somebody without rights on the host", "root inside is root on the host, held by capabilities and seccomp alone"},
		{specs.CgroupNamespace, "cgroup", "its control group looks like the root of all", "it sees where on the host its control group lies"},
		{specs.TimeNamespace, "time", "a monotonic and a boot clock of its own", "the host's clocks"},
	}
}

func namespaceFacts(s *specs.Spec) []fact {
	var facts []fact
	for _, v := range views() {
		link := "/proc/$PID/ns/" + v.file
		i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == v.kind })
		switch {
		case i < 0:
			facts = append(facts, fact{string(v.kind), "NOT isolated: " + v.not, "readlink /proc/self/ns/" + v.file + " " + link})
		case s.Linux.Namespaces[i].Path != "":
			path := s.Linux.Namespaces[i].Path
			facts = append(facts, fact{string(v.kind), "shared with whoever else is in " + path, "stat -L -c %i " + quote(path) + " " + link})
		default:
			facts = append(facts, fact{string(v.kind), v.own, "readlink /proc/self/ns/" + v.file + " " + link})
		}
	}
	if s.Hostname != "" {
		facts = append(facts, fact{"host name", s.Hostname, "nsenter -t $PID -u uname -n"})
	}
	for _, m := range s.Linux.UIDMappings {
		facts = append(facts, fact{"users", fmt.Sprintf("%d to %d inside are %d to %d on the host", m.ContainerID, m.ContainerID+m.Size-1, m.HostID, m.HostID+m.Size-1), "cat /proc/$PID/uid_map"})
	}
	for _, m := range s.Linux.GIDMappings {
		facts = append(facts, fact{"groups", fmt.Sprintf("%d to %d inside are %d to %d on the host", m.ContainerID, m.ContainerID+m.Size-1, m.HostID, m.HostID+m.Size-1), "cat /proc/$PID/gid_map"})
	}
	if len(s.Linux.TimeOffsets) > 0 {
		facts = append(facts, fact{"clocks", "set off against the host's", "cat /proc/$PID/timens_offsets"})
	}
	for _, key := range sorted(s.Linux.Sysctl) {
		file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		facts = append(facts, fact{"sysctl", key + " = " + s.Linux.Sysctl[key] + ", in its namespaces alone", "nsenter -t $PID -n -i -u cat " + quote(file)})
	}
	return facts
}

// fileFacts are the mounts, in the order of the configuration.
func fileFacts(c *record) []fact {
	s, write := c.spec, "writable"
	if s.Root.Readonly {
		write = "read-only"
	}
	facts := []fact{{"/", c.Rootfs + ", " + write, mountProof("/")}}
	for _, m := range s.Mounts {
		how := m.Type
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			how = "the host's " + m.Source
		}
		if len(m.Options) > 0 {
			how += " (" + strings.Join(m.Options, ",") + ")"
		}
		facts = append(facts, fact{m.Destination, how, mountProof(m.Destination)})
	}
	facts = append(facts, fact{"/dev", "null zero full random urandom tty, and what the configuration adds" + deviceNames(s), "ls -l /proc/$PID/root/dev/"})
	for _, p := range s.Linux.MaskedPaths {
		facts = append(facts, protected(p, "hidden: something empty is mounted over it"))
	}
	for _, p := range s.Linux.ReadonlyPaths {
		facts = append(facts, protected(p, "read-only: mounted over itself so"))
	}
	return facts
}

func mountProof(at string) string { return "findmnt -N $PID " + quote(filepath.Clean(at)) }

// protected: what the kernel does not have needs no protection, and gets none.
func protected(path, how string) fact {
	kernels := strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
	if _, err := os.Lstat(path); err != nil && kernels {
		return fact{path, "this kernel does not have it", "test -e " + quote(path) + " || echo not there"}
	}
	return fact{path, how, mountProof(path)}
}

func deviceNames(s *specs.Spec) string {
	var names []string
	for _, d := range s.Linux.Devices {
		names = append(names, d.Path)
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, " ")
}

func hookFacts(h *specs.Hooks) []fact {
	if h == nil {
		return nil
	}
	var facts []fact
	for _, row := range []struct {
		when  string
		hooks []specs.Hook
	}{{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, {"startContainer", h.StartContainer},
		{"poststart", h.Poststart}, {"poststop", h.Poststop}} {
		for _, hook := range row.hooks {
			facts = append(facts, fact{row.when, hook.Path, ""})
		}
	}
	return facts
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// quote makes one word for a shell of any text.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
