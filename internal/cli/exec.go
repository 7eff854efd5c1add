package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func execCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", Args: atLeast(2)}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	var req container.ExecCreateRequest
	var env envFlag
	var envFiles listFlag
	var keys string
	var detach bool
	fs.BoolVarP(&detach, "detach", "d", false, "Leave it running")
	fs.BoolVarP(&req.AttachStdin, "interactive", "i", false, "Pass standard input on")
	fs.BoolVarP(&req.Tty, "tty", "t", false, "Give it a terminal")
	fs.BoolVar(&req.Privileged, "privileged", false, "Give it all powers that the container's user namespace can give")
	fs.StringVarP(&req.User, "user", "u", "", "User that it runs as, NAME|UID[:GROUP|GID]")
	fs.StringVarP(&req.WorkingDir, "workdir", "w", "", "Working directory in the container")
	fs.VarP(&env, "env", "e", "Variable of the environment: NAME=value, or NAME to pass this one's on, or NAME* for all that begin so")
	fs.Var(&envFiles, "env-file", "File of variables, one a line")
	fs.StringVar(&keys, "detach-keys", "", "Keys that leave it running (default ctrl-p,ctrl-q)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fromFiles, err := readEnvFiles(envFiles.values)
		if err != nil {
			return err
		}
		req.Env, req.Cmd = append(fromFiles, env.values...), args[1:]
		s := &session{app: app, tty: req.Tty}
		if s.keys, err = detachKeys(app, keys); err != nil {
			return err
		}
		if detach {
			req.AttachStdin = false
			return execDetached(cmd.Context(), app, args[0], req)
		}
		if err := checkInput(app, req.AttachStdin, req.Tty); err != nil {
			return err
		}
		req.AttachStdout, req.AttachStderr = true, true
		req.DetachKeys = keys
		if req.AttachStdin {
			s.in = app.In
		}
		return execAttached(cmd.Context(), s, args[0], req)
	}
	return cmd
}

func createExec(ctx context.Context, c *client.Client, name string, req container.ExecCreateRequest) (id string, err error) {
	var made container.ExecCreateResponse
	err = c.Post(ctx, "/containers/"+url.PathEscape(name)+"/exec", nil, req, &made)
	return made.ID, err
}

func execDetached(ctx context.Context, app *App, name string, req container.ExecCreateRequest) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	id, err := createExec(ctx, c, name, req)
	if err != nil {
		return err
	}
	err = c.Post(ctx, "/exec/"+id+"/start", nil, container.ExecStartRequest{Detach: true, Tty: req.Tty}, nil)
	if err != nil {
		return execFailure(err)
	}
	return nil
}

func execAttached(ctx context.Context, s *session, name string, req container.ExecCreateRequest) error {
	c, err := s.app.Client()
	if err != nil {
		return err
	}
	size := terminalSize(s.app)
	if req.Tty && size != [2]uint{} {
		req.ConsoleSize = &size
	}
	var talk conversation
	if err := talk.begin(ctx, c, client.Request{Path: "/wherry/exec/" + url.PathEscape(name)}, req); err != nil {
		return execFailure(err)
	}
	if req.Tty {
		s.resize = "/exec/" + talk.id + "/resize"
	}
	s.note = talk.hear
	if err := s.attach(ctx, talk.streams); err != nil {
		if errors.Is(err, errDetached) {
			fmt.Fprintln(s.app.Err)
			return err
		}
		return fmt.Errorf("exec in container %s: %w", name, err)
	}
	if talk.failed != nil {
		return execFailure(talk.failed)
	}
	if talk.ended != nil {
		return exitOf(talk.id, *talk.ended)
	}
	return lateExit(ctx, c, name, talk.id)
}

// lateExit asks for an exec's exit status after the engine has gone away in the middle: its next life may know it.
func lateExit(ctx context.Context, c *client.Client, name, id string) error {
	var about container.ExecInspectResponse
	if err := c.Get(ctx, "/exec/"+id+"/json", nil, &about); err != nil {
		return fmt.Errorf("exit status of the exec in container %s: %w", name, err)
	}
	if about.ExitCode == nil {
		return fmt.Errorf("exec in container %s: the engine went away before the command ended, which goes on without it", name)
	}
	if *about.ExitCode != 0 {
		return &exitError{code: *about.ExitCode}
	}
	return nil
}

// execFailure gives the statuses of a shell to a command that could not be run, and 1 to everything else.
func execFailure(err error) error {
	var exit *exitError
	if failure := startFailure(err); errors.As(failure, &exit) && exit.code != 125 {
		return failure
	}
	return err
}
