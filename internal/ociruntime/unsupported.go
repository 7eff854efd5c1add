package ociruntime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unsupported lists what a configuration asks for and cannot be had here.
func unsupported(s *specs.Spec) (warnings []string) {
	l := s.Linux
	warnings = append(warnings, capabilityWarnings(s.Process.Capabilities)...)
	if l.MountLabel != "" && !SELinux() {
		warnings = append(warnings, "linux.mountLabel has no effect: SELinux is not in force here (no /sys/fs/selinux)")
	}
	return warnings
}
