package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const startTimeout = 10 * time.Second

// startError says why the engine could not be started.
type startError struct {
	message string
	err     error
}

func (e *startError) Error() string {
	if e.err == nil {
		return e.message
	}
	return e.message + ": " + e.err.Error()
}

func (e *startError) Unwrap() error { return e.err }

// startEngine starts wherryd apart from this process and its session, and gives the first connection to it. Two clients may do so at the
// same moment: the lock on the engine's directories lets one engine win, and both clients reach it.
func startEngine(ctx context.Context, socket string) (net.Conn, error) {
	if os.Geteuid() != 0 {
		return nil, &startError{message: "no engine runs, and only root can start one: try sudo, or have root start wherryd"}
	}
	binary, err := findEngine()
	if err != nil {
		return nil, err
	}
	state := filepath.Dir(socket)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, &startError{"start the engine", err}
	}
	log, err := os.OpenFile(filepath.Join(state, "wherryd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, &startError{"start the engine", err}
	}
	defer log.Close()
	began, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, &startError{"start the engine", err}
	}
	// What this process inherited (a lock of flock(1), a pipe of make) must not live as long as the engine.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, &startError{"start the engine: mark descriptors", err}
	}
	cmd := exec.Command(binary)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, &startError{"start the engine", err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the engine or, as it outlives this process, with this process
	return waitForEngine(ctx, socket, engineProcess{ended: ended, log: log.Name(), began: began})
}

// engineProcess is an engine that was just started.
type engineProcess struct {
	ended <-chan error
	log   string
	began int64 // where its output begins in log
}

func waitForEngine(ctx context.Context, socket string, p engineProcess) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var d net.Dialer
	var ended error
	over, pause, left := p.ended, time.Millisecond, 100
	for {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		if over == nil {
			// It ended: another one may be about to listen.
			if left--; left == 0 {
				return nil, &startError{message: fmt.Sprintf("the engine could not start (%v)%s; see %s", ended, lastLine(p), p.log)}
			}
		}
		select {
		case ended = <-over:
			over = nil
			if ended == nil {
				ended = fmt.Errorf("it ended at once")
			}
		case <-time.After(pause):
			pause = min(pause*3/2, 20*time.Millisecond)
		case <-ctx.Done():
			return nil, &startError{message: fmt.Sprintf("the engine was started but does not answer on %s after %s; see %s", socket, startTimeout, p.log)}
		}
	}
}

// lastLine of what the engine printed, which says why it ended.
func lastLine(p engineProcess) string {
	data, err := os.ReadFile(p.log)
	if err != nil || int64(len(data)) <= p.began {
		return ""
	}
	data = bytes.TrimSpace(data[p.began:])
	return ": " + string(data[bytes.LastIndexByte(data, '\n')+1:])
}

func findEngine() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "wherryd")
		if st, err := os.Stat(beside); err == nil && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath("wherryd")
	if err != nil {
		return "", &startError{message: "no engine runs, and wherryd is neither beside wherry nor in PATH: install it there, or start it by hand"}
	}
	return filepath.Abs(path)
}
