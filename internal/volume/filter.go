package volume

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	listFilters  = "dangling driver label name"
	pruneFilters = "all label label!"
)

// compile turns Docker's filters into one test: within a filter one value is enough (of labels, all are needed), all filters must agree.
// The test reads references, so it needs Service.mu.
func compile(filters map[string]map[string]bool, known string) (func(*entry) bool, error) {
	for key := range filters {
		if !strings.Contains(" "+known+" ", " "+key+" ") {
			return nil, fmt.Errorf("invalid filter '%s': there are %s: %w", key, strings.ReplaceAll(known, " ", ", "), errdefs.ErrInvalidArgument)
		}
	}
	dangling, err := truth(filters, "dangling")
	if err != nil {
		return nil, err
	}
	called, err := patterns(filters["name"])
	if err != nil {
		return nil, err
	}
	return func(e *entry) bool {
		if len(filters["dangling"]) > 0 && dangling != (len(e.refs) == 0) {
			return false
		}
		for label := range filters["label"] {
			if !hasLabel(e.Labels, label) {
				return false
			}
		}
		for label := range filters["label!"] {
			if hasLabel(e.Labels, label) {
				return false
			}
		}
		return any1(filters["driver"], func(v string) bool { return v == e.driver() }) &&
			(len(called) == 0 || slices.ContainsFunc(called, func(p *regexp.Regexp) bool { return p.MatchString(e.Name) }))
	}, nil
}

// patterns compiles names to look for: regular expressions, as Docker's are.
func patterns(values map[string]bool) (out []*regexp.Regexp, err error) {
	for v := range values {
		p, err := regexp.Compile(v)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'name=%s': %v: %w", v, err, errdefs.ErrInvalidArgument)
		}
		out = append(out, p)
	}
	return out, nil
}

func any1(values map[string]bool, ok func(string) bool) bool {
	for v := range values {
		if ok(v) {
			return true
		}
	}
	return len(values) == 0
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	has, ok := labels[key]
	return ok && (!exact || has == value)
}

// truth reads a filter that says yes or no; false where it is not given.
func truth(filters map[string]map[string]bool, key string) (bool, error) {
	values := filters[key]
	yes := false
	for v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil || len(values) > 1 {
			return false, fmt.Errorf("invalid filter '%s=%s': write true or false: %w", key, v, errdefs.ErrInvalidArgument)
		}
		yes = b
	}
	return yes, nil
}
