package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	units "github.com/docker/go-units"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	dockercontainer "github.com/moby/moby/api/types/container"
	dockernetwork "github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

// step is one RUN while it runs.
type step struct {
	x       *stepExecutor
	id      string // its own
	name    string // BuildKit's, by which more processes are run in it
	process executor.ProcessInfo
	root    rootfs.Rootfs
	input   spec.Input
	spec    *specs.Spec
	task    *task.Task
	up      chan struct{} // closed when the program runs
	over    chan struct{} // closed when all of it is gone
	held    []*os.File
	undo    []func(context.Context) error
}

func (s *step) dir() string { return filepath.Join(s.x.b.steps(), s.id) }

func (s *step) logDir() string { return filepath.Join(s.dir(), "output") }

func (s *step) onUndo(fn func(context.Context) error) { s.undo = append(s.undo, fn) }

// undoAll takes away what make made, in reverse.
func (s *step) undoAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i](ctx))
	}
	s.undo = nil
	s.release()
	return errors.Join(errs...)
}

// hold keeps a file open until the task is made, and is the path by which the runtime finds it.
func (s *step) hold(f *os.File) string {
	s.held = append(s.held, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

func (s *step) release() {
	for _, f := range s.held {
		f.Close()
	}
	s.held = nil
}

// make makes the sandbox, up to the program that waits to be started.
func (s *step) make(ctx context.Context, root executor.Mount, mounts []executor.Mount) error {
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return err
	}
	s.onUndo(func(context.Context) error { return rootfs.RemoveTree(s.dir()) })
	ids, err := s.takeRange()
	if err != nil {
		return err
	}
	if err := s.findRoot(ctx, root, ids); err != nil {
		return err
	}
	if err := s.configure(ctx, ids); err != nil {
		return err
	}
	if err := s.findMounts(ctx, mounts); err != nil {
		return err
	}
	layers := s.layers()
	if s.root.Upper != "" {
		if err := container.MakeDir(s.root, layers, s.process.Meta.Cwd); err != nil {
			return err
		}
	}
	home := ""
	if s.input.User, home, err = container.FindIn(layers, s.process.Meta.User, ids); err != nil {
		return err
	}
	if s.input.Edits, err = s.deviceEdits(); err != nil {
		return err
	}
	s.input.Env = []string{"HOME=" + home}
	if dates := s.x.b.o.dates(); dates != "" { // programs that know it write no other date either, and Python's compiled files stay valid
		s.input.Env = append(s.input.Env, "SOURCE_DATE_EPOCH="+dates)
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if s.spec, err = spec.Build(s.input); err != nil {
		return err
	}
	s.sweepStubs(layers)
	return s.begin(ctx)
}

// insecure says that the step has all rights, as a privileged container has.
func (s *step) insecure() bool { return s.process.Meta.SecurityMode == pb.SecurityMode_INSECURE }

// takeRange gives the step its ids: its own, or the host's.
func (s *step) takeRange() (rootfs.IDMap, error) {
	if s.insecure() {
		return rootfs.IDMap{}, nil
	}
	ids, err := s.x.ground.Ranges.Take()
	if err == nil {
		s.onUndo(func(context.Context) error { s.x.ground.Ranges.Give(ids); return nil })
	}
	return ids, err
}

// layers of the root file system, topmost first.
func (s *step) layers() []string {
	if s.root.Upper == "" {
		return s.root.Lower
	}
	return append([]string{s.root.Upper}, s.root.Lower...)
}

// configure says what the sandbox is like: an ordinary container's.
func (s *step) configure(ctx context.Context, ids rootfs.IDMap) (err error) {
	m := &s.process.Meta
	hostname := m.Hostname
	if hostname == "" {
		hostname = "buildkitsandbox" // the same on every machine, as the same build is to come out on each
	}
	mode, parent, err := s.x.b.placeOf(ctx, m)
	if err != nil {
		return err
	}
	h := &dockercontainer.HostConfig{NetworkMode: mode, ReadonlyRootfs: m.ReadonlyRootFS || s.root.Upper == "", Privileged: s.insecure()}
	if r := m.LinuxResources; r != nil {
		h.Memory, h.MemorySwap = r.Memory, r.MemorySwap
		h.CPUShares, h.CPUPeriod, h.CPUQuota, h.CpusetCpus, h.CpusetMems = int64(r.CpuShares), int64(r.CpuPeriod), r.CpuQuota, r.CpusetCpus, r.CpusetMems
	}
	for _, u := range m.Ulimit {
		h.Ulimits = append(h.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	s.input = spec.Input{
		ID: s.id, HostConfig: container.Defaults(h), Hostname: hostname, Base: ids.Base, Size: ids.Size, Oar: s.x.ground.Oar,
		CgroupPath: s.x.ground.Cgroup(parent, s.id), MaxRlimits: s.x.ground.MaxRlimits,
		Config: &dockercontainer.Config{Hostname: hostname, Cmd: m.Args, Env: m.Env, WorkingDir: m.Cwd, Tty: m.Tty, OpenStdin: s.process.Stdin != nil},
	}
	s.input.Devices, s.input.DeviceRules, err = container.Devices(h)
	return err
}

// deviceEdits are what devices add that vendors describe. BuildKit has seen to it that the client allows them.
func (s *step) deviceEdits() (spec.Edits, error) {
	if len(s.process.Meta.CDIDevices) == 0 {
		return spec.Edits{}, nil
	}
	devices := s.x.b.devices()
	if devices == nil { // those that are not required are done without
		return spec.Edits{}, nil
	}
	names, err := devices.FindDevices(s.process.Meta.CDIDevices...)
	if err != nil {
		return spec.Edits{}, err
	}
	return s.x.b.o.CDI.Edits(names, s.input.User)
}

func networkMode(m pb.NetMode) dockercontainer.NetworkMode {
	switch m {
	case pb.NetMode_HOST:
		return "host"
	case pb.NetMode_NONE:
		return "none"
	}
	return "bridge"
}

// connect reserves an address and writes the files of /etc.
func (s *step) connect(ctx context.Context) error {
	mode, hostname := s.input.HostConfig.NetworkMode, s.input.Hostname
	var extra []string
	for _, e := range s.process.Meta.ExtraHosts {
		extra = append(extra, e.Host+":"+e.IP.String())
	}
	content := network.WithResolvers(s.x.b.o.Networks, sandbox.HostNetwork{Hostname: hostname, ExtraHosts: extra}).Content()
	if !mode.IsHost() {
		q := network.AllocateRequest{ContainerID: s.id, Name: "build-" + s.id[:12], Hostname: hostname, First: string(mode), ExtraHosts: extra,
			Networks: map[string]*dockernetwork.EndpointSettings{string(mode): {}}}
		a, err := s.x.b.o.Networks.Allocate(ctx, q)
		if err != nil {
			return err
		}
		s.onUndo(func(ctx context.Context) error { return s.x.b.o.Networks.Release(ctx, s.id) })
		content = sandbox.Content{Hosts: a.Hosts, ResolvConf: a.ResolvConf, Hostname: hostname}
	}
	dir := s.x.ground.EtcDir(s.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s.onUndo(func(context.Context) error { return os.RemoveAll(dir) })
	files := sandbox.FilesIn(dir)
	if err := files.Write(content); err != nil {
		return err
	}
	s.input.Hosts, s.input.HostnameFile, s.input.ResolvConf = files.Hosts, files.Hostname, files.ResolvConf
	if s.x.ground.Mapped {
		return nil
	}
	for _, path := range []string{files.Hosts, files.Hostname, files.ResolvConf} {
		if err := os.Lchown(path, int(s.input.Base), int(s.input.Base)); err != nil {
			return fmt.Errorf("give a file of /etc to a step: %w", err)
		}
	}
	return nil
}

// begin gives the step to a shim, and plumbs the network beside that.
func (s *step) begin(ctx context.Context) (err error) {
	making, err := task.Begin(ctx, task.CreateOptions{Shims: s.x.ground.Shims, Dir: filepath.Join(s.dir(), "task"), ID: s.id, Spec: s.spec, Rootfs: &s.root,
		Filters: s.x.ground.Filters, Stdin: s.process.Stdin != nil, Log: task.LogOptions{Dir: s.logDir(), MaxSize: 4 << 20, MaxFiles: 2}})
	if err != nil {
		return err
	}
	attached := s.input.HostConfig.NetworkMode.IsHost()
	if making.Net != nil && !attached {
		if err := s.x.b.o.Networks.Attach(ctx, s.id, making.Net); err != nil {
			making.Abort(context.WithoutCancel(ctx))
			return err
		}
		attached = true
	}
	if s.task, err = making.Finish(ctx); err != nil {
		return err
	}
	s.onUndo(s.task.Delete)
	s.release()
	if attached {
		return nil
	}
	netns, err := s.task.Namespace("net")
	if err != nil {
		if why := s.task.Start(ctx); why != nil {
			return why
		}
		return err
	}
	defer netns.Close()
	return s.x.b.o.Networks.Attach(ctx, s.id, netns)
}

// endSteps ends what an engine that was killed has left of its builds' steps.
func endSteps(ctx context.Context, dir string, o Options) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ground := container.GroundOf(o.Containers)
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		if t, opened := task.Open(ctx, filepath.Join(at, "task")); opened == nil {
			err = errors.Join(err, t.Delete(ctx))
		}
		err = errors.Join(err, detachAll(filepath.Join(at, "mounts")), rootfs.RemoveTree(at), os.RemoveAll(ground.EtcDir(e.Name())))
	}
	return err
}
