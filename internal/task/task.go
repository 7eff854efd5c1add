// Package task is the engine's side of a running container: it starts a shim, finds it again, and speaks to it over its socket.
package task

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/rootfs"
)

// CreateOptions say what Create makes.
type CreateOptions struct {
	Oar    string // path of the oar binary
	Dir    string // the task's own directory under --state (…/tasks/<id>): socket, exit status, bundle; made by Create
	ID     string
	Spec   *specs.Spec // written to Dir/config.json; Linux.CgroupsPath and Resources say the cgroup
	Rootfs *rootfs.Rootfs
	Stdin  bool // keep an open stdin pipe (docker's OpenStdin); terminal comes from Spec.Process.Terminal
	Log    LogOptions
}

// LogOptions say where output goes and how much of it is kept.
type LogOptions struct {
	Dir      string // segments are written here; made by Create
	MaxSize  int64  // bytes of a segment before rotation; 0: 20 MiB
	MaxFiles int    // segments kept; 0: 5
}

// Exit is how a container's init process ended.
type Exit struct {
	Code      int // 128+n for signal n
	Signal    int
	At        time.Time
	OOMKilled bool
	// OOMVictim is the process that the kernel killed ("python3 (pid 4711, anon 90 MiB)"), empty where unknown.
	OOMVictim string
	// Lost says that the shim died before the exit was seen: the container was killed through its cgroup and Code is 137.
	Lost bool
}

// Task is a container's process and its shim.
type Task struct{}

// Create starts a shim and has it create the container: namespaces exist, the process waits for Start.
func Create(ctx context.Context, o CreateOptions) (*Task, error) { panic("not written yet") }

// Open finds the shim of an earlier engine's life again. errdefs.ErrNotFound where the shim is gone and left no exit status; a task whose
// shim is gone but that left its exit status opens, and Wait returns at once.
func Open(ctx context.Context, dir string) (*Task, error) { panic("not written yet") }

func (t *Task) Pid() int { panic("not written yet") }

// Namespace opens one of the init process's namespaces ("net", "user", "ipc", …), pinned against pid reuse.
func (t *Task) Namespace(name string) (*os.File, error) { panic("not written yet") }

// Started says whether Start has been called with success in any engine's life.
func (t *Task) Started() bool { panic("not written yet") }

// Start executes the user's program. Errors of execve come back as *ExecError.
func (t *Task) Start(ctx context.Context) error { panic("not written yet") }

// ExecError is ociruntime.ExecError as it crosses the socket.
type ExecError struct {
	Code    int // 126 or 127
	Message string
}

func (e *ExecError) Error() string { return e.Message }

// Kill sends a signal to the init process, or with all to every process of the cgroup (cgroup.kill for SIGKILL).
func (t *Task) Kill(ctx context.Context, signal int, all bool) error { panic("not written yet") }

// Wait returns when the init process is dead and its cgroup is empty and all its output is in the log.
func (t *Task) Wait(ctx context.Context) (Exit, error) { panic("not written yet") }

// Stdin is the write side of the container's stdin (the terminal's master with a terminal); nil without one. The caller closes it;
// closing does not end the container's stdin.
func (t *Task) Stdin() (*os.File, error) { panic("not written yet") }

// CloseStdin ends the container's stdin.
func (t *Task) CloseStdin(ctx context.Context) error { panic("not written yet") }

func (t *Task) Resize(ctx context.Context, rows, cols uint16) error { panic("not written yet") }

// ExecOptions describe one more process.
type ExecOptions struct {
	ID      string
	Process *specs.Process
	// In, Out, Err are the process's own ends (pipes); nil means /dev/null. Ignored with a terminal.
	In, Out, Err *os.File
}

// Exec runs a process in the container; it returns when execve has happened, or *ExecError.
func (t *Task) Exec(ctx context.Context, o ExecOptions) (*Process, error) { panic("not written yet") }

// Process is a running exec.
type Process struct {
	Pid     int
	Console *os.File // the terminal's master side, nil without a terminal
}

// Wait returns the exec's exit code once its process has exited. It does not wait for grandchildren that hold the streams.
func (p *Process) Wait(ctx context.Context) (code int, err error)      { panic("not written yet") }
func (p *Process) Kill(ctx context.Context, signal int) error          { panic("not written yet") }
func (p *Process) Resize(ctx context.Context, rows, cols uint16) error { panic("not written yet") }

// Delete kills what is left, removes cgroup and directory, and ends the shim. It refuses while the cgroup is populated after the kill.
func (t *Task) Delete(ctx context.Context) error { panic("not written yet") }

// Close drops the engine's connection only.
func (t *Task) Close() error { panic("not written yet") }
