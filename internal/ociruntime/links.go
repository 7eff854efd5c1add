package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// linkOptions are crun's words for what becomes of symbolic links, which podman uses.
type linkOptions struct {
	copyLink, // a source that is a link is made anew in the container
	sourceLink, // a source that is a link is mounted itself, not what it leads to
	targetLink bool // a link in the mount's place is covered, not what it leads to
}

// copySymlink makes a link in the container, where the bind's source is one. One that is there already must be the same.
func copySymlink(l *layout, source, destination string) (done bool, err error) {
	to, err := os.Readlink(source)
	if err != nil {
		return false, nil // no link: it is mounted
	}
	a := &attachment{}
	parent, base, err := openParent(l, a, destination)
	if err != nil {
		return false, err
	}
	defer parent.Close()
	err = unix.Symlinkat(to, descriptor(parent), base)
	if errors.Is(err, unix.EEXIST) {
		have := make([]byte, unix.PathMax)
		if n, e := unix.Readlinkat(descriptor(parent), base, have); e == nil && string(have[:n]) == to {
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("copy-symlink: make a link to %s at %s: %w", to, a.at, err)
	}
	root := l.ns.ids.Host(0)
	return true, unix.Fchownat(descriptor(parent), base, root, root, unix.AT_SYMLINK_NOFOLLOW)
}

// openParent opens, or makes, the folder that a destination lies in, with all links to it followed, but not the last one.
func openParent(l *layout, a *attachment, destination string) (parent *os.File, base string, err error) {
	dir, base := path.Split(path.Clean("/" + destination))
	if base == "" {
		return nil, "", fmt.Errorf("%s is no link", destination)
	}
	within, name := l.find(a, dir)
	a.at, a.rest = path.Join(a.at, base), path.Join(a.rest, base)
	if err := l.sparesProc(a); err != nil {
		return nil, "", err
	}
	if within == nil {
		return nil, "", fmt.Errorf("%s lies in a file system of the container's namespaces, where no link is made or covered", destination)
	}
	parent, err = l.target(within, name, true)
	return parent, base, err
}

// placeOverLink is place for a mount that covers a link itself.
func placeOverLink(l *layout, a *attachment, destination string) error {
	l.held.keep(a.source)
	parent, base, err := openParent(l, a, destination)
	if err != nil {
		return err
	}
	defer parent.Close()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(descriptor(parent), base, &how)
	if errors.Is(err, unix.ENOENT) {
		if err := l.makeTarget(parent, base, a.isDir); err != nil {
			return err
		}
		fd, err = unix.Openat2(descriptor(parent), base, &how)
	}
	if err != nil {
		return fmt.Errorf("open %s in the root file system: %w", a.at, err)
	}
	a.target = os.NewFile(uintptr(fd), a.at)
	return put(l, a)
}

// parseMappings reads crun's "uids=0-1-10#10-11-10;gids=…": first id of the file system, first id on the host, how many. With "@" before
// them the second is the container's.
func parseMappings(text string, container *specs.Linux) (uids, gids []specs.LinuxIDMapping, err error) {
	for _, part := range strings.Split(text, ";") {
		kind, list, _ := strings.Cut(part, "=")
		switch kind {
		case "uids":
			uids, err = parseMapping(list, container.UIDMappings)
		case "gids":
			gids, err = parseMapping(list, container.GIDMappings)
		default:
			err = errors.New("there are uids and gids")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("idmap=%s: %q: %w", text, part, err)
		}
	}
	return uids, gids, nil
}

func parseMapping(list string, container []specs.LinuxIDMapping) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for _, one := range strings.Split(list, "#") {
		one, relative := strings.CutPrefix(one, "@")
		var n [3]uint32
		fields := strings.Split(one, "-")
		if len(fields) != len(n) {
			return nil, errors.New("a range is three numbers with - between them")
		}
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, errors.New("a range is three numbers with - between them")
			}
			n[i] = uint32(v)
		}
		m := specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]}
		if relative {
			host, ok := onHost(m, container)
			if !ok {
				return nil, errors.New("it is not within one range of the container's mappings")
			}
			m.HostID = host
		}
		out = append(out, m)
	}
	return out, nil
}

// onHost is the host's id of the first of a range of ids of the container.
func onHost(m specs.LinuxIDMapping, container []specs.LinuxIDMapping) (uint32, bool) {
	for _, c := range container {
		if m.HostID >= c.ContainerID && uint64(m.HostID)+uint64(m.Size) <= uint64(c.ContainerID)+uint64(c.Size) {
			return m.HostID - c.ContainerID + c.HostID, true
		}
	}
	return 0, false
}
