package contract

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// route is a path of the specification.
type route struct {
	path    string
	match   *regexp.Regexp
	methods map[string]any // operations by lower-case method
	common  []any          // parameters of all of them
}

// index makes the routes of the tree's paths, those with fewer placeholders first.
func (f *file) index() error {
	paths, ok := f.tree["paths"].(map[string]any)
	if !ok {
		return fmt.Errorf("it has no paths")
	}
	for path, v := range paths {
		item, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("path %s is no object", path)
		}
		r := route{path: path, methods: map[string]any{}}
		for key, operation := range item {
			if key == "parameters" {
				r.common = list(operation)
				continue
			}
			r.methods[key] = operation
		}
		var err error
		if r.match, err = regexp.Compile(pattern(path)); err != nil {
			return err
		}
		f.routes = append(f.routes, r)
	}
	slices.SortFunc(f.routes, func(a, b route) int {
		if d := strings.Count(a.path, "{") - strings.Count(b.path, "{"); d != 0 {
			return d
		}
		return strings.Compare(a.path, b.path)
	})
	return nil
}

// pattern is a path as a regular expression; names of images, plugins and networks hold slashes.
func pattern(path string) string {
	one := "[^/]+"
	for _, prefix := range []string{"/images/", "/distribution/", "/plugins/", "/networks/"} {
		if strings.HasPrefix(path, prefix) {
			one = ".+"
		}
	}
	var out strings.Builder
	out.WriteString("^")
	for path != "" {
		before, rest, found := strings.Cut(path, "{")
		out.WriteString(regexp.QuoteMeta(before))
		if !found {
			break
		}
		_, path, _ = strings.Cut(rest, "}")
		out.WriteString(one)
	}
	return out.String() + "$"
}

// find is the operation of a request; HEAD is served wherever GET is.
func (f *file) find(method, path string) (r route, operation map[string]any, ok bool) {
	method = strings.ToLower(method)
	for _, r := range f.routes {
		if !r.match.MatchString(path) {
			continue
		}
		if op, ok := r.methods[method].(map[string]any); ok {
			return r, op, true
		}
	}
	return r, nil, false
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func truth(v any) bool {
	b, _ := v.(bool)
	return b
}
