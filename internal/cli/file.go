package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// fileCommands take files into and out of containers.
func fileCommands() []command {
	return []command{
		{name: "cp", also: []string{"container cp"}, group: groupCommon, short: "Copy files into or out of a container", build: copyCommand},
		{name: "diff", also: []string{"container diff"}, group: groupOther, short: "List what a container changed in its files", build: diffCommand},
		{name: "commit", also: []string{"container commit"}, group: groupOther, short: "Make an image of a container's files", build: commitCommand},
		{name: "export", also: []string{"container export"}, group: groupOther, short: "Write a container's files to a tar archive", build: exportCommand},
	}
}

func diffCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "diff [OPTIONS] CONTAINER", Args: exactly(1)}
	var format string
	formatFlag(cmd, &format, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rows, err := changeLayout().parseRows(format, false)
		if err != nil {
			return err
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		var list []container.FilesystemChange
		if err := c.Get(cmd.Context(), containerPath(args[0], "/changes"), nil, &list); err != nil {
			return err
		}
		changes := make([]changeRow, len(list))
		for i, change := range list {
			changes[i] = changeRow{Kind: change.Kind.String(), Path: change.Path}
			if format == "" {
				fmt.Fprintln(app.Out, change.Kind, printable(oneLine(change.Path)))
			}
		}
		if format == "" {
			return nil
		}
		return writeRows(app.Out, rows, changes)
	}
	return cmd
}

// changeRow is a line of `diff`.
type changeRow struct {
	Kind string // A, C or D: added, changed, deleted
	Path string
}

func changeLayout() layout { return layout{table: `{{.Kind}}\t{{.Path}}`} }

func commitCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "commit [OPTIONS] CONTAINER [NAME[:TAG]]", Args: between(1, 2)}
	var author, message string
	var changes listFlag
	var pause bool
	cmd.Flags().StringVarP(&author, "author", "a", "", "Who made it")
	cmd.Flags().StringVarP(&message, "message", "m", "", "What it is about")
	cmd.Flags().VarP(&changes, "change", "c", "Instruction of a Dockerfile to apply, such as 'ENV A=b'")
	cmd.Flags().BoolVarP(&pause, "pause", "p", true, "Freeze the container while its files are read")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		q := url.Values{"container": {args[0]}, "changes": changes.values}
		if !pause {
			q.Set("pause", "0")
		}
		if author != "" {
			q.Set("author", author)
		}
		if message != "" {
			q.Set("comment", message)
		}
		if len(args) == 2 {
			if err := oneTag(args[1]); err != nil {
				return err
			}
			n := splitName(args[1])
			if n.digest != "" {
				return fmt.Errorf("commit to %s: a digest is worked out, it cannot be given: name a tag", args[1])
			}
			q.Set("repo", repository(args[1]))
			q.Set("tag", cmp.Or(n.tag, "latest"))
		}
		var made container.CommitResponse
		if err := c.Post(cmd.Context(), "/commit", q, nil, &made); err != nil {
			return err
		}
		return say(app.Out, made.ID)
	}
	return cmd
}

func exportCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "export [OPTIONS] CONTAINER", Args: exactly(1)}
	output := cmd.Flags().StringP("output", "o", "", "File to write (default standard output)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, ok := terminal(app.Out); ok && *output == "" {
			return errors.New("an archive is nothing for a terminal: give a file with -o, or send the output on")
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodGet, Path: containerPath(args[0], "/export")})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return saveTo(app, *output, res.Body)
	}
	return cmd
}

// splitCopy parts CONTAINER:PATH. Paths that begin with a slash or a dot are this machine's, whatever colons they have.
func splitCopy(arg string) (name, path string) {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	name, path, ok := strings.Cut(arg, ":")
	if !ok {
		return "", arg
	}
	return name, path
}
