package ociruntime

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// attributeChange is what an option sets and clears of a mount's attributes.
type attributeChange struct{ set, clear uint64 }

// mountFlags are the options of runtime-spec's mounts that become attributes of the mount; with an "r" before them, of all mounts of its
// tree. Of those about access times the kernel knows three values, and relatime where none is named.
var mountFlags = map[string]attributeChange{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"noatime": {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME}, "atime": {clear: unix.MOUNT_ATTR__ATIME},
	"relatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME}, "norelatime": {clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}, "nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// plainOptions say what is so in any case: what the kernel does by itself (file systems that count versions always do, or never), and what
// would be said to its log.
func plainOptions() []string {
	return []string{"defaults", "async", "nolazytime", "nomand", "iversion", "noiversion", "silent", "loud", "acl", "noacl"}
}

// commandOptions mean something to the mount command only.
func commandOptions() []string {
	return []string{"", "auto", "noauto", "nofail", "nouser", "nousers", "nogroup", "noowner", "_netdev"}
}

// filesystemFlags go to a new file system as a whole, whatever its type; a bind mount's has its own.
func filesystemFlags() []string { return []string{"sync", "dirsync", "lazytime", "mand"} }

// mountOptions are a mount's options, sorted by what they mean.
type mountOptions struct {
	attributeChange
	tree          attributeChange // for the whole tree of mounts ("rro", …)
	bind, rbind   bool
	remount       bool
	copyUp        bool
	propagation   uintptr
	data          []string // for the file system itself
	idmap, ridmap bool
	mappings      string // crun's, of the idmap option
	links         linkOptions
	source        string // what the mount table calls it; empty: as its type
}

func parseMountOptions(list []string) mountOptions {
	var o mountOptions
	for _, text := range list {
		if strings.Contains(text, "\"") || strings.Contains(text, "\\") { // a value with commas of its own
			o.data = append(o.data, text)
			continue
		}
		for _, opt := range strings.Split(text, ",") {
			o.parse(opt)
		}
	}
	return o
}

func (o *mountOptions) parse(opt string) {
	if f, ok := mountFlags[opt]; ok {
		o.change(f)
		return
	}
	if f, ok := mountFlags[strings.TrimPrefix(opt, "r")]; ok && strings.HasPrefix(opt, "r") {
		o.tree.change(f)
		return
	}
	if p, ok := propagations[opt]; ok {
		o.propagation = p
		return
	}
	name, value, _ := strings.Cut(opt, "=")
	switch name {
	case "copy-symlink":
		o.links.copyLink = true
	case "src-nofollow":
		o.links.sourceLink = true
	case "dest-nofollow":
		o.links.targetLink = true
	case "bind":
		o.bind = true
	case "rbind":
		o.rbind = true
	case "remount":
		o.remount = true
	case "tmpcopyup":
		o.copyUp = true
	case "idmap":
		o.idmap, o.mappings = true, value
	case "ridmap":
		o.ridmap, o.mappings = true, value
	default:
		if !slices.Contains(plainOptions(), opt) && !slices.Contains(commandOptions(), opt) {
			o.data = append(o.data, opt)
		}
	}
}

// change adds a later option to earlier ones.
func (c *attributeChange) change(f attributeChange) {
	c.set, c.clear = c.set&^f.clear|f.set, c.clear&^f.set|f.clear
}

// said is what the options of a bind change: without any, nothing; one at all says what its source's other flags are as well, as with the
// mount command and other runtimes. In a user namespace, where the kernel locks those that take something away, only what they name.
func (o mountOptions) said(all bool) attributeChange {
	c := o.attributeChange
	if c.empty() {
		return c
	}
	rest := uint64(unix.MOUNT_ATTR_NOSYMFOLLOW)
	if all {
		rest |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	}
	c.clear |= rest &^ c.set
	return c
}

func (c attributeChange) empty() bool { return c.set|c.clear == 0 }

// on is what becomes of a mount's attributes.
func (c attributeChange) on(flags int) int { return int(uint64(flags)&^c.clear | c.set) }

func isBind(kind string, o mountOptions) bool { return o.bind || o.rbind || kind == "bind" }
