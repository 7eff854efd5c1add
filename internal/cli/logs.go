package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func logsCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "logs [OPTIONS] CONTAINER", Args: exactly(1)}
	var follow, stamps, details bool
	var tail, since, until string
	fs := cmd.Flags()
	fs.BoolVarP(&follow, "follow", "f", false, "Go on with what is printed from now on")
	fs.BoolVarP(&stamps, "timestamps", "t", false, "Print when each line was printed")
	fs.BoolVar(&details, "details", false, "Print the log's labels and variables too")
	fs.StringVarP(&tail, "tail", "n", "all", "Begin with the last so many lines")
	fs.StringVar(&since, "since", "", "Begin at a moment: 10m (ago) or 2026-01-31T15:04:05")
	fs.StringVar(&until, "until", "", "End at a moment")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := strconv.Atoi(tail); err != nil && tail != "all" {
			return fmt.Errorf("--tail %s: give a number of lines, or all", tail)
		}
		q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {tail}}
		for name, on := range map[string]bool{"follow": follow, "timestamps": stamps, "details": details} {
			if on {
				q.Set(name, "1")
			}
		}
		for name, text := range map[string]string{"since": since, "until": until} {
			if text == "" {
				continue
			}
			t, err := timestamp(text, time.Now())
			if err != nil {
				return fmt.Errorf("--%s: %w", name, err)
			}
			q.Set(name, t)
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		res, err := c.Stream(cmd.Context(), client.Request{Path: containerPath(args[0], "/logs"), Query: q})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.Header.Get("Content-Type") == types.MediaTypeRawStream {
			_, err = io.Copy(app.Out, res.Body)
		} else {
			err = demultiplex(app.Out, app.Err, bufio.NewReaderSize(res.Body, 1<<16))
		}
		if err != nil {
			return fmt.Errorf("logs of container %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}
