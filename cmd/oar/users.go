package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/sysprog"
)

// where says in which user namespace a bundle's container is made.
func (o *creation) where() (in sysprog.Inside, err error) {
	name := o.configuration()
	config, err := os.ReadFile(name)
	if err != nil {
		return in, err
	}
	spec, err := parseSpec(name, config)
	if err != nil {
		return in, err
	}
	users := userNamespace(spec)
	if users == nil {
		return in, errors.New("who is not root can make a container only in a user namespace, and config.json asks for none: add one to linux.namespaces, " +
			"and linux.uidMappings and gidMappings (`oar spec --rootless` writes them)")
	}
	if users.Path != "" {
		in.Join, err = os.Open(users.Path)
		return in, err
	}
	l := spec.Linux
	in.Uids, in.Gids = mappings(l.UIDMappings), mappings(l.GIDMappings)
	for name, list := range map[string][]sysprog.Mapping{"linux.uidMappings": in.Uids, "linux.gidMappings": in.Gids} {
		if !slices.ContainsFunc(list, func(m sysprog.Mapping) bool { return m.Inside == 0 && m.Count > 0 }) {
			return in, fmt.Errorf("%s must map the container's id 0: the runtime is root of that user namespace while it makes the container", name)
		}
	}
	if !onlyOwn(in.Uids, os.Geteuid()) || !onlyOwn(in.Gids, os.Getegid()) {
		in.Map = func(pid int) error { return mapFromOutside(pid, in.Uids, in.Gids) }
	}
	return in, nil
}

// userNamespace is the configuration's; nil without one.
func userNamespace(spec *specs.Spec) *specs.LinuxNamespace {
	if spec.Linux == nil {
		return nil
	}
	for i, n := range spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			return &spec.Linux.Namespaces[i]
		}
	}
	return nil
}

func mappings(list []specs.LinuxIDMapping) []sysprog.Mapping {
	out := make([]sysprog.Mapping, 0, len(list))
	for _, m := range list {
		out = append(out, sysprog.Mapping{Inside: m.ContainerID, Outside: m.HostID, Count: m.Size})
	}
	return out
}

// onlyOwn says that nobody but the user himself is mapped, which needs no help from outside.
func onlyOwn(list []sysprog.Mapping, id int) bool {
	return len(list) == 1 && list[0].Count == 1 && int(list[0].Outside) == id
}

// mapFromOutside has a process's ids mapped by those programs that may give a user his subordinate ones (newuidmap(1), newgidmap(1)).
func mapFromOutside(pid int, uids, gids []sysprog.Mapping) error {
	for _, row := range []struct {
		program, file string
		maps          []sysprog.Mapping
	}{{"newuidmap", "/etc/subuid", uids}, {"newgidmap", "/etc/subgid", gids}} {
		path, err := exec.LookPath(row.program)
		if err != nil {
			return fmt.Errorf("to map more ids than the user's own takes %s (Debian's package uidmap): %w", row.program, err)
		}
		args := []string{strconv.Itoa(pid)}
		for _, m := range row.maps {
			for _, n := range []uint32{m.Inside, m.Outside, m.Count} {
				args = append(args, strconv.FormatUint(uint64(n), 10))
			}
		}
		if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("map ids with %s: %w: %s; the ranges that this user may map stand in %s", row.program, err, bytes.TrimSpace(out), row.file)
		}
	}
	return nil
}

// within says in which user namespace further processes of a container are made: the one that its own was made in.
func within(c *record) (in sysprog.Inside, err error) {
	users := userNamespace(c.spec)
	if users == nil {
		return in, fmt.Errorf("container %s has no user namespace: it is another user's", c.ID)
	}
	own, err := os.Open("/proc/" + strconv.Itoa(c.Pid) + "/ns/user")
	if err != nil {
		return in, fmt.Errorf("the user namespace of container %s: %w", c.ID, err)
	}
	if users.Path != "" {
		in.Join = own
		return in, nil
	}
	defer own.Close()
	in.Join, err = sysprog.Parent(own)
	return in, err
}

// translate turns a configuration's ids of the host into those of the user namespace that this process is root of: in there each id has the
// number that it has in the container.
func translate(spec *specs.Spec, inside string) *specs.Spec {
	users := userNamespace(spec)
	if inside == "" || users == nil {
		return spec
	}
	l := spec.Linux
	if users.Path != "" { // this process has joined it
		l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
		l.UIDMappings, l.GIDMappings = nil, nil
		return spec
	}
	uids, gids := identity(l.UIDMappings), identity(l.GIDMappings)
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; slices.Equal(m.UIDMappings, l.UIDMappings) && slices.Equal(m.GIDMappings, l.GIDMappings) {
			m.UIDMappings, m.GIDMappings = uids, gids
		}
	}
	l.UIDMappings, l.GIDMappings = uids, gids
	return spec
}

// identity maps ids to themselves, in the ranges that they have: the kernel takes none that is two in the namespace above.
func identity(list []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.ContainerID, Size: m.Size})
	}
	return out
}
