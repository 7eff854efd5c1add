package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/sysprog"
)

// runShim serves one container on the listening socket that it inherits as descriptor 3.
func runShim(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("shim", flag.ContinueOnError)
	dir := flags.String("dir", "", "the task's `folder`")
	if err := flags.Parse(args); err != nil || *dir == "" {
		return errors.New("usage: oar shim --dir FOLDER, with a listening socket as descriptor 3; the engine starts it")
	}
	// Small and quiet: a shim allocates little, so it collects little; one processor is enough to copy output.
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(24 << 20)
	// Caught and dropped, not ignored: what is ignored stays so in the container's program, which could then not trap SIGTERM.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	if err := sysprog.Protect(); err != nil {
		return err
	}
	adj := guard()
	f := os.NewFile(3, "socket")
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("descriptor 3 is not a listening socket: %w", err)
	}
	f.Close()
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return errors.New("descriptor 3 is not a unix socket")
	}
	return shim.NewServer(*dir, builtin{*dir, adj}).Serve(ctx, listener)
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
	dir string
	adj int
}

func (b builtin) Create(ctx context.Context, c shim.Config, s shim.Streams) (shim.Container, error) {
	made, err := ociruntime.Create(ctx, ociruntime.CreateOptions{ID: c.ID, Bundle: b.dir, Spec: c.Spec, Filter: c.Filter, Rootfs: c.Rootfs, OOMScoreAdj: b.adj,
		Stdio: ociruntime.Stdio{In: s[0], Out: s[1], Err: s[2]}})
	if err != nil {
		return nil, err
	}
	return container{made, process{made.Pid(), made.Pidfd(), made.Console()}}, nil
}

type process struct {
	pid     int
	pidfd   *os.File
	console *os.File
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
	process
}

func (c container) Pid() int          { return c.process.pid }
func (c container) Console() *os.File { return c.process.console }

func (c container) Exec(ctx context.Context, p *specs.Process, s shim.Streams) (shim.Process, error) {
	e, err := c.Container.Exec(ctx, ociruntime.ExecOptions{Process: p, Stdio: ociruntime.Stdio{In: s[0], Out: s[1], Err: s[2]}})
	if err != nil {
		return nil, err
	}
	return further{process{e.Pid, e.Pidfd, e.Console}}, nil
}
