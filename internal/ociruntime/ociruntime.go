// Package ociruntime creates, starts and enters containers from an OCI bundle.
package ociruntime

import (
	"context"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
)

// Stdio are the container process's ends of its standard streams. A nil file means /dev/null. With a terminal all are ignored.
type Stdio struct{ In, Out, Err *os.File }

// CreateOptions say what Create makes. Spec and ID are needed; the rest's zero values work.
type CreateOptions struct {
	ID     string
	Bundle string         // the bundle's directory: relative root paths and hooks' state
	Spec   *specs.Spec    // already decoded config.json
	Rootfs *rootfs.Rootfs // nil: Spec.Root.Path, a directory
	Stdio  Stdio
	// Cgroup that the process joins; nil: made from Spec.Linux.CgroupsPath and Resources.
	Cgroup *cgroup.Group
}

// Container is a created container whose init process is a child of this process.
type Container struct{}

// Create makes the namespaces and mounts; the init process then waits for Start. All is undone when an error is returned.
func Create(ctx context.Context, o CreateOptions) (*Container, error) { panic("not written yet") }

func (c *Container) Pid() int { panic("not written yet") }

// Pidfd polls readable when the init process has exited. The caller owns reaping: waitid(P_PIDFD, WEXITED).
func (c *Container) Pidfd() *os.File { panic("not written yet") }

// Console is the terminal's master side; nil without a terminal.
func (c *Container) Console() *os.File { panic("not written yet") }

func (c *Container) Cgroup() *cgroup.Group { panic("not written yet") }

// Start lets the init process execute the user's program and returns when execve has happened, or an *ExecError when it did not.
func (c *Container) Start() error { panic("not written yet") }

// ExecOptions describe one more process in a container.
type ExecOptions struct {
	Process *specs.Process // args, env, cwd, user, capabilities, no_new_privs, terminal, consoleSize as in the spec
	Stdio   Stdio
}

// Process is a running exec, a child of this process.
type Process struct {
	Pid     int
	Pidfd   *os.File
	Console *os.File
}

// Exec runs a process in the container's namespaces and cgroup with the same confinement as its init; it returns when execve has
// happened, or an *ExecError.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	panic("not written yet")
}

// Close releases descriptors. It does not stop the container.
func (c *Container) Close() error { panic("not written yet") }

// ExecError says why the user's program did not start. Its text names the program, the cause (also: missing interpreter, CRLF line
// ends, wrong architecture) and the remedy.
type ExecError struct {
	Path string
	Code int // 127: not found; 126: found but cannot be run
	Err  error
	Why  string
}

func (e *ExecError) Error() string { panic("not written yet") }
func (e *ExecError) Unwrap() error { return e.Err }
