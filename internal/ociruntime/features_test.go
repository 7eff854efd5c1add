package ociruntime

import (
	"slices"
	"strings"
	"testing"
)

// specified are the options that runtime-spec 1.3 names for Linux (config.md, "Linux mount options").
const specified = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec noiversion nolazytime
	nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec
	rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared
	silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap`

// TestFeaturesAreKnown: what is listed is understood, and all that is specified is listed.
func TestFeaturesAreKnown(t *testing.T) {
	known := KnownFeatures()
	for _, option := range strings.Fields(specified) {
		if !slices.Contains(known.MountOptions, option) {
			t.Errorf("%s is not among the mount options", option)
		}
	}
	for i, option := range known.MountOptions {
		o := parseMountOptions([]string{option})
		if len(o.data) > 0 && !slices.Contains(filesystemFlags(), option) {
			t.Errorf("%s is left to the file system", option)
		}
		if i > 0 && known.MountOptions[i-1] == option {
			t.Errorf("%s is listed twice", option)
		}
	}
	for _, list := range [][]string{known.MountOptions, known.Namespaces, known.MemoryModes, known.MemoryFlags} {
		if !slices.IsSorted(list) || len(list) == 0 {
			t.Errorf("%q is not sorted", list)
		}
	}
}
