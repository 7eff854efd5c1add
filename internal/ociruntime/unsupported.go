package ociruntime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unsupported lists what a configuration asks for and this runtime does not do; none of it is met in what the engine writes. What would
// leave a container less confined than asked for is an error.
func unsupported(s *specs.Spec) (warnings []string) {
	l := s.Linux
	for _, row := range []struct {
		asked bool
		name  string
	}{
		{l.IntelRdt != nil, "linux.intelRdt"},
	} {
		if row.asked {
			warnings = append(warnings, row.name+" is not supported and has no effect")
		}
	}
	warnings = append(warnings, capabilityWarnings(s.Process.Capabilities)...)
	if l.MountLabel != "" && !SELinux() {
		warnings = append(warnings, "linux.mountLabel has no effect: SELinux is not in force here (no /sys/fs/selinux)")
	}
	return warnings
}
