package ociruntime

import "sort"

// Features are the words of a configuration that this package knows.
type Features struct{ Capabilities, MountOptions, Namespaces []string }

// KnownFeatures lists them, sorted.
func KnownFeatures() Features {
	f := Features{Capabilities: append([]string{}, capabilityNames[:]...), MountOptions: []string{"bind", "idmap", "rbind", "remount", "ridmap", "tmpcopyup"}}
	f.MountOptions = append(append(f.MountOptions, plainOptions()...), filesystemFlags()...)
	for name := range mountFlags {
		f.MountOptions = append(f.MountOptions, name, "r"+name)
	}
	for name := range propagations {
		f.MountOptions = append(f.MountOptions, name)
	}
	for name := range namespaceFlags {
		f.Namespaces = append(f.Namespaces, string(name))
	}
	sort.Strings(f.MountOptions)
	sort.Strings(f.Namespaces)
	return f
}
