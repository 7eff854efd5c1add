package buildclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	solver "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// buildWithShell builds, and when a step fails gives a shell where it failed: with its files as they are, its mounts, user and environment.
func (j *job) buildWithShell() gateway.BuildFunc {
	return func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		req := j.request()
		req.Evaluate = true
		res, err := g.Solve(ctx, req)
		var failed *solver.SolveError
		if err == nil || !errors.As(err, &failed) {
			return res, err
		}
		step, ok := failed.Solve.GetOp().GetOp().(*pb.Op_Exec)
		if !ok {
			return nil, err
		}
		j.watch.hush()
		if e := j.shell(ctx, g, failed.Solve, step.Exec); e != nil {
			fmt.Fprintf(j.c.Err, "no shell where it failed: %v\n", plain(e))
		}
		return nil, err
	}
}

func (j *job) shell(ctx context.Context, g gateway.Client, failed *solver.Solve, step *pb.ExecOp) error {
	req := gateway.NewContainerRequest{
		NetMode: step.Network, Platform: failed.Op.GetPlatform(), Constraints: failed.Op.GetConstraints(),
		Hostname: step.Meta.Hostname, ExtraHosts: step.Meta.ExtraHosts,
	}
	for i, m := range step.Mounts {
		mount := gateway.Mount{
			Selector: m.Selector, Dest: m.Dest, Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		}
		if i < len(failed.MountIDs) {
			mount.ResultID = failed.MountIDs[i]
		}
		req.Mounts = append(req.Mounts, mount)
	}
	box, err := g.NewContainer(ctx, req)
	if err != nil {
		return err
	}
	defer box.Release(context.WithoutCancel(ctx))
	in, interactive := j.c.In.(*os.File)
	interactive = interactive && term.IsTerminal(int(in.Fd()))
	fmt.Fprintf(j.c.Err, "This is a shell where the step failed; what it changes is thrown away. Its end ends the build.\n")
	start := gateway.StartRequest{
		Args: []string{"/bin/sh"}, Env: step.Meta.Env, User: step.Meta.User, Cwd: step.Meta.Cwd, SecretEnv: step.Secretenv,
		SecurityMode: step.Security, Tty: interactive,
		Stdin: io.NopCloser(j.c.In), Stdout: keepOpen{j.c.Out}, Stderr: keepOpen{j.c.Err},
	}
	if interactive {
		start.Env = append(start.Env, "TERM="+os.Getenv("TERM"))
	}
	return runShell(ctx, box, start, in)
}

// runShell starts a process and stays with it to its end. How it ends is nobody's concern.
func runShell(ctx context.Context, box gateway.Container, start gateway.StartRequest, terminal *os.File) error {
	if start.Tty {
		state, err := term.MakeRaw(int(terminal.Fd()))
		if err != nil {
			return fmt.Errorf("take over the terminal: %w", err)
		}
		defer term.Restore(int(terminal.Fd()), state)
	}
	proc, err := box.Start(ctx, start)
	if err != nil {
		return err
	}
	if start.Tty {
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, unix.SIGWINCH)
		defer signal.Stop(resized)
		over := make(chan struct{})
		defer close(over)
		go func() {
			for {
				if w, h, err := term.GetSize(int(terminal.Fd())); err == nil {
					_ = proc.Resize(ctx, gateway.WinSize{Rows: uint32(h), Cols: uint32(w)})
				}
				select {
				case <-resized:
				case <-over:
					return
				}
			}
		}()
	}
	_ = proc.Wait()
	return nil
}
