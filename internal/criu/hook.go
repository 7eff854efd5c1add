package criu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Hook has criu wait in the middle of its work: it runs Program then, which calls Hooked, which asks the process that runs criu, which calls At.
// An error of At ends criu's work, and is what Dump or Restore returns.
//
//	caller                       criu                      Program
//	  Dump ───────────────────────▶ runs it ─────────────────▶ Hooked
//	  At  ◀──────────────────────────────────── "action pid" ──
//	  ── "y" or "n" ──────────────────────────────────────────▶ exit code 0 or 1
//	                                goes on, or gives up
type Hook struct {
	Program string
	Actions []string // criu's names of the moments to wait at
	// At is told the container's first process, where there is one yet. Its context ends with criu.
	At func(ctx context.Context, action string, pid int) error
}

// HookVariable is set in the environment of Program, and of nothing else.
const HookVariable = "WHERRY_CRIU_HOOK"

// serve answers until the function that it returns is called, which says how At has failed.
func (h *Hook) serve(ctx context.Context, cmd *exec.Cmd) (done func() error, err error) {
	if h == nil {
		return func() error { return nil }, nil
	}
	asked, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answer, answered, err := os.Pipe()
	if err != nil {
		asked.Close()
		ask.Close()
		return nil, err
	}
	self := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/"
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s%d %s%d %s", HookVariable, self, ask.Fd(), self, answer.Fd(), strings.Join(h.Actions, ",")))
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		var failure error
		lines := bufio.NewScanner(asked)
		for lines.Scan() {
			action, text, _ := strings.Cut(lines.Text(), " ")
			pid, _ := strconv.Atoi(text)
			word := "y"
			if err := h.At(ctx, action, pid); err != nil {
				failure, word = err, "n"
			}
			if _, err := answered.WriteString(word); err != nil {
				break
			}
		}
		failed <- failure
	}()
	return func() error {
		cancel()
		ask.Close()
		err := <-failed
		for _, f := range []*os.File{asked, answer, answered} {
			f.Close()
		}
		return err
	}, nil
}

// Hooked is Program's part: it asks the process that runs criu, and returns the exit code that criu wants.
func Hooked(variable string) int {
	to, from, actions := "", "", ""
	if n, err := fmt.Sscan(variable, &to, &from, &actions); n != 3 || err != nil {
		return 1
	}
	action := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	if !strings.Contains(","+actions+",", ","+action+",") {
		return 0
	}
	ask, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return 1
	}
	answer, err := os.Open(from)
	if err != nil {
		return 1
	}
	if _, err := fmt.Fprintf(ask, "%s %s\n", action, os.Getenv("CRTOOLS_INIT_PID")); err != nil {
		return 1
	}
	ask.Close() // so that the other side sees an end when criu has gone
	word := make([]byte, 1)
	if n, err := answer.Read(word); n != 1 || err != nil || word[0] != 'y' {
		return 1
	}
	return 0
}
