package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// bindMount clones a host's file or directory; done says that there is nothing to attach.
func (l *layout) bindMount(a *attachment, m *specs.Mount, o mountOptions) (done bool, err error) {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(l.bundle, source)
	}
	if o.links.copyLink {
		if o.links.sourceLink || o.links.targetLink {
			return false, errors.New("copy-symlink goes together neither with src-nofollow nor with dest-nofollow")
		}
		if done, err := copySymlink(l, source, m.Destination); done || err != nil {
			return true, err
		}
	}
	stat := os.Stat
	if o.links.sourceLink {
		stat = os.Lstat
	}
	fi, err := stat(source)
	if err != nil {
		return false, fmt.Errorf("bind source: %w", err)
	}
	a.isDir = fi.IsDir()
	if a.propagation == 0 {
		a.propagation = slaveTree // as the rest of the container's mounts: the host's reach it, its own do not reach the host
	}
	if a.source, err = rootfs.Bind(source, rootfs.BindOptions{Recursive: o.rbind, NoFollow: o.links.sourceLink, Peers: true}); err != nil {
		return false, err
	}
	err = setAttributes(a.source, o.said(l.ns.user == nil), 0) // of the mount alone, also where its tree is cloned
	if errors.Is(err, unix.EPERM) && l.ns.user == nil {        // what the host's root has taken away stays away
		err = setAttributes(a.source, o.said(false), 0)
	}
	switch {
	case errors.Is(err, unix.EPERM) && o.clear != 0:
		return false, fmt.Errorf("%s is mounted on the host with less than the options ask for (suid, dev, exec or rw), which only the host's root may give: leave them out: %w", source, err)
	case err != nil:
		return false, fmt.Errorf("set attributes %#x of a mount of %s: %w", o.set, source, err)
	}
	return false, nil
}

// finishMount does to a mount what is done to mounts of all kinds: ids and the attributes of the tree.
func (l *layout) finishMount(a *attachment, m *specs.Mount, o mountOptions) error {
	if err := l.mapIDs(a, m, o); err != nil {
		return err
	}
	if a.source == nil || o.tree.empty() {
		return nil
	}
	return setAttributes(a.source, o.tree, unix.AT_RECURSIVE)
}

func setAttributes(mount *os.File, c attributeChange, at uint) error {
	if c.empty() {
		return nil
	}
	return unix.MountSetattr(descriptor(mount), "", unix.AT_EMPTY_PATH|at, &unix.MountAttr{Attr_set: c.set, Attr_clr: c.clear})
}

// mapIDs maps a mount's ids, where its mappings or its options ask for it. The options make it a must; mappings alone that are the
// container's own say how the mount is best made.
func (l *layout) mapIDs(a *attachment, m *specs.Mount, o mountOptions) error {
	asked := o.idmap || o.ridmap
	if o.mappings != "" {
		mapped := *m
		var err error
		if mapped.UIDMappings, mapped.GIDMappings, err = parseMappings(o.mappings, l.spec.Linux); err != nil {
			return err
		}
		m = &mapped
	}
	if !asked && len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		return nil
	}
	users, own, err := l.mappingOf(m)
	if err != nil {
		return err
	}
	if a.source == nil {
		return fmt.Errorf("idmap: a %s belongs to the container's namespaces and has no ids to map", a.fstype)
	}
	at := uint(unix.AT_EMPTY_PATH)
	if o.ridmap || !asked && own && o.rbind {
		at |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(descriptor(a.source), "", at, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(descriptor(users))})
	switch {
	case err == nil:
		return nil
	case asked || !own:
		return fmt.Errorf("map the ids of %s: %w: its file system, or one mounted below it, cannot do that or has its ids mapped already "+
			"(ext4, xfs, btrfs, f2fs, erofs, overlay and, from Linux 6.3, tmpfs can): leave out idmap and the mappings, or take another folder", m.Source, err)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM):
		l.warnUnmapped(a.source, m.Source, err)
		return nil
	}
	return fmt.Errorf("map the ids of %s: %w", m.Source, err)
}

// warnUnmapped says that a mount shows the host's ids, unless it was made for the container.
func (l *layout) warnUnmapped(mount *os.File, source string, why error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(descriptor(mount), &st); err != nil || l.ns.ids.Inside(int(st.Uid)) == unmapped {
		l.warnings = append(l.warnings, fmt.Sprintf("%s is mounted without mapping its ids: the file system cannot be id-mapped: %v", source, why))
	}
}

// unmapped is the id that a container sees of what is not in its range.
const unmapped = 65534

// mappingOf is a user namespace with a mount's mappings: the container's where there are none or they are the same.
func (l *layout) mappingOf(m *specs.Mount) (users *os.File, own bool, err error) {
	container := l.spec.Linux
	switch {
	case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
		return nil, false, errors.New("uidMappings and gidMappings go together")
	case len(m.UIDMappings) == 0 && l.ns.user == nil:
		return nil, false, errors.New("idmap: neither the mount nor the container says which ids to map (uidMappings and gidMappings, a user namespace)")
	case len(m.UIDMappings) == 0:
		return l.ns.user, true, nil
	case l.ns.user != nil && slices.Equal(m.UIDMappings, container.UIDMappings) && slices.Equal(m.GIDMappings, container.GIDMappings):
		return l.ns.user, true, nil
	}
	users, err = sysprog.UserNamespace(mappings(m.UIDMappings), mappings(m.GIDMappings))
	return l.held.keep(users), false, err
}

// remount changes a mount that an earlier line of the configuration has made, or the root file system. Options of the file system itself
// are changed only where it was made for this container.
func (l *layout) remount(m *specs.Mount, o mountOptions) error {
	at := &attachment{}
	l.find(at, m.Destination)
	a := at.parent
	switch {
	case at.at == "/" && a == nil:
		if len(o.data) > 0 {
			return fmt.Errorf("remount: %s: the root file system is not the container's alone, its options stay", strings.Join(o.data, ","))
		}
		return changeMount(l.root, &l.rootReadOnly, o)
	case a == nil || strings.Trim(at.rest, "/") != "":
		return errors.New("remount: nothing is mounted there by the lines before")
	case a.source == nil:
		a.flags = o.on(o.tree.on(a.flags))
		a.data = append(slices.Clone(a.data), o.data...)
		return nil
	case len(o.data) > 0 && !isBind(m.Type, o):
		if !a.made {
			return fmt.Errorf("remount: %s: the file system is not the container's alone, its options stay", strings.Join(o.data, ","))
		}
		if err := reconfigure(a.source, l.ownedBy(o.data)); err != nil {
			return err
		}
	}
	return changeMount(a.source, &a.late, o)
}

// changeMount sets a mount's attributes now, but for "read-only": what it is to hold must be put in first.
func changeMount(mount *os.File, readOnly *bool, o mountOptions) error {
	if (o.set|o.clear)&unix.MOUNT_ATTR_RDONLY != 0 {
		*readOnly = o.set&unix.MOUNT_ATTR_RDONLY != 0
		o.set &^= unix.MOUNT_ATTR_RDONLY
	}
	if err := setAttributes(mount, o.attributeChange, 0); err != nil {
		return err
	}
	return setAttributes(mount, o.tree, unix.AT_RECURSIVE)
}

// reconfigure changes options of a file system by a mount of it (fspick(2)).
func reconfigure(mount *os.File, data []string) error {
	fs, err := unix.Fspick(descriptor(mount), "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	defer unix.Close(fs)
	if err := configure(fs, data); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fmt.Errorf("remount with %s: %w", strings.Join(data, ","), err)
	}
	return nil
}

// configure sets a file system's options.
func configure(fs int, data []string) (err error) {
	for _, d := range data {
		key, value, has := strings.Cut(d, "=")
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", d, err)
		}
	}
	return nil
}

// copyUp fills a fresh tmpfs with what the image has at its place ("tmpcopyup").
func (l *layout) copyUp(a *attachment, destination string) error {
	if a.target == nil || a.source == nil || !a.made {
		return fmt.Errorf("%s: tmpcopyup works only on a tmpfs, and not below what the container's own namespaces make", destination)
	}
	from, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(descriptor(a.target)), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	return copyTree(from, a.source)
}
