package compare

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/layer"
)

// state is what there is under a name.
type state struct {
	kind     layer.Kind
	mode     uint32
	uid, gid uint32
	size     int64 // of a regular file
	device   uint64
	target   string
	sum      [sha256.Size]byte
	ground   bool // it is the ground's: the sum is not known yet
	implicit bool // a directory that no layer names, only files in it
}

func (s *state) isDir() bool { return s.kind == layer.Directory }

// node is a name in the layers above the ground.
type node struct {
	own      *state // nil: the layers leave it as it is, but for what is below
	gone     bool   // there is nothing under this name but own
	opaque   bool   // of a directory: the ground's part of it is hidden
	children map[string]*node
}

// hidden has nothing, and the ground is hidden.
func hidden() *node { return &node{opaque: true} }

func (n *node) below() map[string]*node {
	if n == nil {
		return nil
	}
	return n.children
}

func (n *node) child(name string) *node { return n.below()[name] }

func (n *node) hidesGround() bool { return n != nil && n.opaque }

// hiding is the node with the ground hidden: it lies in a directory that hides its own.
func (n *node) hiding() *node {
	if n == nil {
		return hidden()
	}
	if n.opaque {
		return n
	}
	c := *n
	c.opaque = true
	return &c
}

// state is what an image has under a name in a directory; ground is what lies below its layers there.
func (n *node) state(name string, ground *state) *state {
	if n.hidesGround() {
		ground = nil
	}
	c := n.child(name)
	switch {
	case c == nil:
		return ground
	case c.own != nil && c.own.implicit && ground != nil && ground.isDir() && !c.gone:
		return ground
	case c.own != nil:
		return c.own
	case c.gone:
		return nil
	}
	return ground
}

// merge puts a layer onto those below it.
func (n *node) merge(over *node) {
	if over.gone {
		*n = node{gone: true}
	}
	if over.opaque {
		n.children, n.opaque = nil, true
	}
	switch own := over.own; {
	case own == nil:
	case !own.isDir():
		*n = node{own: own, gone: true}
	default:
		replaced := n.gone && (n.own == nil || !n.own.isDir())
		if replaced { // what was below lies under something else
			n.children, n.opaque = nil, true
		}
		if n.own == nil || !n.own.isDir() || !own.implicit {
			n.own = own
		}
	}
	for name, c := range over.children {
		if n.children == nil {
			n.children = map[string]*node{}
		}
		mine := n.children[name]
		if mine == nil {
			mine = &node{}
			n.children[name] = mine
		}
		mine.merge(c)
	}
}

// sink is one layer as a tree.
type sink struct {
	root *node
	left *int // files that there may be
}

// Add takes the layer's next entry.
func (s *sink) Add(e *layer.Entry, body io.Reader) error {
	if *s.left--; *s.left < 0 {
		return fmt.Errorf("the layers that differ have more than %d files, too many to compare: %w", maxFiles, errdefs.ErrInvalidArgument)
	}
	n, err := s.at(e.Path, 0)
	if err != nil {
		return err
	}
	switch e.Kind {
	case layer.Whiteout:
		n.gone = true
		return nil
	case layer.Opaque:
		n.opaque = true
		return nil
	case layer.Hardlink:
		to, err := s.at(e.Target, 0)
		if err != nil {
			return err
		}
		n.own, n.children = to.own, nil
		return nil
	}
	own := &state{kind: e.Kind, mode: e.Mode, uid: e.UID, gid: e.GID, target: e.Target, device: uint64(e.Major)<<32 | uint64(e.Minor)}
	if e.Kind == layer.File {
		h := sha256.New()
		if own.size, err = io.Copy(h, body); err != nil {
			return err
		}
		h.Sum(own.sum[:0])
	}
	if e.Kind == layer.Symlink {
		own.mode = 0 // links have none
	}
	if !own.isDir() {
		n.children, n.opaque = nil, false
	}
	n.own = own
	return nil
}

// at finds or makes a path of the layer; parents that are links of the layer are followed, within it.
func (s *sink) at(p string, links int) (*node, error) {
	n := s.root
	rest := p
	done := ""
	for rest != "" {
		name, after, more := strings.Cut(rest, "/")
		if n.own == nil && n != s.root {
			n.own = &state{kind: layer.Directory, mode: 0o755, implicit: true}
		}
		if n.own != nil && n.own.kind == layer.Symlink {
			if links > 40 {
				return nil, fmt.Errorf("%s leads through too many links: %w", p, errdefs.ErrInvalidArgument)
			}
			to := n.own.target
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(done), to)
			}
			return s.at(strings.TrimPrefix(path.Join("/", to, rest), "/"), links+1)
		}
		c := n.children[name]
		if c == nil {
			c = &node{}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[name] = c
			if more {
				if *s.left--; *s.left < 0 {
					return nil, fmt.Errorf("the layers that differ have more than %d files, too many to compare: %w", maxFiles, errdefs.ErrInvalidArgument)
				}
			}
		}
		done = path.Join(done, name)
		n, rest = c, after
	}
	return n, nil
}
