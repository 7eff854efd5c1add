// Package task is the engine's side of a running container: it starts a shim, finds it again, and speaks to it over its socket.
//
// A task's folder under --state holds the bundle, the socket and, after the end, the exit status (see package shim). A Task is safe for
// many goroutines. Its kernel facts come from the shim, which is the process's parent; when the shim itself is gone without an exit
// status, the container is killed through its control group and reported as lost.
package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/why"
)

// CreateOptions say what Create makes.
type CreateOptions struct {
	Oar    string // path of the oar binary, for a shim of its own
	Shims  *Shims // instead of Oar: where shims come from
	Dir    string // the task's own directory under --state (…/tasks/<id>); made by Create
	ID     string
	Spec   *specs.Spec // written to Dir/config.json; Linux.CgroupsPath and Resources say the cgroup
	Rootfs *rootfs.Rootfs
	// Filters compiles the seccomp profile; nil: it is compiled for this task alone.
	Filters *Filters
	Hidden  []string // entries of the process's environment that are not written to Dir
	Stdin   bool     // keep an open stdin pipe (docker's OpenStdin); terminal comes from Spec.Process.Terminal
	Log     LogOptions
	Restore *shim.Restore // the checkpoint that it goes on from; nil: the program begins
	Life    int           // which of the container's starts this is, for Origin; 0: not said
	Last    bool          // the container is removed when it has ended
}

// LogOptions say where output goes and how much of it is kept.
type LogOptions struct {
	Dir      string // segments are written here; made by Create
	MaxSize  int64  // bytes of a segment before rotation; 0: 20 MiB
	MaxFiles int    // segments kept; 0: 5
}

// Exit is how a container's init process ended.
type Exit struct {
	Code       int // 128+n for signal n
	Signal     int
	At         time.Time
	OOMKilled  bool
	OOMVictim  string // name of the process that was killed last for want of memory, as far as the kernel says
	OOMUntold  bool   // not all kills were told by Follow, in any engine's life
	Started    bool
	Memory     *why.Memory    // of an end that is not a plain one
	Processes  *why.Processes // where the limit was in the way
	OutputLost int64          // bytes of output that the log lacks, and does not tell of
	// Lost says that the shim died before the exit was seen: the container was killed through its cgroup and Code is 137.
	Lost bool
}

// Task is a container's process and its shim.
type Task struct {
	dir      string
	config   shim.Config
	conn     *shim.Conn // nil: the shim is gone
	pid      int
	warnings []string
	goOn     func() // what is better begun when the container runs, or, where that is removed at its end, has ended; nil: nothing

	mu sync.Mutex // guards what follows
	calls
	started bool
	exit    *Exit
	ended   chan struct{} // closed when exit is set
	pidfd   *os.File
	oom     shortage
}

// calls are those under way.
type calls struct {
	next    uint64
	waiting map[uint64]chan reply
	broken  error
	closed  bool // by this side: the end of the connection says nothing about the shim
}

type reply struct {
	resp  shim.Response
	files []*os.File
}

// wakeAfter is when a shim that does not begin is told to go on: somebody may have stopped it when it was a spare one, nobody's.
const wakeAfter = 2 * time.Second

// Creation is a container that its shim is making. Finish or Abort ends it.
type Creation struct {
	// Net is the container's network namespace where that was made ahead; nil: the task has it when it is made.
	Net *os.File

	o    CreateOptions
	t    *Task
	call *call
	shim int // its pid
}

// Create starts a shim and has it create the container: namespaces exist, the process waits for Start.
func Create(ctx context.Context, o CreateOptions) (*Task, error) {
	c, err := Begin(ctx, o)
	if err != nil {
		return nil, err
	}
	return c.Finish(ctx)
}

// Begin gives the container to a shim and comes back while that makes it.
func Begin(ctx context.Context, o CreateOptions) (*Creation, error) {
	config := shim.Config{ID: o.ID, Rootfs: o.Rootfs, Stdin: o.Stdin, Log: shim.LogConfig(o.Log), Life: o.Life, Last: o.Last}
	if o.Spec.Linux != nil {
		config.Cgroup = o.Spec.Linux.CgroupsPath
	}
	if err := fill(&config, o); err != nil {
		return nil, fmt.Errorf("prepare the task of container %s: %w", o.ID, err)
	}
	if err := writeDir(o, config); err != nil {
		return nil, fmt.Errorf("prepare the task of container %s: %w", o.ID, err)
	}
	t := newTask(o.Dir, config)
	if o.Shims == nil {
		o.Shims = &Shims{oar: o.Oar, closed: true} // which keeps none
	}
	p, err := t.spawn(ctx, o)
	if err != nil {
		os.RemoveAll(o.Dir)
		return nil, fmt.Errorf("start the shim of container %s: %w", o.ID, err)
	}
	c := &Creation{Net: p.net, o: o, t: t, shim: p.pid}
	if c.call, err = t.send(shim.Request{Method: shim.MethodCreate, Env: o.Hidden, Restore: o.Restore}); err != nil {
		c.Abort(ctx)
		return nil, err
	}
	return c, nil
}

// written is the configuration as the disk has it.
func (o *CreateOptions) written() *specs.Spec {
	if len(o.Hidden) == 0 {
		return o.Spec
	}
	out, process := *o.Spec, *o.Spec.Process
	process.Env = slices.DeleteFunc(slices.Clone(process.Env), func(kv string) bool { return slices.Contains(o.Hidden, kv) })
	out.Process = &process
	return &out
}

// writeConfig writes the configuration for people, other runtimes and hooks. These look for the root file system where it says, which is true
// in the container's mount namespace until the pivot.
func (o *CreateOptions) writeConfig() error {
	spec := o.written()
	if spec.Hooks != nil && spec.Root != nil {
		out, root := *spec, *spec.Root
		root.Path, out.Root = rootfs.AttachedAt, &root
		spec = &out
	}
	return shim.WriteJSON(filepath.Join(o.Dir, shim.ConfigFile), spec)
}

// Finish waits until the container is made. After an error nothing is left of it.
func (c *Creation) Finish(ctx context.Context) (*Task, error) {
	t := c.t
	wake := time.AfterFunc(wakeAfter, func() { _ = unix.Kill(c.shim, unix.SIGCONT) })
	defer wake.Stop()
	err := c.o.writeConfig() // only now, beside the shim's work, which does not read it
	if err == nil {
		var resp shim.Response
		resp, _, err = c.call.await(ctx, t)
		t.pid, t.warnings = resp.Pid, resp.Warnings
	}
	if err == nil {
		t.pidfd, err = openPidfd(t.pid)
	}
	if errors.Is(err, unix.ESRCH) { // it has died on its way to the gate: the start says at what
		if _, _, why := t.call(ctx, shim.Request{Method: shim.MethodStart}); why != nil {
			err = why
		}
	}
	if err != nil {
		c.Abort(ctx)
		return nil, err
	}
	c.closeNet()
	go t.watch(context.WithoutCancel(ctx))
	return t, nil
}

// Abort undoes what the shim has made.
func (c *Creation) Abort(ctx context.Context) {
	c.closeNet()
	_ = c.t.Delete(context.WithoutCancel(ctx))
}

func (c *Creation) closeNet() {
	if c.Net != nil {
		c.Net.Close()
	}
	c.Net = nil
}

// fill gives the shim its configuration, with the seccomp profile compiled.
func fill(config *shim.Config, o CreateOptions) error {
	spec := *o.written()
	config.Spec = &spec
	if spec.Linux == nil || spec.Linux.Seccomp == nil {
		return nil
	}
	filters := o.Filters
	if filters == nil {
		filters = &Filters{}
	}
	linux := *spec.Linux
	linux.Seccomp = nil
	spec.Linux = &linux
	var err error
	config.Filter, err = filters.Compile(o.Spec.Linux.Seccomp)
	return err
}

func newTask(dir string, config shim.Config) *Task {
	var process *specs.Process
	if config.Spec != nil {
		process = config.Spec.Process
	}
	config.Spec, config.Filter = &specs.Spec{Process: process}, nil // the rest is the shim's
	return &Task{dir: dir, config: config, calls: calls{waiting: map[uint64]chan reply{}}, ended: make(chan struct{}),
		oom: shortage{news: make(chan struct{}, 1)}}
}

func writeDir(o CreateOptions, config shim.Config) error {
	if err := os.RemoveAll(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if o.Spec.Hooks != nil { // which read it while the container is made
		if err := o.writeConfig(); err != nil {
			return err
		}
	}
	return shim.WriteJSON(filepath.Join(o.Dir, shim.TaskFile), config)
}

// socketAddress reaches the socket by a descriptor of its folder: a socket's name has 107 bytes at most, a folder's may have more.
func socketAddress(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + shim.SocketFile}
}

// spawn gives the task to a shim, with a listening socket that this process has made for later engines' lives.
func (t *Task) spawn(ctx context.Context, o CreateOptions) (*shimProcess, error) {
	dir, err := os.Open(t.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", socketAddress(dir))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	socket, err := l.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	complaints, err := os.OpenFile(filepath.Join(t.dir, shim.ErrorFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer complaints.Close()
	spec := o.Spec
	if o.Restore != nil {
		spec = &specs.Spec{} // which nothing that was made ahead fits: who restores makes all namespaces
	}
	p, err := o.Shims.adopt(spec, shim.Adoption{Dir: t.dir}, socket, complaints)
	if err != nil {
		return nil, err
	}
	t.conn, t.goOn = p.conn, o.Shims.refill
	go t.receive(context.WithoutCancel(ctx))
	return p, nil
}

func (t *Task) connect(ctx context.Context, dir *os.File) error {
	c, err := net.DialUnix("unix", nil, socketAddress(dir))
	if err != nil {
		return err
	}
	t.conn = shim.NewConn(c)
	go t.receive(context.WithoutCancel(ctx))
	return nil
}

// Open finds the shim of an earlier engine's life again. errdefs.ErrNotFound where the shim is gone and left no exit status: what it has left
// is ended then. A task whose shim is gone but that left its exit status opens, and Wait returns at once. After any other error nothing is
// known, and nothing was touched: the shim was not asked (this process lacks descriptors or memory), or ctx ended before it answered.
func Open(ctx context.Context, dir string) (*Task, error) {
	var config shim.Config
	switch err := shim.ReadJSON(filepath.Join(dir, shim.TaskFile), &config); {
	case errors.Is(err, fs.ErrNotExist) || shim.Damaged(err):
		return nil, fmt.Errorf("task in %s: %w: %w", dir, err, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("task in %s: %w", dir, err)
	}
	t := newTask(dir, config)
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch err := recognize(ctx, t, f); {
	case err == nil:
		return t, nil
	case !errors.Is(err, errGone):
		return nil, fmt.Errorf("ask the shim of container %s: %w", config.ID, err)
	}
	var exit shim.Exit
	switch err := shim.ReadJSON(filepath.Join(dir, shim.ExitFile), &exit); {
	case err == nil:
		t.started = exit.Started
		t.endAs(exit)
		return t, nil
	case !errors.Is(err, fs.ErrNotExist) && !shim.Damaged(err):
		return nil, fmt.Errorf("how container %s ended: %w", config.ID, err)
	}
	t.killLost(ctx)
	return nil, fmt.Errorf("the shim of container %s is gone: %w", config.ID, errdefs.ErrNotFound)
}

// StartedAs is a copy of the first process as it was started, without what is hidden. What it points to may only be replaced.
func StartedAs(t *Task) (*specs.Process, error) {
	p := t.config.Spec.Process
	if p == nil || p.Capabilities == nil {
		return nil, fmt.Errorf("the configuration of container %s has no process", t.config.ID)
	}
	process := *p
	return &process, nil
}

// recognize asks the shim what it has. errGone where nobody listens any more, or where there is nothing that it has made.
func recognize(ctx context.Context, t *Task, dir *os.File) error {
	err := t.connect(ctx, dir)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return err
	}
	resp, err := state(ctx, t)
	if err == nil && resp.Pid > 0 {
		t.pid, t.started, t.oom.told = resp.Pid, resp.Started, resp.Noted
		t.pidfd, err = openPidfd(t.pid)
		if err == nil || resp.Exit != nil || errors.Is(err, unix.ESRCH) { // it may have ended since, which watch hears of
			go t.watch(context.WithoutCancel(ctx))
			return nil
		}
	} else if err == nil { // its engine was killed before the shim had made anything: it must not do so after we have looked
		_, _, _ = t.call(ctx, shim.Request{Method: shim.MethodDelete})
		err = errGone
	}
	_ = t.Close()
	return err
}

func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func fromShim(e shim.Exit) *Exit {
	return &Exit{Code: e.Code, Signal: e.Signal, At: e.At, OOMKilled: e.OOMKilled, OOMVictim: e.OOMVictim, Started: e.Started,
		Memory: e.Memory, Processes: e.Processes, OutputLost: e.OutputLost}
}

// killLost ends what a dead shim has left.
func (t *Task) killLost(ctx context.Context) {
	if t.config.Cgroup == "" {
		return
	}
	g, err := cgroup.Open(t.config.Cgroup)
	if err != nil {
		return
	}
	_ = g.Kill()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = g.WaitEmpty(ctx)
	_ = g.Delete()
}

// Pid is the init process's on the host.
func (t *Task) Pid() int { return t.pid }

// Warnings say what the runtime could not do as asked.
func (t *Task) Warnings() []string { return t.warnings }

// Pidfd is a copy of the init process's descriptor; the caller closes it.
func (t *Task) Pidfd() (*os.File, error) {
	t.mu.Lock() // Delete closes it
	defer t.mu.Unlock()
	if t.pidfd == nil {
		return nil, fmt.Errorf("container %s is not running: %w", t.config.ID, errdefs.ErrFailedPrecondition)
	}
	fd, err := unix.FcntlInt(t.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Namespace opens one of the init process's namespaces ("net", "user", "ipc", …), pinned against pid reuse.
func (t *Task) Namespace(name string) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(t.pid) + "/ns/" + name)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // who has ended has none
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || t.pidfd == nil || unix.PidfdSendSignal(int(t.pidfd.Fd()), 0, nil, 0) != nil {
		_ = f.Close()
		return nil, fmt.Errorf("container %s is not running: %w", t.config.ID, errdefs.ErrFailedPrecondition)
	}
	return f, nil
}

// Started says whether Start has been called with success in any engine's life.
func (t *Task) Started() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started
}

// Beginning of a task: what its engine knew when it made it.
type Beginning struct {
	At     time.Time // when it was made, right before its program could begin
	Cgroup string
	Life   int // as in CreateOptions
}

// Origin says how a task began, in whichever engine's life.
func Origin(t *Task) (Beginning, error) {
	st, err := os.Stat(filepath.Join(t.dir, shim.TaskFile))
	if err != nil {
		return Beginning{}, err
	}
	return Beginning{At: st.ModTime(), Cgroup: t.config.Cgroup, Life: t.config.Life}, nil
}

// Close drops the engine's connection only.
func (t *Task) Close() error {
	if t.conn != nil {
		t.mu.Lock()
		t.closed = true
		t.mu.Unlock()
		return t.conn.Close()
	}
	return nil
}
