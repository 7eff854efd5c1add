// Package cgroup makes, limits, freezes, kills, measures and removes control groups, on cgroup v2, v1 and hybrid hosts.
//
// On v1 and hybrid hosts a group has a directory in each controller's hierarchy and, where a cgroup2 tree is mounted beside them, one
// there too: that tree kills, freezes and says whether the group is populated, whichever version holds the limits
// (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/). A Group is a name: it holds nothing open and is safe for many goroutines.
// Where the controllers are mounted is kept for as long as the kernel says that no mount has changed.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unified is the name of the cgroup2 tree among a group's directories.
const unified = ""

// controllers that a group takes part in on v1.
func controllers() []string {
	return []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"}
}

// rareControllers are those whose hierarchies a group joins only when its limits need them: for each, its directories cost a start.
func rareControllers() []string { return []string{"net_cls", "net_prio", "rdma"} }

// asks says which of the rare controllers the limits need.
func asks(res *specs.LinuxResources) map[string]bool {
	if res == nil {
		return nil
	}
	n := res.Network
	return map[string]bool{"net_cls": n != nil && n.ClassID != nil, "net_prio": n != nil && len(n.Priorities) > 0, "rdma": len(res.Rdma) > 0}
}

// Group is one control group, in every hierarchy that the host has.
type Group struct {
	path string
	dirs map[string]string // by controller; unified is the cgroup2 tree's
}

// open names a group below the hierarchies of this host.
func open(path string) (*Group, error) { return openFor(path, nil) }

// openFor leaves out the rare hierarchies, but those that the limits need and where the group is already.
func openFor(path string, res *specs.LinuxResources) (*Group, error) {
	mounts, err := hierarchies()
	if err != nil {
		return nil, err
	}
	g, err := openBelow(mounts, path)
	if err != nil {
		return nil, err
	}
	for _, name := range rareControllers() {
		if dir, ok := g.dirs[name]; ok && !asks(res)[name] && !exists(dir) {
			delete(g.dirs, name)
		}
	}
	return g, nil
}

func openBelow(mounts map[string]string, path string) (*Group, error) {
	if !filepath.IsAbs(path) || path != filepath.Clean(path) || path == "/" {
		return nil, fmt.Errorf("control group %q: the path must be absolute and clean: %w", path, errdefs.ErrInvalidArgument)
	}
	g := &Group{path: path, dirs: map[string]string{}}
	for name, mount := range mounts {
		g.dirs[name] = filepath.Join(mount, path)
	}
	return g, nil
}

// Create makes the group's directories and writes its limits. path is absolute within the hierarchies ("/wherry/<id>"). An existing
// group is taken when it is empty.
func Create(path string, res *specs.LinuxResources) (*Group, error) {
	g, err := openFor(path, res)
	if err != nil {
		return nil, err
	}
	if err := g.make(res); err != nil {
		return nil, err
	}
	return g, nil
}

// Adopt takes a group that a service manager has made, has put into the hierarchies that it cares for, and has delegated; processes may
// be in it. What is missing is made, and limits are written.
func Adopt(path string, res *specs.LinuxResources) (*Group, error) {
	g, err := openFor(path, res)
	if err != nil {
		return nil, err
	}
	for _, name := range hierarchiesOf(g) {
		if g.pure() && (res == nil || len(res.HugepageLimits)+len(res.Rdma) == 0) {
			break // the service manager has enabled what it knows, on all levels above
		}
		if err := g.makeDir(name, g.dirs[name]); err != nil {
			return nil, fmt.Errorf("make control group %s: %w", g.dirs[name], err)
		}
	}
	return g, g.Update(res)
}

func (g *Group) make(res *specs.LinuxResources) error {
	if populated, err := g.Populated(); err == nil && populated {
		return fmt.Errorf("container's cgroup is not empty: control group %s has processes already: %w", g.path, errdefs.ErrAlreadyExists)
	}
	if anyFrozen(g) {
		return fmt.Errorf("container's cgroup unexpectedly frozen: control group %s: %w", g.path, errdefs.ErrFailedPrecondition)
	}
	for _, name := range hierarchiesOf(g) {
		if err := g.makeDir(name, g.dirs[name]); err != nil {
			return errors.Join(fmt.Errorf("make control group %s: %w", g.dirs[name], err), g.Delete())
		}
	}
	if err := g.Update(res); err != nil {
		return errors.Join(err, g.Delete())
	}
	return nil
}

func (g *Group) makeDir(name, dir string) error {
	if err := os.Mkdir(dir, 0o755); err == nil || errors.Is(err, fs.ErrExist) {
		return g.afterMkdir(name, dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return g.afterMkdir(name, dir)
}

// afterMkdir makes a new directory usable: v1's cpuset has no processors until told, v2's controllers are enabled by the parents.
func (g *Group) afterMkdir(name, dir string) error {
	switch {
	case name == "cpuset":
		return inheritCpuset(dir, strings.Count(g.path, "/"))
	case name == unified && g.pure():
		return enableControllers(dir, strings.Count(g.path, "/"))
	}
	return nil
}

// pure says that all controllers are in the cgroup2 tree.
func (g *Group) pure() bool { return len(g.dirs) == 1 && g.dirs[unified] != "" }

func inheritCpuset(dir string, depth int) error {
	if depth == 0 {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(have)) != "" {
			return err
		}
		if err := inheritCpuset(filepath.Dir(dir), depth-1); err != nil {
			return err
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, file), string(parent)); err != nil {
			return err
		}
	}
	// Groups below have the same from their beginning: a write makes the kernel reconsider the scheduler's domains.
	return writeFile(filepath.Join(dir, "cgroup.clone_children"), "1")
}

// Open returns an existing group without touching it.
func Open(path string) (*Group, error) { return open(path) }

// Path is the group's name within the hierarchies.
func (g *Group) Path() string { return g.path }

// Dirs are the group's directories by controller; the cgroup2 tree's has the empty name.
func (g *Group) Dirs() map[string]string { return g.dirs }

// Dir is the group's directory in the cgroup2 tree (for CLONE_INTO_CGROUP), ok false where there is none.
func (g *Group) Dir() (path string, ok bool) {
	path, ok = g.dirs[unified]
	return path, ok
}

// Add moves a process into the group. A process that clone3 put into the cgroup2 tree is moved in the other hierarchies only.
func (g *Group) Add(pid int) error {
	for _, name := range hierarchiesOf(g) {
		file := filepath.Join(g.dirs[name], "cgroup.procs")
		err := writeFile(file, strconv.Itoa(pid))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %d into control group %s: %w", pid, file, err)
		}
	}
	return nil
}

// Entries opens the files through which a single-threaded process puts itself into the group, by writing "0" to each: those of v1's
// hierarchies, as clone3 puts it into the cgroup2 tree (see Dir). It moves nobody but itself, so the kernel need not wait until all
// forks of the machine stand still, which a write of another's pid to cgroup.procs costs (kernel/cgroup, cgroup_threadgroup_rwsem).
func (g *Group) Entries() ([]*os.File, error) {
	var files []*os.File
	for _, name := range hierarchiesOf(g) {
		if name == unified {
			continue
		}
		tasks := filepath.Join(g.dirs[name], "tasks")
		fd, err := unix.Open(tasks, unix.O_WRONLY|unix.O_CLOEXEC, 0) // os.Open would have Go's poller watch each
		if err != nil {
			for _, opened := range files {
				opened.Close()
			}
			return nil, fmt.Errorf("open control group %s: %w", g.path, err)
		}
		files = append(files, os.NewFile(uintptr(fd), tasks))
	}
	return files, nil
}

// hierarchiesOf a group, in a fixed order.
func hierarchiesOf(g *Group) []string {
	names := make([]string, 0, len(g.dirs))
	for n := range g.dirs {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// anyDir is the directory that says best who is in the group.
func (g *Group) anyDir() string {
	for _, name := range []string{unified, "freezer", "pids", "memory"} {
		if dir, ok := g.dirs[name]; ok {
			return dir
		}
	}
	for _, name := range hierarchiesOf(g) {
		return g.dirs[name]
	}
	return ""
}

// Populated says whether any process, also a zombie's group mate or one in a child group, is left.
func (g *Group) Populated() (bool, error) {
	if dir, ok := g.dirs[unified]; ok {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil {
			return false, err
		}
		return strings.Contains(string(b), "populated 1"), nil
	}
	pids, err := g.Procs()
	return len(pids) > 0, err
}

// WaitEmpty returns when no process is left in the group, or it is gone.
func (g *Group) WaitEmpty(ctx context.Context) error {
	wait := 500 * time.Microsecond
	for {
		populated, err := g.Populated()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || err == nil && !populated {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("control group %s still has processes: %w", g.path, context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// Freeze stops the group's processes and returns when all stand still.
func (g *Group) Freeze(ctx context.Context) error { return g.setFrozen(ctx, true) }

// Thaw lets them go on.
func (g *Group) Thaw(ctx context.Context) error { return g.setFrozen(ctx, false) }

func (g *Group) setFrozen(ctx context.Context, frozen bool) error {
	f, ok := freezerOf(g, frozen)
	if !ok {
		return fmt.Errorf("this host has no way to freeze processes (neither a cgroup2 tree nor the freezer controller): %w", errdefs.ErrNotImplemented)
	}
	if err := writeFile(f.file, f.value); err != nil {
		return fmt.Errorf("write %s to %s: %w", f.value, f.file, err)
	}
	for {
		if done, err := f.done(); err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("wait for the processes of control group %s to be %s: %w", g.path, f.want, context.Cause(ctx))
			if frozen { // half frozen is worse than running
				err = errors.Join(err, g.setFrozen(context.WithoutCancel(ctx), false))
			}
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

// Delete removes the group's directories, and those below them. It is an error while processes are left.
func (g *Group) Delete() error {
	var errs []error
	for _, name := range hierarchiesOf(g) {
		if err := removeTree(g.dirs[name]); err != nil {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	wait := time.Millisecond
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if try == 10 || !errors.Is(err, unix.EBUSY) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
		if try > 0 {
			time.Sleep(wait)
			wait *= 2
		}
	}
}
