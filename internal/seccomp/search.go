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
		if _, ok := tests[arg.Op]; !ok && arg.Op != specs.OpMaskedEqual {
			return fmt.Errorf("operator %q is unknown", arg.Op)
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
func search(g *graph, segments []segment) *node {
	if len(segments) == 1 {
		return decide(g, segments[0].verdict)
	}
	mid := len(segments) / 2
	return g.branch(bpf.JumpGreaterOrEqual, segments[mid].from, search(g, segments[mid:]), search(g, segments[:mid]))
}
