package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// runInit is the small first process of --init: it starts the command, forwards signals to it, reaps whatever else ends, and ends with
// the command's exit code.
func runInit(_ context.Context, f flags) error {
	args := f.args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("usage: oar init -- COMMAND …")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitCode(127)
		}
		return exitCode(126)
	}
	signals, ended := make(chan os.Signal, 64), make(chan os.Signal, 1)
	signal.Notify(signals)
	signal.Notify(ended, unix.SIGCHLD) // of its own: one that is lost among others could be the last
	child, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: foreground()})
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		return exitCode(126)
	}
	for {
		select {
		case <-ended:
			if code, done := reapAll(child.Pid); done {
				return exitCode(code)
			}
		case s := <-signals:
			if s != unix.SIGCHLD && s != unix.SIGURG && s != unix.SIGPIPE { // SIGURG is how the Go runtime interrupts itself
				_ = child.Signal(s)
			}
		}
	}
}

// foreground gives the command a process group of its own, and the terminal, where there is one, to it: what is typed there then reaches
// the command once, and not by way of this process a second time.
func foreground() *unix.SysProcAttr {
	attr := &unix.SysProcAttr{Setpgid: true}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		attr.Foreground, attr.Ctty = true, 0
	}
	return attr
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
