package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// None is the group of processes for which none could be made: it has no directories, limits and freezes nothing, and is always empty.
func None() *Group { return &Group{dirs: map[string]string{}} }

// Exists says whether there is anything behind the name: false for None.
func Exists(g *Group) bool { return len(g.dirs) > 0 }

// Unified says that the group is in the cgroup2 tree alone.
func Unified(g *Group) bool { return g.pure() }

// OnlyUnified says that all controllers of this host are in the cgroup2 tree.
func OnlyUnified() bool {
	mounts, err := hierarchies()
	return err == nil && len(mounts) == 1 && mounts[unified] != ""
}

// OpenUnified names a group of the cgroup2 tree alone, without touching it.
func OpenUnified(path string) (*Group, error) {
	mounts, err := hierarchies()
	if err != nil {
		return nil, err
	}
	mount, ok := mounts[unified]
	if !ok {
		return nil, fmt.Errorf("control group %s: no cgroup2 tree is mounted: %w", path, errdefs.ErrUnavailable)
	}
	return openBelow(map[string]string{unified: mount}, path)
}

// CreateDelegated makes a group as a user may who is not root: at path, else beside or below the caller's own group, wherever the cgroup2
// tree has been delegated to the caller (Documentation/admin-guide/cgroup-v2.rst, "Delegation"); None where that is nowhere. v1 delegates
// to nobody. missing says why limits that were asked for could not be had; err, that one of them has a value that cannot be.
func CreateDelegated(path string, res *specs.LinuxResources) (g *Group, missing, err error) {
	asked := limits(res)
	missing = errors.New("no control group is delegated to this user")
	for _, p := range delegatedPlaces(path) {
		g, err := OpenUnified(p)
		if err != nil || !MayEnter(g) {
			continue
		}
		err = g.make(asked)
		if err == nil && MayEnter(g) {
			return g, nil, nil
		}
		if err != nil && !Refused(err) {
			return nil, nil, err
		}
		missing = err
		if g.make(nil) == nil {
			return g, ifAsked(missing, asked), nil
		}
	}
	return None(), ifAsked(missing, asked), nil
}

func ifAsked(missing error, res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	return missing
}

// Refused says that an error of Create is one of rights, or of what this host does not have, and none of the values.
func Refused(err error) bool {
	for _, e := range []error{fs.ErrPermission, unix.EROFS, errdefs.ErrUnavailable, errdefs.ErrFailedPrecondition, unix.ENOSPC, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Delegable are the limits that a user may set in a group that is delegated to him.
func Delegable(res *specs.LinuxResources) *specs.LinuxResources { return limits(res) }

// limits are those of the resources that limit something: rules about devices need more rights than a user has, and in a user namespace
// nobody makes devices. Nil: none.
func limits(res *specs.LinuxResources) *specs.LinuxResources {
	if res == nil {
		return nil
	}
	some := *res
	some.Devices = nil
	if p := some.Pids; p != nil && pidsMax(p) == "max" {
		some.Pids = nil
	}
	if some.Memory == nil && some.CPU == nil && some.Pids == nil && some.BlockIO == nil && some.Network == nil && len(some.HugepageLimits)+len(some.Unified)+len(some.Rdma) == 0 {
		return nil
	}
	return &some
}

// delegatedPlaces are the paths to try, best first: where processes are, a group has no controllers for those below.
func delegatedPlaces(path string) []string {
	list := []string{path}
	own, err := ownGroup()
	if err != nil || own == "/" {
		return list
	}
	return append(list, filepath.Join(filepath.Dir(own), filepath.Base(path)), filepath.Join(own, filepath.Base(path)))
}

// ownGroup is this process's in the cgroup2 tree.
func ownGroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok {
			return filepath.Clean("/" + path), nil
		}
	}
	return "", fs.ErrNotExist
}

// MayEnter says that this process may put one of its own into the group, or make it: the kernel asks for the right to write to
// cgroup.procs of the group and of the first one above that both are in.
func MayEnter(g *Group) bool {
	dir, ok := g.dirs[unified]
	if !ok {
		return true
	}
	for have := dir; ; have = filepath.Dir(have) {
		if writable(filepath.Join(have, "cgroup.procs")) {
			break
		}
		if exists(have) {
			return false
		}
	}
	path, err := ownGroup()
	if err != nil {
		return false
	}
	own := filepath.Join(strings.TrimSuffix(dir, g.path), path)
	common := dir
	for ; common != own && !strings.HasPrefix(own, common+"/"); common = filepath.Dir(common) {
	}
	return writable(filepath.Join(common, "cgroup.procs"))
}

func writable(file string) bool {
	return unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS) == nil
}
