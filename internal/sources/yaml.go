package sources

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

const (
	maxDepth  = 200  // of nesting, and of aliases that lead to aliases
	maxMerges = 1000 // of mappings into one
)

// yamlDocument is a YAML document, read without being expanded: aliases are followed where somebody goes, so that no file grows by them.
type yamlDocument struct {
	root    ast.Node
	anchors map[string]ast.Node
}

func parseYAML(text []byte) ([]yamlDocument, error) {
	if err := checkNesting(text); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, oneLine(err)
	}
	var out []yamlDocument
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		d := yamlDocument{root: doc.Body, anchors: map[string]ast.Node{}}
		ast.Walk(anchorsOf(d.anchors), doc.Body)
		out = append(out, d)
	}
	return out, nil
}

// oneLine takes the excerpt off an error of the parser, which writes places as [line:column].
func oneLine(err error) error {
	first, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	if at, what, ok := strings.Cut(strings.TrimPrefix(first, "["), "] "); ok {
		line, _, _ := strings.Cut(at, ":")
		return fmt.Errorf("line %s: %s", line, what)
	}
	return errors.New(first)
}

// checkNesting keeps a file of brackets from using up the stack of the parser.
func checkNesting(text []byte) error {
	depth := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		}
		if depth > maxDepth {
			return errors.New("brackets are nested too deep")
		}
	}
	return nil
}

type anchorsOf map[string]ast.Node

func (a anchorsOf) Visit(n ast.Node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok && anchor.Name != nil {
		a[anchor.Name.GetToken().Value] = anchor.Value
	}
	return a
}

// plain follows anchors, aliases and tags to what they stand for; nil where that is nothing.
func (d yamlDocument) plain(n ast.Node) ast.Node {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			if v.Value == nil {
				return nil
			}
			n = d.anchors[v.Value.GetToken().Value]
		case *ast.TagNode:
			n = v.Value
		case *ast.NullNode, nil:
			return nil
		default:
			return n
		}
	}
	return nil
}

// pair is an entry of a mapping.
type pair struct {
	key   string
	value ast.Node
}

// pairs are a mapping's entries, with those that it merges in (<<) where it has none of its own.
func (d yamlDocument) pairs(n ast.Node) []pair {
	left := maxMerges
	return d.pairsWithin(n, &left)
}

func (d yamlDocument) pairsWithin(n ast.Node, left *int) []pair {
	if *left--; *left < 0 {
		return nil
	}
	var values []*ast.MappingValueNode
	switch v := d.plain(n).(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	}
	var out, merged []pair
	seen := map[string]bool{}
	for _, v := range values {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			sources := []ast.Node{v.Value}
			if list, ok := d.plain(v.Value).(*ast.SequenceNode); ok {
				sources = list.Values
			}
			for _, s := range sources {
				merged = append(merged, d.pairsWithin(s, left)...)
			}
			continue
		}
		key, _ := d.scalar(v.Key)
		seen[key] = true
		out = append(out, pair{key, v.Value})
	}
	for _, p := range merged {
		if !seen[p.key] {
			seen[p.key] = true
			out = append(out, p)
		}
	}
	return out
}

// get is a mapping's value, nil where it has none.
func (d yamlDocument) get(n ast.Node, key string) ast.Node {
	for _, p := range d.pairs(n) {
		if p.key == key {
			return d.plain(p.value)
		}
	}
	return nil
}

// list is a sequence's entries, or the one value that stands in for it.
func (d yamlDocument) list(n ast.Node) []ast.Node {
	switch v := d.plain(n).(type) {
	case nil:
		return nil
	case *ast.SequenceNode:
		return v.Values
	default:
		return []ast.Node{v}
	}
}

// scalar is a value as text.
func (d yamlDocument) scalar(n ast.Node) (string, bool) {
	switch v := d.plain(n).(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case ast.ScalarNode:
		return fmt.Sprint(v.GetValue()), true
	}
	return "", false
}

func line(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return n.GetToken().Position.Line
}
