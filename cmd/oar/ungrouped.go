package main

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/ociruntime"
)

// What a control group may lack that was made by who may not make all of it.
const (
	onlyUnified = "cgroup2" // it is in the cgroup2 tree alone
	noGroup     = "none"    // there is none
)

// openGroup is the container's control group: known where this process made it, else found among the host's hierarchies.
func (c *record) openGroup() (*cgroup.Group, error) {
	if c.group != nil {
		return c.group, nil
	}
	switch c.Delegated {
	case noGroup:
		return cgroup.None(), nil
	case onlyUnified:
		return cgroup.OpenUnified(c.Cgroup)
	}
	return cgroup.Open(c.Cgroup)
}

// noteGroup writes down what was made.
func noteGroup(c *record, g *cgroup.Group) {
	switch {
	case !cgroup.Exists(g):
		c.Delegated = noGroup
	case cgroup.Unified(g):
		c.Delegated = onlyUnified
	}
	c.Cgroup = g.Path()
}

// needGroup is the control group for a command that is nothing without.
func needGroup(c *record, what string) (*cgroup.Group, error) {
	g, err := c.openGroup()
	if err == nil && !cgroup.Exists(g) {
		err = fmt.Errorf("cannot %s container %s: it has no control group, as its user was permitted none when it was made (a service manager delegates "+
			"one: systemd-run --user --scope -p Delegate=yes …)", what, c.ID)
	}
	return g, err
}

// processesOf lists those of the container: its control group's, or without one those of a namespace of its own.
func processesOf(c *record) ([]int, error) {
	g, err := c.openGroup()
	if err != nil {
		return nil, err
	}
	if cgroup.Exists(g) {
		return g.Procs()
	}
	pidfd, alive := c.process()
	if !alive {
		return nil, nil
	}
	defer pidfd.Close()
	kind := ownNamespace(c)
	if kind == "" {
		return []int{c.Pid}, nil
	}
	pids, err := ociruntime.InNamespace(kind, c.Pid)
	if err != nil { // its first process is ending and shows its namespaces no more
		return []int{c.Pid}, nil
	}
	return pids, nil
}

// ownNamespace is a kind of namespace that only the container's processes are in, as procfs names it; "" where it has none. One that is
// joined has others' processes too.
func ownNamespace(c *record) string {
	if c.spec.Linux == nil {
		return ""
	}
	for _, row := range []struct {
		kind specs.LinuxNamespaceType
		file string
	}{{specs.PIDNamespace, "pid"}, {specs.MountNamespace, "mnt"}} {
		if slices.Contains(c.spec.Linux.Namespaces, specs.LinuxNamespace{Type: row.kind}) {
			return row.file
		}
	}
	return ""
}
