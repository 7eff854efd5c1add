package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// runInit is the small first process of --init: it starts the command, forwards signals to it, reaps whatever else ends, and ends with
// the command's exit code.
func runInit(_ context.Context, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("usage: oar init -- COMMAND …")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		return exitCode(127)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		return exitCode(126)
	}
	for s := range signals {
		switch s {
		case unix.SIGURG, unix.SIGPIPE:
		case unix.SIGCHLD:
			if code, done := reapAll(child.Pid); done {
				return exitCode(code)
			}
		default:
			_ = child.Signal(s)
		}
	}
	return nil
}

// reapAll reaps every child that has ended and says whether the command was among them.
func reapAll(command int) (code int, done bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return code, done
		}
		if pid == command && (status.Exited() || status.Signaled()) {
			code, done = status.ExitStatus(), true
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
