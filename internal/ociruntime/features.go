package ociruntime

import (
	"sort"

	"golang.org/x/sys/unix"
)

// Features are the words of a configuration that this package knows.
type Features struct{ Capabilities, MountOptions, Namespaces []string }

// KnownFeatures lists them, sorted.
func KnownFeatures() Features {
	f := Features{Capabilities: append([]string{}, capabilityNames[:]...), MountOptions: []string{"async", "bind", "defaults", "idmap", "rbind", "ridmap", "tmpcopyup"}}
	for name, flag := range mountFlags {
		f.MountOptions = append(f.MountOptions, name)
		if flag.set != 0 && flag.set&unix.MOUNT_ATTR__ATIME == 0 && flag.clear == 0 {
			f.MountOptions = append(f.MountOptions, "r"+name)
		}
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
