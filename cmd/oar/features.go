package main

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/seccomp"
	"wherry.dev/wherry/internal/version"
)

// printFeatures says what this runtime can do (runtime-spec, "Features").
func printFeatures(_ context.Context, f flags) error {
	if err := f.parseCount(0, 0); err != nil {
		return err
	}
	yes := true
	known := ociruntime.KnownFeatures()
	return printJSON(features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: known.MountOptions,
		Annotations:  map[string]string{"dev.wherry.oar.version": version.Version},
		// What an annotation of a configuration may change; callers that take them from strangers leave these out.
		PotentiallyUnsafeConfigAnnotations: append(known.Annotations, keepGroupsAnnotation, "org.systemd.property."),
		Linux: &features.Linux{
			Namespaces: known.Namespaces, Capabilities: known.Capabilities,
			Cgroup: &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp: &features.Seccomp{Enabled: &yes,
				Actions: []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
					"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
				Operators: []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"},
				Archs:     seccomp.Architectures(), KnownFlags: seccomp.KnownFlags(), SupportedFlags: seccomp.KnownFlags()},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: known.MemoryModes, Flags: known.MemoryFlags},
			NetDevices:      &features.NetDevices{Enabled: &yes},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
		},
	})
}
