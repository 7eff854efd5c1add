package ociruntime

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/resctrl"
	"wherry.dev/wherry/internal/sysprog"
)

// attributes are what the kernel keeps of a process beside its identity: how it is scheduled, where it and its memory may be. The zero
// value has them as the kernel gives them to everybody.
type attributes struct {
	scheduler *unix.SchedAttr
	policy    string // the scheduler's name
	// byParent has this process set the scheduler: in a user namespace of its own nobody has the right to most of it.
	byParent  bool
	priority  int  // ioprio_set(2); 0: not asked for
	domain    *int // personality(2)
	memory    *memoryPolicy
	first     []byte // processors before the process enters its control groups; nil: any
	last      []byte // and after
	firstList string
	lastList  string
	class     *resctrl.Class // of caches and bandwidth
}

// memoryPolicy is set_mempolicy(2)'s.
type memoryPolicy struct {
	name  string
	mode  int
	nodes []byte // nil: none
}

// attributesOf reads those of a container's first process, or of a further one, which has those of the first where it says none.
func attributesOf(l *specs.Linux, p, first *specs.Process, userns bool) (a attributes, err error) {
	if s := either(p.Scheduler, first.Scheduler); s != nil {
		a.byParent = userns
		a.policy = string(s.Policy)
		if a.scheduler, err = schedAttr(s); err != nil {
			return a, err
		}
	}
	if io := either(p.IOPriority, first.IOPriority); io != nil {
		if a.priority, err = ioPriority(io); err != nil {
			return a, err
		}
	}
	if l.Personality != nil {
		if a.domain, err = personality(l.Personality); err != nil {
			return a, err
		}
	}
	if l.MemoryPolicy != nil {
		if a.memory, err = newMemoryPolicy(l.MemoryPolicy); err != nil {
			return a, err
		}
	}
	return a, nil
}

// affinity reads where a further process may run; the first one's are the control group's.
func (a *attributes) affinity(p, first *specs.Process) (err error) {
	c := either(p.ExecCPUAffinity, first.ExecCPUAffinity)
	if c == nil {
		return nil
	}
	a.firstList, a.lastList = c.Initial, c.Final
	if a.first, err = bitmask(c.Initial); err != nil {
		return fmt.Errorf("process.execCPUAffinity.initial: %w", err)
	}
	if a.last, err = bitmask(c.Final); err != nil {
		return fmt.Errorf("process.execCPUAffinity.final: %w", err)
	}
	return nil
}

func either[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// writeEarly appends what needs the rights of this process, before they are given up, and is passed on at the clone.
func (a attributes) writeEarly(p *sysprog.Program) {
	if a.priority != 0 {
		p.Call("set the I/O priority", unix.SYS_IOPRIO_SET, 1 /* IOPRIO_WHO_PROCESS */, 0, a.priority)
	}
	if a.first != nil {
		p.Call("run on the processors "+a.firstList, unix.SYS_SCHED_SETAFFINITY, 0, len(a.first), p.Bytes(a.first))
	}
}

// writeLate appends what depends on the control groups that the process has entered by then.
func (a attributes) writeLate(p *sysprog.Program) {
	if a.first == nil && a.last == nil { // whoever started this may have been bound to few: a process begins with all that its groups have
		all := p.Call("run on all processors", unix.SYS_SCHED_SETAFFINITY, 0, len(everyProcessor()), p.Bytes(everyProcessor()))
		p.Tolerate(all, 0, unix.EINVAL, unix.EPERM)
	}
	if a.last != nil {
		p.Call("run on the processors "+a.lastList, unix.SYS_SCHED_SETAFFINITY, 0, len(a.last), p.Bytes(a.last))
	}
	if m := a.memory; m != nil {
		var nodes any
		if m.nodes != nil {
			nodes = p.Bytes(m.nodes)
		}
		p.Call("set the memory policy "+m.name, unix.SYS_SET_MEMPOLICY, m.mode, nodes, len(m.nodes)*8)
	}
	if a.scheduler != nil && !a.byParent {
		p.Call(setScheduler+a.policy, unix.SYS_SCHED_SETATTR, 0, p.Bytes(schedBytes(a.scheduler)), 0)
	}
	if a.domain != nil {
		p.Call("set the personality", unix.SYS_PERSONALITY, *a.domain)
	}
}

// everyProcessor is a mask of as many as the kernel may have.
func everyProcessor() []byte { return bytes.Repeat([]byte{0xff}, maskBits/8) }

// setByParent sets what only this process has the right to, of a child that has entered its control groups and waits.
func (a attributes) setByParent(pid int) error {
	if a.class != nil {
		if err := a.class.Add(pid); err != nil {
			return err
		}
	}
	if a.scheduler == nil || !a.byParent {
		return nil
	}
	if err := unix.SchedSetAttr(pid, a.scheduler, 0); err != nil {
		return refusedScheduler(fmt.Errorf("%s%s: %w", setScheduler, a.policy, err))
	}
	return nil
}

// setScheduler begins the name of the step that sets the scheduler.
const setScheduler = "set the scheduler "

// refusedScheduler says of a scheduler that may not be had what it takes (sched(7), sched_setattr(2)).
func refusedScheduler(err error) error {
	switch {
	case !errors.Is(err, unix.EPERM):
		return err
	case strings.Contains(err.Error(), string(specs.SchedDeadline)):
		return fmt.Errorf("%w: it takes CAP_SYS_NICE and all processors, so that linux.resources.cpu.cpus cannot name some", err)
	}
	return fmt.Errorf("%w: it takes CAP_SYS_NICE, and with control groups of version 1 time for it (linux.resources.cpu.realtimeRuntime)", err)
}

// makeClass finds or makes the class of caches and bandwidth (Intel RDT).
func makeClass(s *start, _ context.Context) error {
	rdt := s.spec.Linux.IntelRdt
	if rdt == nil {
		return nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	s.attributes.class, err = root.Prepare(s.o.ID, rdt)
	return err
}

// joinClass is for an exec: a child of this process is in this one's class, not in the container's.
func (a *attributes) joinClass(linux *specs.Linux, first int) error {
	if linux == nil || linux.IntelRdt == nil {
		return nil
	}
	root, err := resctrl.Find()
	if err == nil {
		a.class, err = root.Of(first)
	}
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	a.byParent = true
	return nil
}

func schedulers() map[specs.LinuxSchedulerPolicy]uint32 {
	return map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
		specs.SchedBatch: unix.SCHED_BATCH, specs.SchedISO: 4, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE}
}

func schedulerFlags() map[specs.LinuxSchedulerFlag]uint64 {
	return map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: unix.SCHED_FLAG_RESET_ON_FORK, specs.SchedFlagReclaim: unix.SCHED_FLAG_RECLAIM,
		specs.SchedFlagDLOverrun: unix.SCHED_FLAG_DL_OVERRUN, specs.SchedFlagKeepPolicy: unix.SCHED_FLAG_KEEP_POLICY, specs.SchedFlagKeepParams: unix.SCHED_FLAG_KEEP_PARAMS,
		specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN, specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX}
}

// leastRuntime is the shortest one that the kernel takes of SCHED_DEADLINE (kernel/sched/deadline.c, DL_SCALE), in nanoseconds.
const leastRuntime = 1024

func schedAttr(s *specs.Scheduler) (*unix.SchedAttr, error) {
	policy, ok := schedulers()[s.Policy]
	if !ok {
		return nil, fmt.Errorf("process.scheduler: policy %q is none of Linux's (sched(7))", s.Policy)
	}
	if s.Nice < -20 || s.Nice > 19 {
		return nil, fmt.Errorf("process.scheduler: nice %d is not between -20 and 19", s.Nice)
	}
	if policy != unix.SCHED_DEADLINE && s.Runtime|s.Deadline|s.Period != 0 {
		return nil, fmt.Errorf("process.scheduler: runtime, deadline and period are SCHED_DEADLINE's, not %s's", s.Policy)
	}
	if policy == unix.SCHED_DEADLINE && (s.Runtime < leastRuntime || s.Runtime > s.Deadline || s.Period != 0 && s.Deadline > s.Period) {
		return nil, fmt.Errorf("process.scheduler: SCHED_DEADLINE wants %d <= runtime <= deadline <= period, in ns (no period is one of deadline); here are runtime %d, deadline %d, period %d",
			leastRuntime, s.Runtime, s.Deadline, s.Period)
	}
	if s.Priority != 0 && policy != unix.SCHED_FIFO && policy != unix.SCHED_RR {
		return nil, fmt.Errorf("process.scheduler: a priority is SCHED_FIFO's and SCHED_RR's; %s has nice", s.Policy)
	}
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	for _, f := range s.Flags {
		bit, ok := schedulerFlags()[f]
		if !ok {
			return nil, fmt.Errorf("process.scheduler: flag %q is unknown", f)
		}
		attr.Flags |= bit
	}
	return attr, nil
}

// schedBytes is struct sched_attr (sched_setattr(2)).
func schedBytes(a *unix.SchedAttr) []byte {
	n := binary.NativeEndian
	b := n.AppendUint32(n.AppendUint32(nil, a.Size), a.Policy)
	b = n.AppendUint32(n.AppendUint32(n.AppendUint64(b, a.Flags), uint32(a.Nice)), a.Priority)
	b = n.AppendUint64(n.AppendUint64(n.AppendUint64(b, a.Runtime), a.Deadline), a.Period)
	return n.AppendUint32(n.AppendUint32(b, a.Util_min), a.Util_max)
}

func ioPriority(io *specs.LinuxIOPriority) (int, error) {
	class, ok := map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[io.Class]
	if !ok {
		return 0, fmt.Errorf("process.ioPriority: class %q is unknown", io.Class)
	}
	if io.Priority < 0 || io.Priority > 7 {
		return 0, fmt.Errorf("process.ioPriority: priority %d is not between 0 and 7", io.Priority)
	}
	return class<<13 | io.Priority, nil
}

// personalityFlags are those of personality(2) that an execve keeps and the specification leaves to the runtime.
func personalityFlags() map[specs.LinuxPersonalityFlag]int {
	return map[specs.LinuxPersonalityFlag]int{"UNAME26": 0x20000, "ADDR_NO_RANDOMIZE": 0x40000, "ADDR_COMPAT_LAYOUT": 0x200000,
		"ADDR_LIMIT_32BIT": 0x800000, "SHORT_INODE": 0x1000000, "WHOLE_SECONDS": 0x2000000, "STICKY_TIMEOUTS": 0x4000000, "ADDR_LIMIT_3GB": 0x8000000}
}

func personality(p *specs.LinuxPersonality) (*int, error) {
	domain, ok := map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: 8}[p.Domain]
	if !ok {
		return nil, fmt.Errorf("linux.personality: domain %q is neither %s nor %s", p.Domain, specs.PerLinux, specs.PerLinux32)
	}
	for _, f := range p.Flags {
		bit, ok := personalityFlags()[f]
		if !ok {
			return nil, fmt.Errorf("linux.personality: flag %q is unknown", f)
		}
		domain |= bit
	}
	return &domain, nil
}

// memoryModes and memoryFlags are in linux/mempolicy.h.
func memoryModes() map[specs.MemoryPolicyModeType]int {
	return map[specs.MemoryPolicyModeType]int{specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6}
}

func memoryFlags() map[specs.MemoryPolicyFlagType]int {
	return map[specs.MemoryPolicyFlagType]int{specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15}
}

func newMemoryPolicy(m *specs.LinuxMemoryPolicy) (*memoryPolicy, error) {
	mode, ok := memoryModes()[m.Mode]
	if !ok {
		return nil, fmt.Errorf("invalid memory policy mode %q (linux.memoryPolicy)", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := memoryFlags()[f]
		if !ok {
			return nil, fmt.Errorf("invalid memory policy flag %q (linux.memoryPolicy)", f)
		}
		mode |= bit
	}
	nodes, err := bitmask(m.Nodes)
	if err != nil {
		return nil, fmt.Errorf("invalid memory policy node: linux.memoryPolicy.nodes: %w", err)
	}
	if n := ones(nodes); n > 0 && (m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal) {
		return nil, fmt.Errorf("linux.memoryPolicy.nodes: the mode requires 0 nodes but got %d: leave them out, or take another than %s", n, m.Mode)
	}
	return &memoryPolicy{name: string(m.Mode), mode: mode, nodes: nodes}, nil
}

func ones(mask []byte) (n int) {
	for _, b := range mask {
		n += bits.OnesCount8(b)
	}
	return n
}

// maskBits is how many processors or memory nodes a mask has: as many as the kernel may.
const maskBits = 1024

// bitmask reads a list of numbers and ranges ("0-3,7") to a mask of the kernel's longs; nil for an empty one.
func bitmask(list string) ([]byte, error) {
	if list == "" {
		return nil, nil
	}
	mask := make([]byte, maskBits/8) // little-endian machines only: amd64 and arm64
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of numbers and ranges", list)
		}
		last, err := strconv.ParseUint(to, 10, 32)
		if err != nil || last < first || last >= maskBits {
			return nil, fmt.Errorf("%q is not a list of numbers and ranges below %d", list, maskBits)
		}
		for n := first; n <= last; n++ {
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}
