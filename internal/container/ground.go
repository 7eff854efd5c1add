package container

import (
	"errors"
	"os"
	"path"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/task"
)

// Ground is what a process that is no container of the list, such as a step of a build, has in common with those that are.
type Ground struct {
	Ranges     *sandbox.Ranges
	Shims      *task.Shims
	Filters    *task.Filters
	Oar        string
	MaxRlimits map[string]uint64
	Mapped     bool // the files of /etc can be mounted with their ids mapped
	parent     string
	etc        string
}

// GroundOf gives it out.
func GroundOf(s *Service) Ground {
	return Ground{Ranges: s.ranges, Shims: s.shims, Filters: &s.filters, Oar: s.o.Oar, MaxRlimits: s.host.rlimit, Mapped: s.host.mapped, parent: s.o.CgroupParent, etc: s.o.etcDir("")}
}

// Cgroup is the control group of a process, below the engine's or below another parent.
func (g Ground) Cgroup(parent, id string) string {
	if parent == "" {
		parent = g.parent
	}
	return path.Join("/", parent, id)
}

// EtcDir is where the files of /etc of a process lie, on the file system of bounded size that all have in common.
func (g Ground) EtcDir(id string) string { return path.Join(g.etc, id) }

// Defaults fills in what a host configuration does not say.
func Defaults(h *container.HostConfig) *container.HostConfig { return withDefaults(h) }

// Devices are those that a host configuration gives, with the rules that let them be used.
func Devices(h *container.HostConfig) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	return devicesOf(h)
}

// FindIn finds a user in a root file system's layers, topmost first, and where his home is.
func FindIn(layers []string, user string, ids rootfs.IDMap) (who specs.User, home string, err error) {
	a := accounts{open: func(name string) (*os.File, error) { return openInLayers(layers, name) }}
	found, err := a.find(user, nil)
	if err == nil {
		err = found.fits(ids.Size)
	}
	return found.user, found.home, err
}

// Exists says whether layers, topmost first, have a file of any kind at a path, as overlay would show them.
func Exists(layers []string, name string) bool {
	f, err := lookup(layers, name)
	if err == nil {
		f.Close()
	}
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}

// OpenBelow opens a directory of layers, topmost first, as overlay would show it.
func OpenBelow(layers []string, name string) (*os.File, error) { return lookup(layers, name) }
