package ociruntime

import (
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unsupported lists what a configuration asks for and this runtime does not do; none of it is met in what the engine writes. What would
// leave a container less confined than asked for is an error.
func unsupported(s *specs.Spec) (warnings []string, err error) {
	p, l := s.Process, s.Linux
	for _, row := range []struct {
		asked bool
		name  string
	}{
		{l.IntelRdt != nil, "linux.intelRdt"},
		{l.MountLabel != "", "linux.mountLabel"},
	} {
		if row.asked {
			warnings = append(warnings, row.name+" is not supported and has no effect")
		}
	}
	warnings = append(warnings, capabilityWarnings(p.Capabilities)...)
	if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
		return warnings, errors.New("process.apparmorProfile: this runtime applies no AppArmor profiles; leave it out to go on without")
	}
	if p.SelinuxLabel != "" {
		return warnings, errors.New("process.selinuxLabel: this runtime applies no SELinux labels; leave it out to go on without")
	}
	return warnings, nil
}
