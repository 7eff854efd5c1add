package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// oracle is libseccomp, by a program in C that the test compiles: the engine itself has no C.
type oracle struct {
	t       *testing.T
	program string
}

func newOracle(t *testing.T) *oracle {
	t.Helper()
	o := &oracle{t: t, program: filepath.Join(t.TempDir(), "oracle")}
	if out, err := exec.Command("gcc", "-O1", "-o", o.program, "testdata/oracle.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("compile the oracle (apt-get install gcc libseccomp-dev): %v\n%s", err, out)
	}
	return o
}

// numbers are libseccomp's for each name on an interface; below zero: none, or one that the library does not know.
func (o *oracle) numbers(interfaceName string, names []string) []int {
	o.t.Helper()
	cmd := exec.Command(o.program)
	cmd.Stdin = strings.NewReader(interfaceName + " " + strings.Join(names, "\n"+interfaceName+" ") + "\n")
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatal(err)
	}
	numbers := make([]int, 0, len(names))
	for line := range strings.Lines(string(out)) {
		nr, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			o.t.Fatal(err)
		}
		numbers = append(numbers, nr)
	}
	return numbers
}

// TestNumbersAgainstLibseccomp: what the default profile names has the kernel's numbers, also on machines that these tests do not run on.
func TestNumbersAgainstLibseccomp(t *testing.T) {
	o := newOracle(t)
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, sc := range p.Syscalls {
		names = append(names, sc.Names...)
	}
	table := parseTable()
	for column, name := range []string{"x86_64", "x86", "", "aarch64", "arm"} {
		if name == "" {
			continue // x32's are those of x86_64 with a bit, or beyond 512
		}
		known := 0
		for i, want := range o.numbers(name, names) {
			if want < 0 {
				continue
			}
			known++
			if have, ok := table[names[i]]; !ok || have[column] != want {
				t.Errorf("%s on %s is %d, libseccomp has %d", names[i], name, have[column], want)
			}
		}
		if known < 250 {
			t.Errorf("libseccomp knows %d of %d names on %s", known, len(names), name)
		}
	}
}

// operators in libseccomp's numbers (enum scmp_compare).
var operators = map[specs.LinuxSeccompOperator]int{specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4,
	specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7}

// compile has libseccomp compile a profile; unknown are the names that it does not know.
func (o *oracle) compile(p *specs.LinuxSeccomp) (filter *bpf.VM, unknown []string) {
	o.t.Helper()
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		o.t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "default %#x\n", fallback)
	wanted, err := architectures(p.Architectures)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, a := range wanted {
		fmt.Fprintf(&text, "arch %s\n", strings.ToLower(strings.TrimPrefix(string(a.name), "SCMP_ARCH_")))
	}
	for _, sc := range p.Syscalls {
		act, err := action(sc.Action, sc.ErrnoRet)
		if err != nil {
			o.t.Fatal(err)
		}
		if act == fallback {
			continue
		}
		for _, name := range sc.Names {
			for _, alternative := range alternatives(sc.Args) {
				fmt.Fprintf(&text, "rule %#x %s", act, name)
				for _, a := range alternative {
					fmt.Fprintf(&text, " %d %d %#x %#x", a.Index, operators[a.Op], a.Value, a.ValueTwo)
				}
				text.WriteString("\n")
			}
		}
	}
	file := filepath.Join(o.t.TempDir(), "filter")
	cmd := exec.Command(o.program, file)
	cmd.Stdin = strings.NewReader(text.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("libseccomp: %v\n%s", err, text.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		o.t.Fatal(err)
	}
	return machine(o.t, b), strings.Fields(string(out))
}

// alternatives are how runc hands conditions to libseccomp: several on one argument are rules of their own.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			var out [][]specs.LinuxSeccompArg
			for _, each := range args {
				out = append(out, []specs.LinuxSeccompArg{each})
			}
			return out
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// machine interprets a filter.
func machine(t *testing.T, filter []byte) *bpf.VM {
	t.Helper()
	var code []bpf.Instruction
	for ; len(filter) >= 8; filter = filter[8:] {
		raw := bpf.RawInstruction{Op: binary.NativeEndian.Uint16(filter), Jt: filter[2], Jf: filter[3], K: binary.NativeEndian.Uint32(filter[4:])}
		code = append(code, raw.Disassemble())
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// call is a struct seccomp_data.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

// verdictOf runs a filter. The interpreter reads words in network order, so the words are laid down in it.
func verdictOf(t *testing.T, vm *bpf.VM, c call) uint32 {
	t.Helper()
	b := binary.BigEndian.AppendUint32(nil, c.nr)
	b = binary.BigEndian.AppendUint32(b, c.arch)
	b = append(b, make([]byte, 8)...)
	for _, a := range c.args {
		b = binary.BigEndian.AppendUint32(b, uint32(a))
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	v, err := vm.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

// samples are argument values around those that a profile compares with.
func samples(p *specs.LinuxSeccomp) []uint64 {
	out := []uint64{0, 1, ^uint64(0), 1 << 31, 1 << 32}
	for _, sc := range p.Syscalls {
		for _, a := range sc.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				out = append(out, v, v-1, v+1, v|1<<32, v&^0xffffffff, ^v, v|1<<63)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compare holds both filters against each other for every number of every interface.
func (o *oracle) compare(p *specs.LinuxSeccomp) (probes int) {
	o.t.Helper()
	theirs, unknown := o.compile(p)
	filter, err := Compile(p)
	if err != nil {
		o.t.Fatal(err)
	}
	ours := machine(o.t, filter)
	table := parseTable()
	skip := func(a abi, nr uint32) bool {
		if a.name == specs.ArchX86 && (nr == 102 || nr == 117) { // libseccomp looks into socketcall and ipc: the number of the call is their first argument
			return true
		}
		if a.name == specs.ArchX32 && slices.Contains([]uint32{205, 211, 214, 215, 453}, nr) { // x86_64 alone has them: ENOSYS whatever the filter says
			return true
		}
		return slices.ContainsFunc(unknown, func(name string) bool { n, ok := table[name]; return ok && n[a.column] == int(nr) })
	}
	beyond := numbersBeyond(p, table)
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		o.t.Fatal(err)
	}
	values := samples(p)
	conditional := conditionalNumbers(p, table)
	failed := 0
	for _, a := range abis[:3] {
		for nr := uint32(0); nr < 600; nr++ {
			if skip(a, nr) {
				continue
			}
			classes := [][6]uint64{{}}
			for i := range 6 {
				for _, v := range values {
					if !conditional[a.name][nr] {
						break
					}
					for _, other := range []uint64{0, v} {
						args := [6]uint64{other, other, other, other, other, other}
						args[i] = v
						classes = append(classes, args)
					}
				}
			}
			for _, args := range classes {
				c := call{a.audit, nr | a.bit, args}
				probes++
				x, y := verdictOf(o.t, ours, c), verdictOf(o.t, theirs, c)
				if beyond[a.name] > 0 && nr >= beyond[a.name] && y == fallback && refuses(fallback) { // newer than the profile, which libseccomp does not ask
					y = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
				}
				if x != y && !(x == unix.SECCOMP_RET_KILL_PROCESS && y == unix.SECCOMP_RET_KILL_THREAD) {
					o.t.Errorf("%s %d (%#x): %#x, libseccomp %#x", a.name, nr, args, x, y)
					if failed++; failed > 20 {
						return probes
					}
				}
			}
		}
	}
	return probes
}

// numbersBeyond are those after the last that a profile names, of each interface.
func numbersBeyond(p *specs.LinuxSeccomp, table map[string][5]int) map[specs.Arch]uint32 {
	out := map[specs.Arch]uint32{}
	for _, a := range abis {
		for _, sc := range p.Syscalls {
			for _, name := range sc.Names {
				if n, ok := table[name]; ok {
					out[a.name] = max(out[a.name], uint32(n[a.column]+1))
				}
			}
		}
	}
	return out
}

func conditionalNumbers(p *specs.LinuxSeccomp, table map[string][5]int) map[specs.Arch]map[uint32]bool {
	out := map[specs.Arch]map[uint32]bool{}
	for _, a := range abis {
		out[a.name] = map[uint32]bool{}
		for _, sc := range p.Syscalls {
			for _, name := range sc.Names {
				if n, ok := table[name]; ok && len(sc.Args) > 0 && n[a.column] >= 0 {
					out[a.name][uint32(n[a.column])] = true
				}
			}
		}
	}
	return out
}

func TestDefaultProfileAgainstLibseccomp(t *testing.T) {
	o := newOracle(t)
	for name, caps := range map[string][]string{"none": nil, "default": {"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"},
		"many": {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH", "CAP_SYS_NICE"}} {
		p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		probes := o.compare(p)
		t.Logf("%s: %d probes", name, probes)
		if probes < 1800 {
			t.Errorf("%s: only %d probes", name, probes)
		}
	}
}

// TestProfilesAgainstLibseccomp compares made-up profiles: lists of what is allowed and of what is refused, all operators, all interfaces.
func TestProfilesAgainstLibseccomp(t *testing.T) {
	o := newOracle(t)
	names := []string{"read", "write", "openat", "clone", "ioctl", "personality", "mount", "socket", "fcntl", "prctl", "getpid", "keyctl", "bpf"}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual}
	all := [][]specs.Arch{{specs.ArchX86_64}, {specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchX86}, {specs.ArchX86_64, specs.ArchX86}, {specs.ArchX32}}
	random := rand.New(rand.NewPCG(1, 2))
	value := func() uint64 {
		return []uint64{0, 5, 0xffffffff, 1 << 32, 1<<40 + 7, 1 << 63, ^uint64(0)}[random.IntN(7)]
	}
	for i := range 60 {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: all[i%len(all)]}
		act := specs.ActAllow
		if i%2 == 1 {
			p.DefaultAction, act = specs.ActAllow, specs.ActErrno
		}
		for _, n := range random.Perm(len(names))[:5] {
			sc := specs.LinuxSyscall{Names: []string{names[n]}, Action: act}
			// Each argument once: of several ranges for one, libseccomp 2.5 loses some.
			for _, index := range random.Perm(6)[:random.IntN(3)] {
				op := ops[random.IntN(len(ops))]
				arg := specs.LinuxSeccompArg{Index: uint(index), Op: op, Value: value()}
				if op == specs.OpMaskedEqual {
					arg.ValueTwo = value() & arg.Value
				}
				sc.Args = append(sc.Args, arg)
			}
			p.Syscalls = append(p.Syscalls, sc)
		}
		if o.compare(p); t.Failed() {
			t.Fatalf("profile %d: %+v", i, p)
		}
	}
}

// TestForeignInterfacesAreKilled: a profile for one interface must not let another's numbers pass as its own (x32's mount is not among
// the numbers that a list of refused calls names).
func TestForeignInterfacesAreKilled(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}}}
	for _, row := range []struct {
		arch specs.Arch
		call call
		want uint32
	}{
		{specs.ArchX86_64, call{arch: unix.AUDIT_ARCH_X86_64, nr: 165}, unix.SECCOMP_RET_ERRNO | 1},
		{specs.ArchX86_64, call{arch: unix.AUDIT_ARCH_X86_64, nr: 0}, unix.SECCOMP_RET_ALLOW},
		{specs.ArchX86_64, call{arch: unix.AUDIT_ARCH_X86_64, nr: 0x40000000 | 165}, unix.SECCOMP_RET_KILL_PROCESS},
		{specs.ArchX86_64, call{arch: unix.AUDIT_ARCH_I386, nr: 21}, unix.SECCOMP_RET_KILL_PROCESS},
		{specs.ArchX32, call{arch: unix.AUDIT_ARCH_X86_64, nr: 165}, unix.SECCOMP_RET_ERRNO | 1}, // the machine's own need not be listed
		{specs.ArchX32, call{arch: unix.AUDIT_ARCH_X86_64, nr: 0x40000000 | 165}, unix.SECCOMP_RET_ERRNO | 1},
	} {
		p.Architectures = []specs.Arch{row.arch}
		filter, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := verdictOf(t, machine(t, filter), row.call); got != row.want {
			t.Errorf("%s: %+v: %#x, want %#x", row.arch, row.call, got, row.want)
		}
	}
}

func TestBadProfiles(t *testing.T) {
	errno, large := uint(5), uint(1<<16)
	for name, p := range map[string]*specs.LinuxSeccomp{
		"action":       {DefaultAction: "SCMP_ACT_NONSENSE"},
		"rule action":  {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: "x"}}},
		"operator":     {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_MAYBE"}}}}},
		"argument":     {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"errno":        {DefaultAction: specs.ActAllow, DefaultErrnoRet: &errno},
		"rule's errno": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActKillProcess, ErrnoRet: &errno}}},
		"large errno":  {DefaultAction: specs.ActErrno, DefaultErrnoRet: &large},
		"arch name":    {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}},
		"architecture": {DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, Architectures: []specs.Arch{"x86"}},
	} {
		if _, err := Compile(p); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	filter, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, Syscalls: []specs.LinuxSyscall{{Names: []string{"no_such_call", "getpid"}, Action: specs.ActAllow}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := verdictOf(t, machine(t, filter), call{arch: unix.AUDIT_ARCH_X86_64, nr: 39}); got != unix.SECCOMP_RET_ALLOW {
		t.Errorf("getpid: %#x", got)
	}
	if got := verdictOf(t, machine(t, filter), call{arch: unix.AUDIT_ARCH_X86_64, nr: 1}); got != unix.SECCOMP_RET_ERRNO|5 {
		t.Errorf("write: %#x", got)
	}
}
