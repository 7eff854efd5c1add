package spec

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Edits are what devices that vendors describe add to a container (package cdi). They are the host's own, written by root: a hook runs as the
// description says, and a mount's source is a path of the host.
type Edits struct {
	Devices    []specs.LinuxDevice
	Rules      []specs.LinuxDeviceCgroup
	Env        []string // wins over the user's
	Groups     []uint32
	Mounts     []specs.Mount
	Hooks      *specs.Hooks
	NetDevices map[string]specs.LinuxNetDevice
	Rdt        *specs.LinuxIntelRdt
}

// edit lays the edits over the configuration, but for mounts and rules of devices, which have their place among others.
func (e *Edits) edit(s *specs.Spec) {
	for _, d := range e.Devices {
		s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(x specs.LinuxDevice) bool { return x.Path == d.Path })
	}
	s.Linux.Devices = slices.Concat(s.Linux.Devices, e.Devices)
	for _, g := range e.Groups {
		if !slices.Contains(s.Process.User.AdditionalGids, g) {
			s.Process.User.AdditionalGids = append(slices.Clip(s.Process.User.AdditionalGids), g)
		}
	}
	s.Hooks, s.Linux.NetDevices, s.Linux.IntelRdt = e.Hooks, e.NetDevices, e.Rdt
}

// editMounts puts the edits' mounts among the others: in the place of one that is at the same path, and parents before children.
func (b *builder) editMounts(list []specs.Mount) []specs.Mount {
	if len(b.in.Edits.Mounts) == 0 {
		return list
	}
	for _, m := range b.in.Edits.Mounts {
		list = slices.DeleteFunc(list, func(x specs.Mount) bool { return x.Destination == m.Destination })
		isBind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if isBind || m.Type == "" {
			m.Type = "bind"
			if !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
				m.Options = append(slices.Clone(m.Options), "rbind")
			}
			m = b.mapped(m)
		}
		list = append(list, m)
	}
	depth := func(m specs.Mount) int { return strings.Count(path.Clean(m.Destination), "/") }
	slices.SortStableFunc(list, func(x, y specs.Mount) int { return depth(x) - depth(y) })
	return list
}
