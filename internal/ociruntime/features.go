package ociruntime

import (
	"maps"
	"slices"
	"sort"
)

// Features are the words of a configuration that this package knows.
type Features struct{ Capabilities, MountOptions, Namespaces, MemoryModes, MemoryFlags, Annotations []string }

// KnownFeatures lists them, sorted.
func KnownFeatures() Features {
	f := Features{Capabilities: append([]string{}, capabilityNames[:]...), MountOptions: []string{"bind", "copy-symlink", "dest-nofollow", "idmap", "rbind", "remount", "ridmap", "src-nofollow", "tmpcopyup"}}
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
	f.MemoryModes, f.MemoryFlags = words(memoryModes()), words(memoryFlags())
	f.Annotations = []string{NoSuidAnnotation, LowPortsAnnotation}
	sort.Strings(f.MountOptions)
	sort.Strings(f.Namespaces)
	return f
}

// words are the keys of a table, sorted.
func words[K ~string, V any](table map[K]V) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(table)) {
		out = append(out, string(k))
	}
	return out
}
