package ociruntime

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// scheduled is a group's budget for real-time processes, which v1's groups begin without.
func scheduled(b *box) {
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err != nil {
		return
	}
	runtime, period := int64(1000), uint64(1000000)
	b.spec.Linux.CgroupsPath = "/wherry-attrs-" + strconv.Itoa(os.Getpid())
	b.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: &runtime, RealtimePeriod: &period}}
}

// TestScheduler: every policy reaches the first process and further ones, in a user namespace too, where the process has no right to it.
func TestScheduler(t *testing.T) {
	for name, s := range map[string]struct {
		ask  specs.Scheduler
		want unix.SchedAttr
	}{
		"other": {specs.Scheduler{Policy: specs.SchedOther, Nice: -5}, unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: -5}},
		"batch": {specs.Scheduler{Policy: specs.SchedBatch, Nice: 7, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}},
			unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: 7, Flags: unix.SCHED_FLAG_RESET_ON_FORK}},
		"idle": {specs.Scheduler{Policy: specs.SchedIdle}, unix.SchedAttr{Policy: unix.SCHED_IDLE}},
		"fifo": {specs.Scheduler{Policy: specs.SchedFIFO, Priority: 3}, unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 3}},
		"rr":   {specs.Scheduler{Policy: specs.SchedRR, Priority: 2}, unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 2}},
		"deadline": {specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 100000, Deadline: 20000000, Period: 40000000, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagReclaim, specs.SchedFlagDLOverrun}},
			unix.SchedAttr{Policy: unix.SCHED_DEADLINE, Runtime: 100000, Deadline: 20000000, Period: 40000000, Flags: unix.SCHED_FLAG_RECLAIM | unix.SCHED_FLAG_DL_OVERRUN}},
	} {
		for _, host := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", host users"}[host], func(t *testing.T) {
				b := newBox(t)
				if host {
					b.hostUsers()
				}
				scheduled(b)
				b.spec.Process.Scheduler = &s.ask
				c := b.sleeper()
				e, err := c.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
				must(t, err)
				for _, pid := range []int{c.Pid(), e.Pid} {
					got, err := unix.SchedGetAttr(pid, 0)
					must(t, err)
					got.Size, got.Util_min, got.Util_max = 0, 0, 0
					if got.Policy != unix.SCHED_DEADLINE {
						got.Runtime = 0 // the slice of a fair one
					}
					if got.Policy == unix.SCHED_IDLE {
						got.Nice = 0 // of no meaning there
					}
					if *got != s.want {
						t.Errorf("%+v, want %+v", *got, s.want)
					}
				}
				must(t, c.Cgroup().Kill())
				_, err = Reap(e.Pidfd)
				must(t, err)
				e.Pidfd.Close()
			})
		}
	}
}

// TestSchedulerOfOneExec does not touch the container's own.
func TestSchedulerOfOneExec(t *testing.T) {
	b := newBox(t)
	c := b.sleeper()
	out, _, err := b.exec(c, &specs.Process{Args: []string{"cat", "/proc/self/stat"}, Scheduler: &specs.Scheduler{Policy: specs.SchedIdle}})
	must(t, err)
	if f := strings.Fields(out); len(f) < 41 || f[40] != "5" {
		t.Errorf("policy of the exec in %q", out)
	}
	if own, err := unix.SchedGetAttr(c.Pid(), 0); err != nil || own.Policy != unix.SCHED_NORMAL {
		t.Errorf("the container's: %+v, %v", own, err)
	}
	_, _, err = b.exec(c, &specs.Process{Args: []string{"true"}, Scheduler: &specs.Scheduler{Policy: specs.SchedISO}})
	if err == nil || !strings.Contains(err.Error(), "SCHED_ISO") {
		t.Errorf("a policy that the kernel does not have: %v", err)
	}
}

// TestRefusedExecKeepsNoTerminal: a shim lives long, and is asked by anybody who may exec.
func TestRefusedExecKeepsNoTerminal(t *testing.T) {
	b := newBox(t)
	c := b.sleeper()
	terminals := func() (n int) {
		links, err := filepath.Glob("/proc/self/fd/*")
		must(t, err)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasSuffix(to, "ptmx") {
				n++
			}
		}
		return n
	}
	before := terminals()
	_, err := c.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Terminal: true, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NONE"}}}})
	if now := terminals(); err == nil || now != before {
		t.Errorf("%d terminals, before the exec %d; %v", now, before, err)
	}
}

// TestIOPriority: also the class that a user namespace's root has no right to.
func TestIOPriority(t *testing.T) {
	for class, want := range map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1<<13 | 2, specs.IOPRIO_CLASS_BE: 2<<13 | 2, specs.IOPRIO_CLASS_IDLE: 3<<13 | 2} {
		b := newBox(t)
		b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: class, Priority: 2}
		c := b.sleeper()
		e, err := c.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
		must(t, err)
		for _, pid := range []int{c.Pid(), e.Pid} {
			got, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
			if errno != 0 || int(got) != want {
				t.Errorf("%s: %#x, want %#x, %v", class, got, want, errno)
			}
		}
		must(t, c.Cgroup().Kill())
		_, err = Reap(e.Pidfd)
		must(t, err)
		e.Pidfd.Close()
	}
	if own, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0); own>>13 == 1 {
		t.Errorf("this process's own has become %#x", own)
	}
}

// TestPersonalityAndMemoryPolicy are those of the container, of an exec too, whatever the seccomp profile forbids.
func TestPersonalityAndMemoryPolicy(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32, Flags: []specs.LinuxPersonalityFlag{"ADDR_NO_RANDOMIZE"}}
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"set_mempolicy", "personality"}, Action: specs.ActErrno}}}
	args := []string{"sh", "-c", "uname -m; cat /proc/self/personality; head -n 1 /proc/self/numa_maps"}
	b.spec.Process.Args = args
	out, _, err := b.run()
	must(t, err)
	byExec, _, err := b.exec(b.sleeper(), &specs.Process{Args: args})
	must(t, err)
	for _, got := range []string{out, byExec} {
		if !strings.HasPrefix(got, "i686\n00040008\n") || !strings.Contains(got, " bind=static:0 ") {
			t.Errorf("%q", got)
		}
	}
}

// TestMemoryPolicies that this machine's one node permits.
func TestMemoryPolicies(t *testing.T) {
	for mode, row := range map[specs.MemoryPolicyModeType]struct{ nodes, want string }{specs.MpolDefault: {"", " default "}, specs.MpolLocal: {"", " local "},
		specs.MpolPreferred: {"0", " prefer:0 "}, specs.MpolPreferredMany: {"0", " prefer (many):0 "}, specs.MpolInterleave: {"0", " interleave:0 "}} {
		b := newBox(t, "head", "-n", "1", "/proc/self/numa_maps")
		b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: mode, Nodes: row.nodes}
		if out, _, err := b.run(); err != nil || !strings.Contains(out, row.want) {
			t.Errorf("%s: %q, %v", mode, out, err)
		}
	}
}

// TestExecAffinity: "initial" is what the process enters its groups with, "final" what it runs with.
func TestExecAffinity(t *testing.T) {
	b := newBox(t)
	b.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "1"}
	c := b.sleeper()
	list := func(pid string) string {
		b, err := os.ReadFile("/proc/" + pid + "/status")
		must(t, err)
		_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
		return strings.Fields(rest)[0]
	}
	allowed := func(a *specs.CPUAffinity) string {
		out, _, err := b.exec(c, &specs.Process{Args: []string{"cat", "/proc/self/status"}, ExecCPUAffinity: a})
		if err != nil {
			return err.Error()
		}
		_, rest, _ := strings.Cut(out, "Cpus_allowed_list:")
		return strings.Fields(rest)[0]
	}
	for _, row := range []struct {
		ask  *specs.CPUAffinity
		want string
	}{{nil, "1"}, {&specs.CPUAffinity{Initial: "0", Final: "0,1"}, "0-1"}} {
		if got := allowed(row.ask); got != row.want {
			t.Errorf("%+v: %q, want %q", row.ask, got, row.want)
		}
	}
	// Without "final" it is the kernel's to say what stays: nothing, or from 6.2 on what is possible.
	if got := allowed(&specs.CPUAffinity{Initial: "0"}); got != "0" && got != list("self") {
		t.Errorf("an initial one alone: %s", got)
	}
	if got := allowed(&specs.CPUAffinity{Final: "900"}); !strings.Contains(got, "900") {
		t.Errorf("a processor that is not there: %s", got)
	}
	if got := list(strconv.Itoa(c.Pid())); got != list("self") {
		t.Errorf("the first process has an exec's affinity: %s", got)
	}
}

// TestDeadlineOnSomeProcessors: the kernel's EPERM says nothing of them.
func TestDeadlineOnSomeProcessors(t *testing.T) {
	b := newBox(t, "true").hostUsers()
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 42000, Deadline: 1000000, Period: 1000000}
	b.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}
	if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), "linux.resources.cpu.cpus") {
		t.Errorf("SCHED_DEADLINE on processor 0: %v", err)
	}
}

// TestAttributesAreChecked before anything is made.
func TestAttributesAreChecked(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"SCHED_NONE":       func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_NONE"} },
		"nice 20":          func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"SCHED_DEADLINE's": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Runtime: 1} },
		"runtime 1000, deadline 9000, period 0": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1000, Deadline: 9000}
		},
		"runtime <= deadline": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 9000, Deadline: 8000, Period: 9000}
		},
		"deadline <= period": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 8000, Deadline: 9000, Period: 8000}
		},
		`sysctl "kernel.domainname" is "a", and domainname is "b"`: func(s *specs.Spec) {
			s.Linux.Sysctl, s.Domainname = map[string]string{"kernel.domainname": "a"}, "b"
		},
		`sysctl "kernel/hostname" is "a", and hostname is "box"`: func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel/hostname": "a"}
		},
		"has nice": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} },
		"SCHED_FLAG_X": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_X"}}
		},
		"IOPRIO_CLASS_X": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_X"} },
		"priority 8": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		"SVR4":                  func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "SVR4"} },
		"MPOL_X":                func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_X"} },
		"execCPUAffinity.final": func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "x"} },
		"mode requires 0 nodes but got 8": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolDefault, Nodes: "0-7"}
		},
		"memoryPolicy.nodes": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "1-0"}
		},
	} {
		b := newBox(t, "true")
		change(b.spec)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBitmask(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,7", "1023", "1024", "3-1", "-", ",", "0-99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		mask, err := bitmask(list)
		if err == nil && list != "" && len(mask) != maskBits/8 {
			t.Errorf("%q: %d bytes", list, len(mask))
		}
	})
}

// TestIntelRdtWithout: a host that has no resource control says so, and nothing is made.
func TestIntelRdtWithout(t *testing.T) {
	if b, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(b), " resctrl ") {
		t.Skip("this host has it: internal/resctrl tests what is done there")
	}
	b := newBox(t, "true")
	b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"}
	if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), "mount -t resctrl") {
		t.Error(err)
	}
}
