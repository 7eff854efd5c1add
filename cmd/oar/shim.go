package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/sysprog"
	"wherry.dev/wherry/internal/threads"
)

// spareThreads are for a shim whose container has filled the table of processes, of which a thread is one. A kernel gives 25 kB to each.
const spareThreads = 3

// runShim waits on descriptor 3 for the container that it is to stand beside, and serves it.
func runShim(ctx context.Context, f flags) error {
	if len(f.args) > 0 {
		return errors.New("usage: oar shim, with a connected socket as descriptor 3; the engine starts it")
	}
	// Caught and dropped, not ignored: what is ignored stays so in the container's program, which could then not trap SIGTERM.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	if err := sysprog.Protect(); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/comm", []byte("oar spare"), 0)
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 255); err == nil { // grows the table of descriptors, which takes a while, ahead
		unix.Close(fd)
	}
	adj := guard()
	engine, err := inherited()
	if err != nil {
		return err
	}
	mounts := bareMounts(mountsAt)
	threads.Calm()
	shim.Warm()
	threads.Reserve(spareThreads)
	var a shim.Adoption
	var ready *ociruntime.Ready
	files, err := engine.Receive(&a)
	if err == nil && a.Prepare != nil {
		ready = prepare(engine, *a.Prepare)
		a = shim.Adoption{}
		files, err = engine.Receive(&a)
	}
	if errors.Is(err, io.EOF) {
		return nil // the engine has ended, or needs no shim any more
	}
	if err != nil || len(files) != 2 {
		return fmt.Errorf("descriptor 3: no adoption with two files: %d files, %w", len(files), err)
	}
	if !a.Prepared {
		ready.Close()
		ready = nil
	}
	l, err := adopt(a.Dir, files[0], files[1])
	if err != nil {
		return err
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go shim.ReapStrays(ctx, died) // ends with this process
	return shim.NewServer(a.Dir, builtin{a.Dir, adj, ready, mounts}).Serve(ctx, l, engine)
}

// prepare makes namespaces ahead and gives the engine the network's.
func prepare(engine *shim.Conn, ids rootfs.IDMap) *ociruntime.Ready {
	ready, err := ociruntime.MakeReady(ids)
	if err != nil {
		_ = engine.Send(shim.Response{Error: err.Error()})
		return nil
	}
	_ = engine.Send(shim.Response{}, ready.Net)
	return ready
}

// mountsAt is the descriptor of the mount namespace that the container's is copied from. An engine of before this binary was exchanged gives none: the
// number may be one that the Go runtime has, which is left alone.
const mountsAt = 4

func bareMounts(fd int) *os.File {
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNS {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "mounts")
}

// inherited is the connection to the engine.
func inherited() (*shim.Conn, error) {
	f := os.NewFile(3, "engine")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor 3 is not a connected socket: %w", err)
	}
	engine, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("descriptor 3 is not a unix socket")
	}
	return shim.NewConn(engine), nil
}

// adopt takes over what belongs to the container: where later engines knock, where to complain, and a name that ps shows.
func adopt(dir string, socket, complaints *os.File) (*net.UnixListener, error) {
	defer socket.Close()
	defer complaints.Close()
	for fd := 1; fd <= 2; fd++ {
		if err := unix.Dup3(int(complaints.Fd()), fd, 0); err != nil {
			return nil, fmt.Errorf("open the shim's log: %w", err)
		}
	}
	_ = os.WriteFile("/proc/self/comm", []byte(shim.Name(dir)), 0)
	l, err := net.FileListener(socket)
	if err != nil {
		return nil, fmt.Errorf("the task's socket: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// guard asks the out-of-memory killer to look elsewhere, as far as the kernel permits it, and returns the score from before, which is the
// containers'.
func guard() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	adj, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0)
	return adj
}

// builtin is the runtime of this very binary, in this very process.
type builtin struct {
	dir   string
	adj   int
	ready *ociruntime.Ready
	bare  *os.File
}

func (b builtin) Create(ctx context.Context, c shim.Config, s shim.Streams) (shim.Container, error) {
	made, err := ociruntime.Create(ctx, ociruntime.CreateOptions{ID: c.ID, Bundle: b.dir, Spec: c.Spec, Filter: c.Filter, Rootfs: c.Rootfs, OOMScoreAdj: b.adj, Ready: b.ready, Mounts: b.bare,
		Stdio: ociruntime.Stdio{In: s[0], Out: s[1], Err: s[2]}})
	if b.bare != nil {
		b.bare.Close()
	}
	if err != nil {
		return nil, err
	}
	p := process{pid: made.Pid(), pidfd: made.Pidfd(), console: made.Console()}
	if c.Last { // who waits for its end need not wait for its mounts' end: that comes with this process's
		p.mounts = made.HoldMounts()
	}
	return container{made, c.Spec.Hooks, b.dir, p, c}, nil
}

type process struct {
	pid     int
	pidfd   *os.File
	console *os.File
	mounts  *os.File // held; nil: not
}

func (p process) Pid() int          { return p.pid }
func (p process) Console() *os.File { return p.console }

func (p process) Reap() (code, signal int, err error) {
	status, err := ociruntime.Reap(p.pidfd)
	return status.Code, status.Signal, err
}

// Kill signals the process; one that is dead, and perhaps reaped, takes no notice.
func (p process) Kill(signal unix.Signal) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil // closed
	}
	closed := raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), signal, nil, 0) })
	if closed != nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// further is an exec's process: nobody needs its descriptor when it has been reaped. The container's own keeps its one, to be joined by.
type further struct{ process }

func (f further) Reap() (code, signal int, err error) {
	defer f.pidfd.Close()
	return f.process.Reap()
}

type container struct {
	*ociruntime.Container
	hooks *specs.Hooks
	dir   string
	process
	config shim.Config
}

func (c container) Pid() int          { return c.process.pid }
func (c container) Console() *os.File { return c.process.console }

// Start runs the program, and the hooks around that. One of those that tell of the start and fails ends the container.
func (c container) Start(ctx context.Context) error {
	if c.hooks == nil {
		return c.Container.Start()
	}
	state := specs.State{Version: specs.Version, ID: filepath.Base(c.dir), Status: specs.StateCreated, Pid: c.pid, Bundle: c.dir}
	if err := c.StartHooks(ctx, state); err != nil {
		return err
	}
	if err := c.Container.Start(); err != nil {
		return err
	}
	state.Status = specs.StateRunning
	return ociruntime.RunHooks(ctx, "poststart", c.hooks.Poststart, state)
}

func (c container) Exec(ctx context.Context, p *specs.Process, s shim.Streams) (shim.Process, error) {
	e, err := c.Container.Exec(ctx, ociruntime.ExecOptions{Process: p, Stdio: ociruntime.Stdio{In: s[0], Out: s[1], Err: s[2]}})
	if err != nil {
		return nil, err
	}
	return further{process{pid: e.Pid, pidfd: e.Pidfd, console: e.Console}}, nil
}
