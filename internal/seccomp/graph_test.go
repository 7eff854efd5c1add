package seccomp

import (
	"math/rand/v2"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// holds is what the specification says of one condition.
func holds(c specs.LinuxSeccompArg, v uint64) bool {
	switch c.Op {
	case specs.OpEqualTo:
		return v == c.Value
	case specs.OpNotEqual:
		return v != c.Value
	case specs.OpGreaterThan:
		return v > c.Value
	case specs.OpGreaterEqual:
		return v >= c.Value
	case specs.OpLessThan:
		return v < c.Value
	case specs.OpLessEqual:
		return v <= c.Value
	}
	return v&c.Value == c.ValueTwo
}

// TestValuesOfOneArgument: several rules about one argument are searched as intervals. libseccomp loses some of those, so the specification decides.
func TestValuesOfOneArgument(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpEqualTo, specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	edges := []uint64{0, 1, 2, 5, 6, 7, 40, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 + 6, ^uint64(0)}
	random := rand.New(rand.NewPCG(3, 4))
	searched := 0
	for i := range 600 {
		values := edges
		if i%4 > 0 {
			values = edges[:8+i%2]
		}
		index := uint(random.IntN(6))
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}}
		var asked []specs.LinuxSeccompArg
		for range 1 + random.IntN(6) {
			c := specs.LinuxSeccompArg{Index: index, Op: ops[random.IntN(len(ops)-i%2)], Value: values[random.IntN(len(values))]}
			if c.Op == specs.OpMaskedEqual {
				c.ValueTwo = c.Value & 5
			}
			asked = append(asked, c)
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{c}})
		}
		v := verdict{set: true}
		for _, c := range asked {
			v.rules = append(v.rules, rule{conditions: []specs.LinuxSeccompArg{c}})
		}
		if _, ok := valuesOf(v); ok {
			searched++
		}
		filter, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		vm := machine(t, filter)
		for _, edge := range edges {
			for _, value := range []uint64{edge - 1, edge, edge + 1} {
				for _, on := range []struct {
					arch, nr uint32
					mask     uint64
				}{{unix.AUDIT_ARCH_X86_64, 41, ^uint64(0)}, {unix.AUDIT_ARCH_I386, 359, 0xffffffff}} {
					want := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
					for _, c := range asked {
						c.Value, c.ValueTwo = c.Value&on.mask, c.ValueTwo&on.mask
						if holds(c, value&on.mask) {
							want = unix.SECCOMP_RET_ALLOW
						}
					}
					one := call{arch: on.arch, nr: on.nr}
					one.args[index] = value
					if got := verdictOf(t, vm, one); got != want {
						t.Fatalf("profile %d, %+v: argument %#x on %#x: %#x, not %#x", i, asked, value, on.arch, got, want)
					}
				}
			}
		}
	}
	if searched < 200 {
		t.Errorf("only %d of the profiles were searched as intervals", searched)
	}
}

// TestFarBranches: a filter that is longer than a branch can reach.
func TestFarBranches(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}}
	table, numbers := parseTable(), map[string]uint{}
	for name := range table {
		errno := uint(len(numbers)%200 + 2)
		numbers[name] = errno
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno})
	}
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(filter) / 8; n < 1000 {
		t.Errorf("the filter has only %d instructions", n)
	}
	vm := machine(t, filter)
	for name, errno := range numbers {
		for _, a := range abis[:3] {
			nr := table[name][a.column]
			if nr < 0 {
				continue
			}
			want := uint32(unix.SECCOMP_RET_ERRNO) | uint32(errno)
			if got := verdictOf(t, vm, call{arch: a.audit, nr: uint32(nr) | a.bit}); got != want {
				t.Errorf("%s on %s: %#x, not %#x", name, a.name, got, want)
			}
		}
	}
}

// TestFilterIsShort: each start hands the filter to the kernel, whose work for it grows with its length: 0.18 ms for 969 instructions, 0.07 for 321.
func TestFilterIsShort(t *testing.T) {
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"}}}})
	if err != nil {
		t.Fatal(err)
	}
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(filter) / 8; n > 360 {
		t.Errorf("the default profile's filter has %d instructions", n)
	}
}
