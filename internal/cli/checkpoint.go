package cli

import (
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/moby/moby/api/types/checkpoint"
	"github.com/spf13/cobra"
)

// checkpointCommands write running containers to disk; start --checkpoint lets them go on.
func checkpointCommands() []command {
	line := func(name, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: groupOther, short: short, build: build}
	}
	return []command{
		line("checkpoint create", "Write the processes of a running container to disk, to go on later", checkpointCreateCommand),
		line("checkpoint ls", "List the checkpoints of a container", checkpointListCommand, "checkpoint list"),
		line("checkpoint rm", "Remove a checkpoint", checkpointRemoveCommand, "checkpoint remove"),
	}
}

// checkpointDirFlag is a folder on the engine's host.
func checkpointDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "checkpoint-dir", "", "Folder on the engine's host that checkpoints are in (default the container's own)")
}

// hostDir makes a folder's name absolute, as a shell's user means it.
func hostDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	return filepath.Abs(dir)
}

func checkpointCreateCommand(app *App) *cobra.Command {
	var dir string
	var leave bool
	cmd := &cobra.Command{Use: "create [OPTIONS] CONTAINER CHECKPOINT", Args: between(2, 2)}
	cmd.Flags().BoolVar(&leave, "leave-running", false, "Let the container go on")
	checkpointDirFlag(cmd, &dir)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		if dir, err = hostDir(dir); err != nil {
			return err
		}
		body := checkpoint.CreateRequest{CheckpointID: args[1], CheckpointDir: dir, Exit: !leave}
		if err := c.Post(cmd.Context(), containerPath(args[0], "/checkpoints"), nil, body, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Out, args[1])
		return err
	}
	return cmd
}

// checkpointRow is a line of `checkpoint ls`.
type checkpointRow struct {
	Name string `head:"CHECKPOINT NAME"`
}

func checkpointListCommand(app *App) *cobra.Command {
	var dir, format string
	var quiet bool
	cmd := &cobra.Command{Use: "ls [OPTIONS] CONTAINER", Args: between(1, 1)}
	checkpointDirFlag(cmd, &dir)
	cmd.Flags().StringVar(&format, "format", "", "Format the output: table, json, or a Go template")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print names only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rows, err := layout{table: `{{.Name}}`, raw: `name: {{.Name}}\n`, quiet: "{{.Name}}"}.parseRows(format, quiet)
		if err != nil {
			return err
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		if dir, err = hostDir(dir); err != nil {
			return err
		}
		var list []checkpoint.Summary
		if err := c.Get(cmd.Context(), containerPath(args[0], "/checkpoints"), dirQuery("dir", dir), &list); err != nil {
			return err
		}
		var out []checkpointRow
		for _, s := range list {
			out = append(out, checkpointRow{s.Name})
		}
		return writeRows(app.Out, rows, out)
	}
	return cmd
}

func dirQuery(name, dir string) url.Values {
	if dir == "" {
		return nil
	}
	return url.Values{name: {dir}}
}

func checkpointRemoveCommand(app *App) *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "rm [OPTIONS] CONTAINER CHECKPOINT", Args: between(2, 2)}
	checkpointDirFlag(cmd, &dir)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		if dir, err = hostDir(dir); err != nil {
			return err
		}
		path := containerPath(args[0], "/checkpoints/"+url.PathEscape(args[1]))
		return c.Delete(cmd.Context(), path, dirQuery("dir", dir), nil)
	}
	return cmd
}
