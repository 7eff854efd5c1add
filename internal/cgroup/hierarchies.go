package cgroup

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// known is where the controllers were mounted when the table of mounts was read last: to read it is a quarter of what a group takes to be made.
var known struct {
	sync.Mutex
	table  *mountinfo.Table // nil: it has not been opened
	mounts map[string]string
}

// hierarchies says where the controllers are mounted. The map is the caller's to read only.
func hierarchies() (map[string]string, error) {
	known.Lock()
	defer known.Unlock()
	if known.table == nil {
		t, err := mountinfo.Open()
		if err != nil {
			return nil, err
		}
		known.table = t
	} else if known.mounts != nil && !known.table.Changed() {
		return known.mounts, nil
	}
	list, err := known.table.Read("cgroup", "cgroup2")
	if err == nil {
		known.mounts, err = hierarchiesIn(list)
	}
	if err != nil {
		known.mounts = nil
	}
	return known.mounts, err
}

// hierarchiesIn finds the controllers in a table of mounts.
func hierarchiesIn(list []mountinfo.Mount) (map[string]string, error) {
	found := map[string]string{}
	for _, m := range list {
		switch m.Type {
		case "cgroup2":
			if _, ok := found[unified]; !ok {
				found[unified] = m.At
			}
		case "cgroup":
			for _, option := range m.Options {
				if _, ok := found[option]; !ok {
					found[option] = m.At
				}
			}
		}
	}
	mounts := map[string]string{}
	for _, name := range append(append([]string{unified}, controllers()...), rareControllers()...) {
		if dir, ok := found[name]; ok && isHierarchy(dir) {
			mounts[name] = dir
		}
	}
	if _, ok := mounts[unified]; ok {
		delete(mounts, "freezer") // the cgroup2 tree freezes better
	}
	if len(mounts) == 0 {
		return nil, fmt.Errorf("no control groups are mounted on this host (looked for cgroup and cgroup2 in /proc/self/mountinfo): %w", errdefs.ErrUnavailable)
	}
	return mounts, nil
}

// isHierarchy says that dir shows control groups: something else may have been mounted over them.
func isHierarchy(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.CGROUP_SUPER_MAGIC || st.Type == unix.CGROUP2_SUPER_MAGIC)
}
