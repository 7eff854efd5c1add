// Package seccomp compiles OCI seccomp profiles to classic BPF (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).
//
// The filter is built for the kernel's cost of it: one binary search by system call number per architecture, neighbouring numbers with
// the same verdict merged, conditions only where a rule has them. The result is bytes: struct sock_filter, host order.
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// abi is one calling convention that a filter meets.
type abi struct {
	name   specs.Arch
	audit  uint32 // AUDIT_ARCH_*
	column int    // in syscallTable
	bit    uint32 // set in all its numbers (x32)
	narrow bool   // arguments have 32 bits: what a register holds above is not looked at
}

var abis = []abi{
	{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, 0, 0, false},
	{specs.ArchX32, unix.AUDIT_ARCH_X86_64, 2, 0x40000000, true},
	{specs.ArchX86, unix.AUDIT_ARCH_I386, 1, 0, true},
	{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, 3, 0, false},
	{specs.ArchARM, unix.AUDIT_ARCH_ARM, 4, 0, true},
}

// Offsets in struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// verdict is what happens to a system call: rules in order, then the action.
type verdict struct {
	rules  []rule
	action uint32
	set    bool
}

// rule is an action under conditions that all hold.
type rule struct {
	conditions []specs.LinuxSeccompArg
	action     uint32
	narrow     bool // of an interface with 32-bit arguments
}

func (v verdict) equal(o verdict) bool {
	return v.action == o.action && slices.EqualFunc(v.rules, o.rules, func(a, b rule) bool {
		return a.action == b.action && a.narrow == b.narrow && slices.Equal(a.conditions, b.conditions)
	})
}

// Compile makes the filter of a profile. An unknown system call is passed over, as the profile names those of all architectures; an
// unknown action, operator or architecture is an error.
func Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	table := parseTable()
	wanted, err := architectures(p.Architectures)
	if err != nil {
		return nil, err
	}
	g, blocks := newGraph(), map[uint32]*node{}
	var order []uint32
	byAudit := map[uint32][]segment{}
	for _, a := range wanted {
		segments, err := segmentsOf(p, a, table, fallback)
		if err != nil {
			return nil, err
		}
		if _, ok := byAudit[a.audit]; !ok {
			order = append(order, a.audit)
		}
		byAudit[a.audit] = append(byAudit[a.audit], segments...)
	}
	for audit, segments := range byAudit {
		if audit == unix.AUDIT_ARCH_X86_64 {
			segments = append(segments, foreign(wanted)...)
		}
		sort.Slice(segments, func(i, j int) bool { return segments[i].from < segments[j].from })
		blocks[audit] = g.step(bpf.LoadAbsolute{Off: offsetNr, Size: 4}, search(g, merge(segments)))
	}
	return assemble(program(g, order, blocks))
}

// foreign are the numbers below the mark of x86_64 that belong to an interface which the profile does not name: they are killed, as those
// of other marks are. Without this a list of refused calls would not hold for x32's numbers of the same calls.
func foreign(wanted []abi) (out []segment) {
	for _, a := range abis[:2] {
		if !slices.ContainsFunc(wanted, func(w abi) bool { return w.name == a.name }) {
			out = append(out, segment{from: a.bit, verdict: verdict{action: unix.SECCOMP_RET_KILL_PROCESS}})
		}
	}
	return out
}

// program selects the block of the architecture; a call from any other is killed, as libseccomp does by default.
func program(g *graph, order []uint32, blocks map[uint32]*node) []bpf.Instruction {
	n := g.ret(unix.SECCOMP_RET_KILL_PROCESS)
	for _, audit := range slices.Backward(order) {
		n = g.branch(bpf.JumpEqual, audit, blocks[audit], n)
	}
	return linear(g.step(bpf.LoadAbsolute{Off: offsetArch, Size: 4}, n))
}

func assemble(code []bpf.Instruction) ([]byte, error) {
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	if len(raw) > 4096 {
		return nil, fmt.Errorf("the seccomp filter has %d instructions, the kernel takes 4096", len(raw))
	}
	out := make([]byte, 0, len(raw)*8)
	for _, i := range raw {
		out = binary.NativeEndian.AppendUint16(out, i.Op)
		out = append(out, i.Jt, i.Jf)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out, nil
}

var actions = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill: unix.SECCOMP_RET_KILL_THREAD, specs.ActKillThread: unix.SECCOMP_RET_KILL_THREAD, specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
	specs.ActTrap: unix.SECCOMP_RET_TRAP, specs.ActErrno: unix.SECCOMP_RET_ERRNO, specs.ActTrace: unix.SECCOMP_RET_TRACE,
	specs.ActAllow: unix.SECCOMP_RET_ALLOW, specs.ActLog: unix.SECCOMP_RET_LOG, specs.ActNotify: unix.SECCOMP_RET_USER_NOTIF,
}

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	v, ok := actions[a]
	if !ok {
		return 0, fmt.Errorf("seccomp action %q is unknown", a)
	}
	if a != specs.ActErrno && a != specs.ActTrace {
		if errno != nil {
			return 0, fmt.Errorf("seccomp action %s takes no error number (errnoRet)", a)
		}
		return v, nil
	}
	data := uint(unix.EPERM)
	if errno != nil {
		data = *errno
	}
	if data > unix.SECCOMP_RET_DATA {
		return 0, fmt.Errorf("seccomp error number %d is above %d", data, unix.SECCOMP_RET_DATA)
	}
	return v | uint32(data), nil
}

// others are the architectures of the specification for which this runtime is not built: no call that the filter meets is theirs.
var others = []specs.Arch{specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
	specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB}

// Architectures are the names that a profile may list.
func Architectures() []string {
	var out []string
	for _, a := range abis {
		out = append(out, string(a.name))
	}
	for _, a := range others {
		out = append(out, string(a))
	}
	slices.Sort(out)
	return out
}

// architectures are those of a profile and always the machine's own: the list is of what may be used beside it.
func architectures(list []specs.Arch) ([]abi, error) {
	native := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]
	var out []abi
	for _, name := range append([]specs.Arch{native}, list...) {
		i := slices.IndexFunc(abis, func(a abi) bool { return a.name == name })
		switch {
		case i < 0 && !slices.Contains(others, name):
			return nil, fmt.Errorf("seccomp architecture %q is unknown", name)
		case i >= 0 && !slices.ContainsFunc(out, func(a abi) bool { return a.name == name }):
			out = append(out, abis[i])
		}
	}
	return out, nil
}

// parseTable reads syscallTable: numbers by name, -1 for none.
func parseTable() map[string][5]int {
	table := make(map[string][5]int, 512)
	for line := range strings.Lines(syscallTable) {
		fields := strings.Fields(line)
		var numbers [5]int
		for i := range numbers {
			n, err := strconv.Atoi(fields[1+i])
			if err != nil {
				n = -1
			}
			numbers[i] = n
		}
		table[fields[0]] = numbers
	}
	return table
}
