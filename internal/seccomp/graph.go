package seccomp

import (
	"math"
	"slices"

	"golang.org/x/net/bpf"
)

// node is a place in a filter: a return, a step to the next node, or a branch to one of two.
type node struct {
	ins     bpf.Instruction // of a return or a step; nil: a branch
	test    bpf.JumpTest
	value   uint32
	yes, no *node // a step goes on at no
}

// graph has each node once: what is the same at two places of a filter stands in it once, as far as jumps reach. The kernel's work for a filter,
// at each start, grows with its length.
type graph struct{ known map[node]*node }

func newGraph() *graph { return &graph{known: map[node]*node{}} }

func (g *graph) one(n node) *node {
	if g.known[n] == nil {
		g.known[n] = &n
	}
	return g.known[n]
}

func (g *graph) ret(action uint32) *node { return g.one(node{ins: bpf.RetConstant{Val: action}}) }

func (g *graph) step(ins bpf.Instruction, next *node) *node { return g.one(node{ins: ins, no: next}) }

// branch goes to yes where the number in A stands the test.
func (g *graph) branch(test bpf.JumpTest, value uint32, yes, no *node) *node {
	if yes == no {
		return yes
	}
	return g.one(node{test: test, value: value, yes: yes, no: no})
}

// layout puts nodes in order, from the last to the first: all jumps lead forward.
type layout struct {
	code []bpf.Instruction // the last first
	at   map[*node]int     // where the node stands in code: the place that is nearest to the beginning
}

// linear is the program that begins with a node.
func linear(first *node) []bpf.Instruction {
	l := &layout{at: map[*node]int{}}
	l.put(first)
	slices.Reverse(l.code)
	return l.code
}

func (l *layout) add(n *node, ins bpf.Instruction) {
	l.at[n] = len(l.code)
	l.code = append(l.code, ins)
}

// put sees to it that a node stands in the program.
func (l *layout) put(n *node) {
	if _, ok := l.at[n]; ok {
		return
	}
	switch {
	case n.ins == nil:
		l.put(n.yes)
		l.put(n.no)
		// A branch reaches 255 instructions far; the first of the two may be moved away by what the second needs.
		for range 2 {
			l.bring(n.yes, math.MaxUint8)
			l.bring(n.no, math.MaxUint8)
		}
		l.add(n, bpf.JumpIf{Cond: n.test, Val: n.value, SkipTrue: uint8(l.skip(n.yes)), SkipFalse: uint8(l.skip(n.no))})
	case n.no == nil:
		l.add(n, n.ins)
	default:
		l.put(n.no)
		l.bring(n.no, 0)
		l.add(n, n.ins)
	}
}

// skip is how many instructions lie between a node and the one that is put next.
func (l *layout) skip(n *node) int { return len(l.code) - 1 - l.at[n] }

// bring makes a node reachable for the next instruction, which can skip so many: by a jump, or by a second return.
func (l *layout) bring(n *node, reach int) {
	switch {
	case l.skip(n) <= reach:
	case n.ins != nil && n.no == nil:
		l.add(n, n.ins)
	default:
		l.add(n, bpf.Jump{Skip: uint32(l.skip(n))})
	}
}
