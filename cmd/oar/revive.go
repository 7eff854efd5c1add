package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/criu"
	"wherry.dev/wherry/internal/network/link"
	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/sysprog"
)

// Checkpoints of a shim's container. Its mounts are made again from its configuration, as at a start, and criu makes the rest: what belongs to
// the namespaces. The network's is made empty, and whoever asked for the restore furnishes it while criu waits:
//
//	engine                shim                          criu
//	  {create, restore} ──▶ makes mounts, starts criu ───▶ makes the first process, with its namespaces
//	  ◀── {pid} ─────────── ◀──────────────────────────── setup-namespaces
//	  attaches the network
//	  {start} ────────────▶ ─────────────────────────────▶ makes all processes, stopped
//	                        compares them with the configuration, lets them go on
//	  ◀── {} ──────────────

// keptFile is beside criu's images: how criu knows what lies outside of the container, and which mounts' content is beside it too.
const keptFile = "outside.json"

// kept is what stands in it.
type kept struct {
	Streams []string // as criu names them; empty: not from outside
	Trees   []string // places whose content is in the folder tree-N
}

func treeDir(dir string, i int) string { return filepath.Join(dir, "tree-"+strconv.Itoa(i)) }

// hookProgram is this very binary, which is what criu runs at a hook.
func hookProgram() string { return "/proc/" + strconv.Itoa(os.Getpid()) + "/exe" }

// Checkpoint has criu write the container down. While its processes are stopped, what they have in file systems in memory is copied, and all is
// brought to the disk.
func (c container) Checkpoint(ctx context.Context, o shim.Checkpoint, pipes shim.Pipes) error {
	if err := restorable(ctx, c.config.Spec, o.Criu); err != nil {
		return err
	}
	pid := c.Pid()
	streams, err := outsideStreams(pid, pipes)
	if err != nil {
		return err
	}
	k := kept{Streams: streams}
	d := criu.DumpOptions{Options: criu.Options{Program: o.Criu, Images: o.Dir, Root: "/", Cgroups: "soft", FileLocks: true}, Pid: pid, LeaveRunning: o.LeaveRunning}
	mounts, err := ociruntime.OutsideMounts(c.config.Spec, pid)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		d.External = append(d.External, fmt.Sprintf("mnt[%s]:%s", m.At, m.Key))
		if m.Kept {
			k.Trees = append(k.Trees, m.At)
		}
	}
	if strings.HasPrefix(streams[0], "file[") {
		d.External = append(d.External, streams[0])
	}
	if ownNetwork(c.config.Spec) {
		d.Empty = []string{"net"}
	}
	d.Hook = &criu.Hook{Program: hookProgram(), Actions: []string{"post-dump"}, At: func(context.Context, string, int) error { return k.save(o, pid) }}
	return criu.Explain(ctx, o.Criu, criu.Dump(ctx, d))
}

// ownNetwork says that the container has a network namespace of its own.
func ownNetwork(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace && ns.Path == "" {
			return true
		}
	}
	return false
}

// restorable refuses what could be written down and not be made again.
func restorable(ctx context.Context, spec *specs.Spec, program string) error {
	if spec.Process.NoNewPrivileges {
		version, err := criu.Version(ctx, program)
		if err != nil {
			return err
		}
		if version < keepsNoNewPrivileges {
			return fmt.Errorf("criu %d.%d does not bring no_new_privs back, which the container has (--strict, --security-opt no-new-privileges): 3.19 and later do",
				version/10000, version/100%100)
		}
	}
	if h := spec.Hooks; h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer) > 0 {
		return errors.New("it has hooks, of devices that it was given: what they have made cannot be made again")
	}
	own := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Path != "" {
			return fmt.Errorf("it is in the %s namespace of another container, or of the host: criu would make it one of its own", ns.Type)
		}
		own[ns.Type] = true
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.MountNamespace} {
		if !own[kind] {
			return fmt.Errorf("it has no %s namespace of its own: what it shares with the host cannot be made again", kind)
		}
	}
	return nil
}

// outsideStreams are criu's names of the standard streams that lie outside of the container: pipes of the shim's, and the host's /dev/null.
func outsideStreams(pid int, pipes shim.Pipes) ([]string, error) {
	streams := pipes[:]
	if streams[0] != "" {
		return streams, nil
	}
	proc := procOf(pid)
	table, err := os.ReadFile(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	link, err := os.Readlink(proc + "/fd/0")
	if err != nil || !strings.HasPrefix(link, "/") {
		return streams, nil //nolint:nilerr // its first process has closed it
	}
	streams[0], err = outsideFile(proc, 0, string(table))
	return streams, err
}

func procOf(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// save writes what criu does not, brings all to the disk, and gives the folder its name.
func (k kept) save(o shim.Checkpoint, pid int) error {
	for i, at := range k.Trees {
		if err := ociruntime.SaveTree(pid, at, treeDir(o.Dir, i)); err != nil {
			return fmt.Errorf("copy what is in %s: %w", at, err)
		}
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.Dir, keptFile), b, 0o600); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(o.Into))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Syncfs(int(parent.Fd())); err != nil {
		return fmt.Errorf("bring the checkpoint to the disk: %w", err)
	}
	if err := os.Rename(o.Dir, o.Into); err != nil {
		return err
	}
	return parent.Sync()
}

// readKept reads what save has written. It only says what of the images is replaced by what.
func readKept(dir string) (k kept, err error) {
	b, err := os.ReadFile(filepath.Join(dir, keptFile))
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil {
		err = checkStreams(k.Streams)
	}
	if err != nil {
		return k, fmt.Errorf("the folder %s is not a whole checkpoint: %w", dir, err)
	}
	return k, nil
}

// Restore has criu make the first process and its namespaces, and comes back then.
func (b builtin) Restore(ctx context.Context, c shim.Config, s shim.Streams, from shim.Restore) (shim.Container, error) {
	k, err := readKept(from.Dir)
	if err != nil {
		return nil, err
	}
	if err := restorable(ctx, c.Spec, from.Criu); err != nil {
		return nil, err
	}
	outside, err := ociruntime.MakeOutside(ctx, ociruntime.CreateOptions{ID: c.ID, Bundle: b.dir, Spec: c.Spec, Filter: c.Filter, Rootfs: c.Rootfs})
	if err != nil {
		return nil, err
	}
	if err := giveImages(from.Dir, outside.Owner()); err != nil {
		outside.Undo(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("let criu read %s: %w", from.Dir, err)
	}
	r := &revival{container: container{config: c}, adj: b.adj, outside: outside, first: make(chan int, 1), goOn: make(chan struct{}), made: make(chan struct{})}
	o, err := r.options(k, s, from)
	if err == nil {
		err = r.begin(context.WithoutCancel(ctx), o)
	}
	closeGroup(o)
	if err != nil {
		outside.Undo(context.WithoutCancel(ctx))
		return nil, err
	}
	return r, nil
}

// giveImages lets the container's root, besides the host's, read criu's images: criu reads some of them as that. Nothing leads from the container
// to them. keepImages takes that back.
func giveImages(dir string, group int) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".img") {
			continue
		}
		fd, err := unix.Openat(int(f.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		err = errors.Join(unix.Fchown(fd, 0, group), unix.Fchmod(fd, 0o640), unix.Close(fd))
		if err != nil {
			return err
		}
	}
	return errors.Join(f.Chown(0, group), f.Chmod(0o750))
}

func keepImages(dir string) error { return errors.Join(os.Chown(dir, 0, 0), os.Chmod(dir, 0o700)) }

// revival is a container that criu makes.
type revival struct {
	container // its process from the first moment on, the rest when it is made
	adj       int
	outside   *ociruntime.Outside

	first   chan int      // the first process's pid
	goOn    chan struct{} // closed when criu may go on
	release sync.Once
	made    chan struct{} // closed when criu has ended
	failed  error         // then
}

// options are criu's, with the content of file systems in memory put into place.
func (r *revival) options(k kept, s shim.Streams, from shim.Restore) (o criu.RestoreOptions, err error) {
	for i, at := range k.Trees {
		for _, p := range r.outside.Places {
			if p.Kept != at {
				continue
			}
			if err := ociruntime.FillTree(treeDir(from.Dir, i), p); err != nil {
				return o, fmt.Errorf("fill %s: %w", at, err)
			}
		}
	}
	o.Options = criu.Options{Program: from.Criu, Images: from.Dir, Cgroups: "soft", FileLocks: true}
	if ownNetwork(r.config.Spec) {
		o.Empty = []string{"net"}
	}
	if err := placeInGroup(&o, r.outside.Cgroup); err != nil {
		return o, err
	}
	for i, name := range k.Streams {
		f := s[min(i, 2)]
		if f == nil { // ends with this process
			if f, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return o, err
			}
		}
		if name != "" {
			o.Inherit = append(o.Inherit, criu.Inherited{Name: name, File: f})
		}
	}
	o.Label = labelFor(r.config.Spec.Process)
	o.Attach = func(dir string) (root string, external []string, err error) {
		root, at, err := r.outside.Attach(dir)
		for key, path := range at {
			external = append(external, fmt.Sprintf("mnt[%s]:%s", key, path))
		}
		return root, external, err
	}
	o.Hook = &criu.Hook{Program: hookProgram(), Actions: []string{"setup-namespaces"}, At: r.meet}
	return o, nil
}

// placeInGroup has criu, and what it makes, begin in a control group.
func placeInGroup(o *criu.RestoreOptions, g *cgroup.Group) (err error) {
	if dir, ok := g.Dir(); ok {
		if o.Group, err = os.Open(dir); err != nil {
			return err
		}
	}
	if o.Entries, err = g.Entries(); err != nil {
		return err
	}
	for controller := range g.Dirs() {
		if controller == "" {
			o.Roots = append(o.Roots, g.Path())
		} else {
			o.Roots = append(o.Roots, controller+":"+g.Path())
		}
	}
	return nil
}

func closeGroup(o criu.RestoreOptions) {
	for _, f := range append(o.Entries, o.Group) {
		if f != nil {
			f.Close()
		}
	}
}

// meet is where criu waits: the namespaces are there, and nothing is in them.
func (r *revival) meet(ctx context.Context, _ string, pid int) error {
	if pid <= 0 {
		return errors.New("criu does not say which process is the container's first")
	}
	if netns, err := os.Open(procOf(pid) + "/ns/net"); err == nil && ownNetwork(r.config.Spec) {
		err = setNetSysctls(r.config.Spec, netns)
		netns.Close()
		if err != nil {
			return err
		}
	}
	r.first <- pid
	select {
	case <-r.goOn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// setNetSysctls sets the configuration's of a network namespace.
func setNetSysctls(spec *specs.Spec, netns *os.File) error {
	home, err := link.Home()
	if err != nil {
		return err
	}
	defer home.Close()
	return link.Inside(netns, home, func() error {
		for key, value := range spec.Linux.Sysctl {
			if name := strings.ReplaceAll(key, ".", "/"); strings.HasPrefix(name, "net/") {
				if err := link.SetSysctl(name, value); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// begin starts criu and waits until it has made the first process.
func (r *revival) begin(ctx context.Context, o criu.RestoreOptions) error {
	go func() {
		defer close(r.made)
		_, err := criu.Restore(ctx, o)
		r.failed = errors.Join(criu.Explain(ctx, o.Program, err), keepImages(o.Images))
	}()
	pid := 0
	select {
	case pid = <-r.first:
	case <-r.made:
		if r.failed == nil {
			return errors.New("criu has made nothing")
		}
		return r.failed
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		var pidfd *os.File
		if pidfd, err = sysprog.Pollable(fd); err == nil {
			r.process = process{pid: pid, pidfd: pidfd}
			return nil
		}
	}
	r.release.Do(func() { close(r.goOn) })
	<-r.made
	return err
}

// Start has criu go on, compares what it has made with the configuration, and lets it run.
func (r *revival) Start(context.Context) error {
	r.release.Do(func() { close(r.goOn) })
	<-r.made
	defer r.outside.Close()
	if r.failed != nil {
		_ = r.Kill(unix.SIGKILL)
		return r.failed
	}
	o := ociruntime.OpenOptions{Spec: r.config.Spec, Filter: r.config.Filter, State: specs.State{Version: specs.Version, ID: r.config.ID, Status: specs.StateCreated, Pid: r.Pid()},
		Pid: r.Pid(), Pidfd: r.pidfd, Cgroup: r.outside.Cgroup, OOMScoreAdj: r.adj, RootPath: "/proc/self/fd/" + strconv.Itoa(int(r.outside.Root.Fd()))}
	err := ociruntime.Confined(o)
	if err == nil {
		r.Container, err = ociruntime.Open(o)
	} else {
		err = fmt.Errorf("the checkpoint is not one of a container with this configuration, and was ended: %w", err)
	}
	if err == nil {
		err = signalGroup(r.outside.Cgroup, unix.SIGCONT)
	}
	if err != nil {
		_ = r.Kill(unix.SIGKILL)
	}
	return err
}

func signalGroup(g *cgroup.Group, signal unix.Signal) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Kill ends a container that criu still makes, too.
func (r *revival) Kill(signal unix.Signal) error {
	err := r.process.Kill(signal)
	if signal == unix.SIGKILL {
		r.release.Do(func() { close(r.goOn) })
	}
	return err
}

func (r *revival) Exec(ctx context.Context, p *specs.Process, s shim.Streams) (shim.Process, error) {
	if r.Container == nil {
		return nil, errors.New("the container has not been made again yet")
	}
	return r.container.Exec(ctx, p, s)
}

func (r *revival) Cgroup() *cgroup.Group { return r.outside.Cgroup }

func (r *revival) Warnings() []string { return nil }
