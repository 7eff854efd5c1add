package seccomp

import (
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// decide is a verdict's code; it always returns.
func decide(g *graph, v verdict) *node {
	if list, ok := valuesOf(v); ok {
		return list.search(g)
	}
	n := g.ret(v.action)
	for _, r := range slices.Backward(v.rules) {
		yes, no := g.ret(r.action), n
		for _, c := range slices.Backward(r.conditions) {
			yes = r.compare(g, c, yes, no)
		}
		n = yes
	}
	return n
}

// compare goes to yes where the condition holds. Arguments have 64 bits, BPF words 32.
func (r rule) compare(g *graph, arg specs.LinuxSeccompArg, yes, no *node) *node {
	low := bpf.LoadAbsolute{Off: uint32(offsetArgs + 8*arg.Index), Size: 4}
	lo, hi := word(arg.Value), word(arg.Value>>32)
	if r.narrow { // what a register holds above is not looked at
		if arg.Op == specs.OpMaskedEqual {
			return g.step(low, g.step(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo}, g.branch(bpf.JumpEqual, word(arg.ValueTwo), yes, no)))
		}
		return g.step(low, g.branch(tests[arg.Op], lo, yes, no))
	}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	// above and below: where the upper words differ; level: where they do not.
	byHalves := func(above, below, level *node) *node {
		return g.step(high, g.branch(bpf.JumpGreaterThan, hi, above, g.branch(bpf.JumpEqual, hi, g.step(low, level), below)))
	}
	switch level := g.branch(tests[arg.Op], lo, yes, no); arg.Op {
	case specs.OpEqualTo:
		return g.step(high, g.branch(bpf.JumpEqual, hi, g.step(low, level), no))
	case specs.OpNotEqual:
		return g.step(high, g.branch(bpf.JumpEqual, hi, g.step(low, level), yes))
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		return byHalves(yes, no, level)
	case specs.OpLessThan, specs.OpLessEqual:
		return byHalves(no, yes, level)
	}
	masked := g.step(low, g.step(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo}, g.branch(bpf.JumpEqual, word(arg.ValueTwo), yes, no)))
	return g.step(high, g.step(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: hi}, g.branch(bpf.JumpEqual, word(arg.ValueTwo>>32), masked, no)))
}

func word(v uint64) uint32 { return uint32(v & math.MaxUint32) }

var tests = map[specs.LinuxSeccompOperator]bpf.JumpTest{specs.OpEqualTo: bpf.JumpEqual, specs.OpNotEqual: bpf.JumpNotEqual, specs.OpGreaterThan: bpf.JumpGreaterThan,
	specs.OpGreaterEqual: bpf.JumpGreaterOrEqual, specs.OpLessThan: bpf.JumpLessThan, specs.OpLessEqual: bpf.JumpLessOrEqual}

// values of one argument that all rules of a verdict ask about, as a list of allowed families of sockets does: they are searched by halves, where
// rule after rule would load the argument anew.
type values struct {
	index   uint
	narrow  bool
	action  uint32 // of those within
	outside uint32
	within  []interval // in order, apart from each other
}

type interval struct{ from, to uint64 }

// valuesOf a verdict, where it is about the values of one argument below 1<<32.
func valuesOf(v verdict) (out values, ok bool) {
	if len(v.rules) == 0 {
		return out, false
	}
	first := v.rules[0]
	out = values{index: first.conditions[0].Index, narrow: first.narrow, action: first.action, outside: v.action}
	for _, r := range v.rules {
		if len(r.conditions) != 1 || r.conditions[0].Index != out.index || r.action != out.action {
			return out, false
		}
		list, ok := out.holds(r.conditions[0])
		if !ok {
			return out, false
		}
		out.within = append(out.within, list...)
	}
	slices.SortFunc(out.within, func(a, b interval) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	joined := out.within[:1]
	for _, i := range out.within[1:] {
		if last := &joined[len(joined)-1]; last.to == math.MaxUint64 || i.from <= last.to+1 {
			last.to = max(last.to, i.to)
			continue
		}
		joined = append(joined, i)
	}
	out.within = joined
	return out, true
}

// holds says for which values a condition holds; false where it is none that intervals tell, or where they end above 32 bits.
func (v values) holds(arg specs.LinuxSeccompArg) (list []interval, ok bool) {
	last, at := uint64(math.MaxUint64), arg.Value
	if v.narrow {
		last, at = math.MaxUint32, uint64(word(at))
	}
	if at > math.MaxUint32 {
		return nil, false
	}
	below, above := interval{0, at - 1}, interval{at + 1, last}
	hasBelow, hasAbove := at > 0, at < last
	switch arg.Op {
	case specs.OpEqualTo:
		return []interval{{at, at}}, true
	case specs.OpGreaterEqual:
		return []interval{{at, last}}, true
	case specs.OpLessEqual:
		return []interval{{0, at}}, true
	case specs.OpMaskedEqual:
		return nil, false
	case specs.OpGreaterThan:
		hasBelow = false
	case specs.OpLessThan:
		hasAbove = false
	}
	if hasBelow {
		list = append(list, below)
	}
	if hasAbove {
		list = append(list, above)
	}
	return list, len(list) > 0
}

// search loads the argument and finds its interval.
func (v values) search(g *graph) *node {
	low := bpf.LoadAbsolute{Off: uint32(offsetArgs + 8*v.index), Size: 4}
	segments := []segment{{0, verdict{action: v.outside}}}
	add := func(from uint64, action uint32) {
		if from == 0 {
			segments = segments[:0]
		}
		if from <= math.MaxUint32 {
			segments = append(segments, segment{word(from), verdict{action: action}})
		}
	}
	beyond := v.outside // where the upper word is not 0
	for _, i := range v.within {
		add(i.from, v.action)
		if i.to == math.MaxUint64 {
			beyond = v.action
			continue
		}
		add(i.to+1, v.outside)
	}
	n := g.step(low, search(g, segments))
	if v.narrow {
		return n
	}
	return g.step(bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}, g.branch(bpf.JumpEqual, 0, n, g.ret(beyond)))
}
