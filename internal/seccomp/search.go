package seccomp

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// segment is a run of numbers, from its own up to the next segment's, with one verdict.
type segment struct {
	from    uint32
	verdict verdict
}

// segmentsOf gathers a profile's rules for one calling convention.
func segmentsOf(p *specs.LinuxSeccomp, a abi, table map[string][5]int, fallback uint32) ([]segment, error) {
	verdicts := map[uint32]verdict{}
	beyond := uint32(0) // the number after the last that the profile names; 0: it names none
	for _, sc := range p.Syscalls {
		act, err := action(sc.Action, sc.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range sc.Names {
			numbers, ok := table[name]
			if !ok || numbers[a.column] < 0 {
				continue
			}
			nr := uint32(numbers[a.column]) | a.bit
			beyond = max(beyond, nr+1)
			v := verdicts[nr]
			if err := v.add(rule{sc.Args, act, a.narrow}, fallback); err != nil {
				return nil, fmt.Errorf("seccomp rule for %s: %w", name, err)
			}
			if v.set { // else the rule says what is done anyway
				verdicts[nr] = v
			}
		}
	}
	segments := []segment{{from: a.bit, verdict: verdict{action: fallback}}}
	if beyond > 0 && refuses(fallback) {
		segments = append(segments, segment{beyond, verdict{action: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}})
	}
	for nr, v := range verdicts {
		segments = append(segments, segment{nr, v})
		if _, next := verdicts[nr+1]; !next && (nr+1 != beyond || !refuses(fallback)) {
			segments = append(segments, segment{nr + 1, verdict{action: fallback}})
		}
	}
	// The zeroth number may have a verdict of its own; the first segment then gives way.
	if _, ok := verdicts[a.bit]; ok {
		segments = segments[1:]
	}
	return segments, nil
}

// refuses says that what a profile does not name is not let through. Calls with numbers above all that it names are then such as its
// author could not know: they are told apart as not there (ENOSYS), so that a C library takes the older call, as runc has it since 1.0.
func refuses(fallback uint32) bool {
	switch fallback & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	}
	return true
}

// add joins a rule to a verdict. As libseccomp and runc have it: several conditions on one argument are alternatives, a rule without
// conditions decides what conditions left open.
func (v *verdict) add(r rule, fallback uint32) error {
	if r.action == fallback {
		return nil
	}
	if !v.set {
		v.action, v.set = fallback, true
	}
	if len(r.conditions) == 0 {
		v.action, v.rules = r.action, nil
		return nil
	}
	if v.action != fallback {
		return nil // already decided for all arguments
	}
	seen := map[uint]bool{}
	repeated := false
	for _, arg := range r.conditions {
		if arg.Index > 5 {
			return fmt.Errorf("argument %d: a system call has six", arg.Index)
		}
		if _, err := r.compare(arg, 0); err != nil {
			return err
		}
		repeated = repeated || seen[arg.Index]
		seen[arg.Index] = true
	}
	if !repeated {
		v.rules = append(v.rules, r)
		return nil
	}
	for _, arg := range r.conditions {
		v.rules = append(v.rules, rule{[]specs.LinuxSeccompArg{arg}, r.action, r.narrow})
	}
	return nil
}

// merge joins neighbours with the same verdict.
func merge(segments []segment) []segment {
	out := segments[:1]
	for _, s := range segments[1:] {
		if !s.verdict.equal(out[len(out)-1].verdict) {
			out = append(out, s)
		}
	}
	return out
}

// search finds the segment of the number in A by halves.
func search(segments []segment) []bpf.Instruction {
	if len(segments) == 1 {
		return decide(segments[0].verdict)
	}
	mid := len(segments) / 2
	left, right := search(segments[:mid]), search(segments[mid:])
	if len(left) > 255 {
		code := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: segments[mid].from, SkipFalse: 1}, bpf.Jump{Skip: uint32(len(left))}}
		return append(append(code, left...), right...)
	}
	code := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: segments[mid].from, SkipTrue: uint8(len(left))}}
	return append(append(code, left...), right...)
}

// decide is a verdict's code; it always returns.
func decide(v verdict) []bpf.Instruction {
	var code []bpf.Instruction
	for _, r := range v.rules {
		code = append(code, r.code()...)
	}
	return append(code, bpf.RetConstant{Val: v.action})
}

// code returns the rule's action when all conditions hold and falls through behind itself otherwise.
func (r rule) code() []bpf.Instruction {
	code := []bpf.Instruction{bpf.RetConstant{Val: r.action}}
	for i := len(r.conditions) - 1; i >= 0; i-- {
		c, _ := r.compare(r.conditions[i], len(code))
		code = append(c, code...)
	}
	return code
}

// compare falls through when the condition holds, else jumps over itself and rest more instructions. Arguments have 64 bits, BPF words 32.
func (r rule) compare(arg specs.LinuxSeccompArg, rest int) ([]bpf.Instruction, error) {
	if r.narrow {
		return compareNarrow(arg, uint8(rest))
	}
	return compareWide(arg, uint8(rest))
}

// compareNarrow looks at the lower word only.
func compareNarrow(arg specs.LinuxSeccompArg, rest uint8) ([]bpf.Instruction, error) {
	load := bpf.LoadAbsolute{Off: uint32(offsetArgs + 8*arg.Index), Size: 4}
	test := func(cond bpf.JumpTest, val uint32) []bpf.Instruction {
		return []bpf.Instruction{load, bpf.JumpIf{Cond: cond, Val: val, SkipFalse: rest}}
	}
	lo := uint32(arg.Value)
	switch arg.Op {
	case specs.OpEqualTo:
		return test(bpf.JumpEqual, lo), nil
	case specs.OpNotEqual:
		return test(bpf.JumpNotEqual, lo), nil
	case specs.OpMaskedEqual:
		and := bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo}
		return []bpf.Instruction{load, and, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(arg.ValueTwo), SkipFalse: rest}}, nil
	case specs.OpGreaterThan:
		return test(bpf.JumpGreaterThan, lo), nil
	case specs.OpGreaterEqual:
		return test(bpf.JumpGreaterOrEqual, lo), nil
	case specs.OpLessThan:
		return test(bpf.JumpLessThan, lo), nil
	case specs.OpLessEqual:
		return test(bpf.JumpLessOrEqual, lo), nil
	}
	return nil, fmt.Errorf("operator %q is unknown", arg.Op)
}

func compareWide(arg specs.LinuxSeccompArg, r uint8) ([]bpf.Instruction, error) {
	low := bpf.LoadAbsolute{Off: uint32(offsetArgs + 8*arg.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	v, w := arg.Value, arg.ValueTwo
	hi, lo := uint32(v>>32), uint32(v)
	jump := func(cond bpf.JumpTest, val uint32, yes, no uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: cond, Val: val, SkipTrue: yes, SkipFalse: no}
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{high, jump(bpf.JumpEqual, hi, 0, r+2), low, jump(bpf.JumpEqual, lo, 0, r)}, nil
	case specs.OpNotEqual:
		return []bpf.Instruction{high, jump(bpf.JumpEqual, hi, 0, 2), low, jump(bpf.JumpEqual, lo, r, 0)}, nil
	case specs.OpMaskedEqual:
		return []bpf.Instruction{high, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: hi}, jump(bpf.JumpEqual, uint32(w>>32), 0, r+3),
			low, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo}, jump(bpf.JumpEqual, uint32(w), 0, r)}, nil
	case specs.OpGreaterThan:
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, hi, 3, 0), jump(bpf.JumpEqual, hi, 0, r+2), low, jump(bpf.JumpGreaterThan, lo, 0, r)}, nil
	case specs.OpGreaterEqual:
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, hi, 3, 0), jump(bpf.JumpEqual, hi, 0, r+2), low, jump(bpf.JumpGreaterOrEqual, lo, 0, r)}, nil
	case specs.OpLessThan:
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, hi, r+3, 0), jump(bpf.JumpEqual, hi, 0, 2), low, jump(bpf.JumpGreaterOrEqual, lo, r, 0)}, nil
	case specs.OpLessEqual:
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, hi, r+3, 0), jump(bpf.JumpEqual, hi, 0, 2), low, jump(bpf.JumpGreaterThan, lo, r, 0)}, nil
	}
	return nil, fmt.Errorf("operator %q is unknown", arg.Op)
}
