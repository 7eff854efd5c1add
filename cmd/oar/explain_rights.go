package main

import (
	"fmt"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
)

// rightFacts are what keeps a process that sees something from doing something with it.
func rightFacts(s *specs.Spec) []fact {
	p, facts := s.Process, []fact{}
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	const status = "grep ^Cap /proc/$PID/status"
	if len(caps.Bounding) == 0 {
		facts = append(facts, fact{"capabilities", "none, and no program can give it one", status})
	} else {
		facts = append(facts, fact{"capabilities", "at most " + capabilityNames(caps.Bounding), status})
		facts = append(facts, fact{"", "in force in the program: " + orNone(capabilityNames(inForce(p))), "grep ^CapEff /proc/$PID/status"})
	}
	if len(caps.Inheritable)+len(caps.Ambient) > 0 {
		facts = append(facts, fact{"", "NOT reset by programs of other users: " + capabilityNames(append(caps.Inheritable, caps.Ambient...)), "grep -E '^Cap(Inh|Amb)' /proc/$PID/status"})
	}
	how := "NOT set: a set-user-ID program gives its owner's rights"
	if p.NoNewPrivileges {
		how = "set: no program can give it more rights than it has"
	}
	facts = append(facts, fact{"no_new_privs", how, "grep ^NoNewPrivs /proc/$PID/status"})
	facts = append(facts, fact{"system calls", seccompText(s.Linux.Seccomp), "grep ^Seccomp: /proc/$PID/status"})
	if p.ApparmorProfile != "" {
		facts = append(facts, fact{"AppArmor", p.ApparmorProfile, "cat /proc/$PID/attr/current"})
	}
	if p.SelinuxLabel != "" {
		facts = append(facts, fact{"SELinux", p.SelinuxLabel, "cat /proc/$PID/attr/current"})
	}
	return facts
}

// inForce are the effective capabilities after the execve of the program (capabilities(7)): those of root come from the bounding set, of
// others from the ambient one.
func inForce(p *specs.Process) []string {
	switch {
	case p.User.UID != 0:
		return p.Capabilities.Ambient
	case p.NoNewPrivileges:
		return p.Capabilities.Permitted
	}
	return p.Capabilities.Bounding
}

func seccompText(p *specs.LinuxSeccomp) string {
	if p == nil {
		return "NOT filtered"
	}
	n := 0
	for _, sc := range p.Syscalls {
		n += len(sc.Names)
	}
	return fmt.Sprintf("a filter decides (2): %s, and rules for %d calls", strings.TrimPrefix(string(p.DefaultAction), "SCMP_"), n)
}

func capabilityNames(list []string) string {
	names := make([]string, 0, len(list))
	for _, c := range list {
		names = append(names, strings.TrimPrefix(c, "CAP_"))
	}
	return strings.Join(names, " ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// limitFacts are resources; the file that the kernel counts by proves each.
func limitFacts(c *record) []fact {
	facts := []fact{{"control group", c.Cgroup, "cat /proc/$PID/cgroup"}}
	if g, err := cgroup.Open(c.Cgroup); err == nil {
		facts = append(facts, groupFacts(g.Dirs(), c.spec.Linux.Resources)...)
	}
	for _, l := range c.spec.Process.Rlimits {
		facts = append(facts, fact{strings.ToLower(l.Type), fmt.Sprintf("%d, and it may raise it to %d", l.Soft, l.Hard), "cat /proc/$PID/limits"})
	}
	if adj := c.spec.Process.OOMScoreAdj; adj != nil {
		facts = append(facts, fact{"out of memory", fmt.Sprintf("%d is added to its chance to be killed first", *adj), "cat /proc/$PID/oom_score_adj"})
	}
	return facts
}

func groupFacts(dirs map[string]string, r *specs.LinuxResources) []fact {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	var facts []fact
	// add tells of one limit: where it is not set it says so, as that is what lets one container take the whole host.
	add := func(what, how, controller, v1, v2 string) {
		if dir, ok := dirs[controller]; ok {
			facts = append(facts, fact{what, how, "cat " + quote(filepath.Join(dir, v1))})
		} else if dir, ok := dirs[""]; ok && len(dirs) == 1 {
			facts = append(facts, fact{what, how, "cat " + quote(filepath.Join(dir, v2))})
		}
	}
	how := "NOT limited"
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		how = fmt.Sprintf("%d bytes; beyond that the kernel kills within the container", *m.Limit)
	}
	add("memory", how, "memory", "memory.limit_in_bytes", "memory.max")
	how = "NOT limited"
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit > 0 {
		how = fmt.Sprintf("%d at most", *p.Limit)
	}
	add("processes", how, "pids", "pids.max", "pids.max")
	how = "NOT limited"
	if cpu := r.CPU; cpu != nil && cpu.Quota != nil && *cpu.Quota > 0 && cpu.Period != nil {
		how = fmt.Sprintf("%d of every %d µs", *cpu.Quota, *cpu.Period)
	}
	add("processors", how, "cpu", "cpu.cfs_quota_us", "cpu.max")
	if cpu := r.CPU; cpu != nil && cpu.Cpus != "" {
		add("", "only those numbered "+cpu.Cpus, "cpuset", "cpuset.cpus", "cpuset.cpus")
	}
	if dir, ok := dirs["devices"]; ok {
		facts = append(facts, fact{"devices", fmt.Sprintf("%d rules say which it may open", len(r.Devices)), "cat " + quote(filepath.Join(dir, "devices.list"))})
	}
	return facts
}
