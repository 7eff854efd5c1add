package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

var errEngineGone = errors.New("the engine went away before the container ended, which goes on without it: wherry ps and wherry logs tell more")

// isCut tells that a connection ended in the middle.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// read gives the answer when it comes.
func (w *waiting) read() (container.WaitResponse, error) {
	defer w.body.Close()
	var answer container.WaitResponse
	if err := json.NewDecoder(w.body).Decode(&answer); err != nil {
		if isCut(err) {
			err = errEngineGone
		}
		return answer, err
	}
	return answer, failureOf(answer)
}

func failureOf(answer container.WaitResponse) error {
	if answer.Error != nil && answer.Error.Message != "" {
		return errors.New(answer.Error.Message)
	}
	return nil
}

// result is read with an end.
func (w *waiting) result(most time.Duration) (container.WaitResponse, error) {
	timer := time.AfterFunc(most, func() { w.body.Close() })
	defer timer.Stop()
	return w.read()
}

func (w *waiting) exit(id string) error {
	answer, err := w.read()
	if err != nil {
		return &exitError{125, fmt.Errorf("container %s: %w", shortID(id), err)}
	}
	return exitOf(id, answer)
}

func exitOf(id string, answer container.WaitResponse) error {
	if err := failureOf(answer); err != nil {
		return &exitError{125, fmt.Errorf("container %s: %w", shortID(id), err)}
	}
	if answer.StatusCode != 0 {
		return &exitError{code: int(answer.StatusCode)}
	}
	return nil
}

func waitCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "wait [OPTIONS] CONTAINER...", Args: atLeast(1)}
	condition := cmd.Flags().String("condition", "", "What to wait for: not-running (also stopped or exited), next-exit, removed or healthy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch *condition {
		case "": // as not-running
		case "stopped", "exited": // Podman's words
			*condition = "not-running"
		default:
			if _, err := oneOf("not-running", "next-exit", "removed", "healthy")(*condition); err != nil {
				return fmt.Errorf("--condition %s: %w", *condition, err)
			}
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			if *condition == "healthy" {
				if err := awaitHealthy(cmd.Context(), app, name); err != nil {
					return err
				}
				_, err := fmt.Fprintln(app.Out, name)
				return err
			}
			w, err := armWait(cmd.Context(), c, name, container.WaitCondition(*condition))
			if err != nil {
				return err
			}
			answer, err := w.read()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(app.Out, answer.StatusCode)
			return err
		})
	}
	return cmd
}
