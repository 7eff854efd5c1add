package ociruntime

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// Ready are namespaces that were made ahead of a container which gets a range of ids: most of what a start costs the kernel.
type Ready struct {
	IDs       rootfs.IDMap
	User, Net *os.File
}

// MakeReady makes them. Nothing of any container is in them.
func MakeReady(ids rootfs.IDMap) (*Ready, error) {
	if ids.Size == 0 {
		return nil, errors.New("no range of ids is left")
	}
	r := &Ready{IDs: ids}
	var err error
	if r.User, err = ids.UserNamespace(); err != nil {
		return nil, err
	}
	if r.Net, err = sysprog.NetworkNamespace(r.User); err != nil {
		r.User.Close()
		return nil, err
	}
	return r, nil
}

// Close gives them up. A nil Ready has nothing.
func (r *Ready) Close() {
	if r != nil {
		r.User.Close()
		r.Net.Close()
	}
}

// take uses what was made ahead in place of new namespaces.
func (n *namespaces) take(r *Ready, l *specs.Linux) error {
	if maps := l.UIDMappings; len(maps) != 1 || maps[0] != (specs.LinuxIDMapping{HostID: r.IDs.Base, Size: r.IDs.Size}) {
		r.Close()
		return errors.New("the namespaces that were made ahead are for another range of ids")
	}
	n.ids, n.user, n.net = r.IDs, r.User, r.Net
	n.create &^= unix.CLONE_NEWNET
	n.joined = append(n.joined, joinedNamespace{kind: unix.CLONE_NEWNET, name: string(specs.NetworkNamespace), file: r.Net})
	return nil
}
