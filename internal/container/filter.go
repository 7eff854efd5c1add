package container

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/spec"
)

// filter chooses containers: all tests have to pass.
type filter struct {
	tests []func(candidate) bool
	all   bool // also those that do not run
}

type candidate struct {
	c      *Container
	r      *Record
	health *container.Health
}

func (f *filter) matches(k candidate) bool {
	return !slices.ContainsFunc(f.tests, func(test func(candidate) bool) bool { return !test(k) })
}

// filter reads Docker's filters. Several values of one filter are alternatives, but for labels, which all have to be there.
func (s listing) filter(ctx context.Context, filters map[string]map[string]bool) (*filter, error) {
	f := &filter{}
	for name, set := range filters {
		values := make([]string, 0, len(set))
		for v := range set {
			values = append(values, v)
		}
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		tests, err := s.filterTests(ctx, name, values)
		if err != nil {
			return nil, err
		}
		f.tests = append(f.tests, tests...)
		f.all = f.all || name == "status"
	}
	return f, nil
}

func (s listing) filterTests(ctx context.Context, name string, values []string) ([]func(candidate) bool, error) {
	switch name {
	case "id", "name":
		return matchText(name, values)
	case "label":
		return []func(candidate) bool{func(k candidate) bool { return hasLabels(k.r.Config.Labels, values) }}, nil
	case "annotation":
		return []func(candidate) bool{func(k candidate) bool { return hasLabels(k.r.HostConfig.Annotations, values) }}, nil
	case "status", "health", "is-task":
		return matchWord(name, values)
	case "exited":
		return matchExit(values)
	case "ancestor":
		return s.matchAncestor(ctx, values), nil
	case "before", "since":
		return s.matchAge(name, values)
	case "volume":
		return []func(candidate) bool{func(k candidate) bool { return hasVolume(k.r, values) }}, nil
	case "network":
		return []func(candidate) bool{func(k candidate) bool { return s.hasNetwork(ctx, k.r, values) }}, nil
	case "publish", "expose":
		return s.matchPorts(name, values)
	case "isolation":
		return []func(candidate) bool{func(k candidate) bool {
			return slices.Contains(values, "default") || slices.Contains(values, string(k.r.HostConfig.Isolation))
		}}, nil
	}
	known := []string{"ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume"}
	return nil, invalid("invalid filter '%s': %s", name, spec.Suggest(name, known))
}

func matchText(name string, values []string) ([]func(candidate) bool, error) {
	var patterns []*regexp.Regexp
	for _, v := range values {
		p, err := regexp.Compile(v)
		if err != nil {
			return nil, invalid("invalid filter '%s=%s': %v", name, v, err)
		}
		patterns = append(patterns, p)
	}
	return []func(candidate) bool{func(k candidate) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool {
			if name == "id" {
				return p.MatchString(k.r.ID)
			}
			return p.MatchString(k.r.Name) || p.MatchString("/"+k.r.Name)
		})
	}}, nil
}

// hasLabels wants every KEY or KEY=VALUE.
func hasLabels(labels map[string]string, wanted []string) bool {
	for _, w := range wanted {
		key, value, exact := strings.Cut(w, "=")
		have, ok := labels[key]
		if !ok || exact && have != value {
			return false
		}
	}
	return true
}

func matchWord(name string, values []string) ([]func(candidate) bool, error) {
	var known []string
	word := func(k candidate) string { return string(k.r.Status) }
	switch name {
	case "status":
		known = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}
	case "health":
		known = []string{"none", "starting", "healthy", "unhealthy"}
		word = func(k candidate) string {
			if k.health == nil {
				return "none"
			}
			return string(k.health.Status)
		}
	case "is-task": // of a swarm: no container is
		known = []string{"true", "false", "1", "0"}
		word = func(candidate) string { return "false" }
		for i, v := range values {
			if v == "0" {
				values[i] = "false"
			}
		}
	}
	for _, v := range values {
		if !slices.Contains(known, v) {
			return nil, invalid("invalid filter '%s=%s': use one of %s", name, v, strings.Join(known, ", "))
		}
	}
	return []func(candidate) bool{func(k candidate) bool { return slices.Contains(values, word(k)) }}, nil
}

func matchExit(values []string) ([]func(candidate) bool, error) {
	var codes []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalid("invalid filter 'exited=%s': an exit code is a number", v)
		}
		codes = append(codes, n)
	}
	return []func(candidate) bool{func(k candidate) bool {
		return !k.r.Status.Alive() && !k.r.StartedAt.IsZero() && slices.Contains(codes, k.r.ExitCode)
	}}, nil
}

// matchAncestor finds containers of an image, and of images that were made on top of it. An image that is not there has none.
func (s listing) matchAncestor(ctx context.Context, values []string) []func(candidate) bool {
	var bases []*image.Image
	var ids []digest.Digest
	for _, v := range values {
		if img, err := s.o.Images.Resolve(ctx, v, nil); err == nil {
			ids, bases = append(ids, img.ID), append(bases, img)
		}
	}
	return []func(candidate) bool{func(k candidate) bool {
		if slices.Contains(ids, k.r.Image.ID) || slices.Contains(values, k.r.Config.Image) {
			return true
		}
		return slices.ContainsFunc(bases, func(base *image.Image) bool { return isMadeOn(&k.r.Image, base) })
	}}
}

// isMadeOn says whether an image goes on where a base ends: with layers, or with steps that have none.
func isMadeOn(img, base *image.Image) bool {
	layers, steps := base.Config.RootFS.DiffIDs, base.Config.History
	mine, done := img.Config.RootFS.DiffIDs, img.Config.History
	if len(layers) == 0 || len(mine) < len(layers) || !slices.Equal(mine[:len(layers)], layers) {
		return false
	}
	return len(mine) > len(layers) || len(steps) > 0 && len(done) > len(steps) && slices.EqualFunc(done[:len(steps)], steps, sameStep)
}

func sameStep(a, b ocispec.History) bool {
	return a.CreatedBy == b.CreatedBy && a.Comment == b.Comment && a.EmptyLayer == b.EmptyLayer && (a.Created == b.Created || a.Created != nil && b.Created != nil && a.Created.Equal(*b.Created))
}

func (s listing) matchAge(name string, values []string) ([]func(candidate) bool, error) {
	var tests []func(candidate) bool
	for _, v := range values {
		c, err := s.index.find(v)
		if err != nil {
			return nil, err
		}
		at := c.record().Created
		if name == "before" {
			tests = append(tests, func(k candidate) bool { return k.r.Created.Before(at) })
		} else {
			tests = append(tests, func(k candidate) bool { return k.r.Created.After(at) })
		}
	}
	return tests, nil
}

func hasVolume(r *Record, values []string) bool {
	for _, m := range r.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if slices.Contains(values, name) || slices.Contains(values, m.Destination) {
			return true
		}
	}
	return false
}

func (s listing) hasNetwork(ctx context.Context, r *Record, values []string) bool {
	connected, _ := s.connections(r)
	for name, e := range connected {
		if slices.ContainsFunc(values, func(v string) bool { return v == name || v != "" && strings.HasPrefix(e.NetworkID, v) }) {
			return true
		}
	}
	return false
}

// matchPorts takes PORT, PORT-PORT, each with /PROTOCOL. As in Docker, publish means a port of the host that is published now, and expose one
// inside.
func (s listing) matchPorts(name string, values []string) ([]func(candidate) bool, error) {
	wanted := map[network.Port]bool{}
	for _, v := range values {
		r, err := network.ParsePortRange(v)
		if err != nil {
			return nil, invalid("invalid filter '%s=%s': %v", name, v, err)
		}
		for p := range r.All() {
			wanted[p] = true
		}
	}
	return []func(candidate) bool{func(k candidate) bool {
		has := map[network.Port]bool{}
		if name == "expose" {
			for p := range k.r.Config.ExposedPorts {
				has[p] = true
			}
		} else {
			_, ports := s.connections(k.r)
			for _, p := range portList(ports) {
				if out, ok := network.PortFrom(p.PublicPort, network.IPProtocol(p.Type)); ok && p.PublicPort != 0 {
					has[out] = true
				}
			}
		}
		for p := range has {
			if wanted[p] {
				return true
			}
		}
		return false
	}}, nil
}
