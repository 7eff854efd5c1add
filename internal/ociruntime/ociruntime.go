// Package ociruntime creates, starts and enters containers from an OCI bundle (runtime-spec 1.3).
//
// The start of a container is a list of named steps. The first half is ordinary Go and works by descriptor on things that no container
// sees yet (prepare.go, mounts.go): the user namespace, detached file systems, mount targets. The second half is a program of system
// calls that the container's first process runs in its new namespaces until it executes the user's program (program.go):
//
//	this process                          first child (X)              the container's process
//	  prepare …
//	  clone X ───────────────────────────▶ raise limits
//	                                       join the user namespace
//	                                       join namespaces by path
//	                                       clone3(CLONE_PARENT) ─────▶ tell of the clone (futex)
//	  ◀──────────────────────────────────────────────────────────────  enter control groups
//	                                                                   attach mounts, mask, host name
//	  [◀────────────────────────────────────────────────── byte 'h' ── mounts are made
//	   hooks ──── byte 'h' ─────────────────────────────────────────▶] pivot
//	                                                                   cgroup namespace, streams, close all else
//	  [◀────────────────────────────────────────────────── byte 'r' ── at the gate, where it is the caller's]
//	  Start ───── byte 's' ─────────────────────────────────────────▶ identity, seccomp, execve
//	  ◀─────────────────────────────── the kernel clears the futex ── (execve or exit)
//	                                       exits (it slept: vfork)
package ociruntime

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
)

// Stdio are the container process's ends of its standard streams. A nil file means /dev/null. With a terminal all are ignored.
type Stdio struct{ In, Out, Err *os.File }

// CreateOptions say what Create makes. Spec and ID are needed; the rest's zero values work.
type CreateOptions struct {
	ID     string
	Bundle string         // the bundle's directory: relative root paths and hooks' state
	Spec   *specs.Spec    // already decoded config.json
	Filter []byte         // the compiled seccomp profile; nil: Spec.Linux.Seccomp is compiled
	Rootfs *rootfs.Rootfs // nil: Spec.Root.Path, a directory
	Stdio  Stdio
	// Cgroup that the process joins; nil: made from Spec.Linux.CgroupsPath and Resources.
	Cgroup *cgroup.Group
	// LimitsOptional has the container made without control group and limits where this process may make none.
	LimitsOptional bool
	// Gate is read for the byte that starts the program, a pipe of Create's own where it is nil (then use Container.Start).
	Gate *os.File
	// OOMScoreAdj is given to processes whose configuration says none. This process's own may differ: it guards itself.
	OOMScoreAdj int
	// PreserveFDs are descriptors 3… that the program inherits.
	PreserveFDs int
	// NoNewKeyring leaves the program in the session keyring of its creator.
	NoNewKeyring bool
	// Trace, when not nil, is told each step as it begins.
	Trace func(step string)
}

// Container is a created container whose init process is a child of this process.
type Container struct {
	spec     *specs.Spec
	process  *sysprog.Process
	program  *sysprog.Program
	pidfd    *os.File
	gate     *os.File // write side; nil with CreateOptions.Gate
	console  *os.File
	devpts   *os.File
	cgroup   *cgroup.Group
	ids      rootfs.IDMap
	execs    execPaths
	warnings []string
	files    view // until the program runs
	userns   *os.File
	filter   filter // every exec's too
	oomScore int
}

func (c *Container) Pid() int { return c.process.Pid }

// Pidfd polls readable when the init process has exited. The caller owns reaping: waitid(P_PIDFD, WEXITED).
func (c *Container) Pidfd() *os.File { return c.pidfd }

// Console is the terminal's master side; nil without a terminal.
func (c *Container) Console() *os.File { return c.console }

// Cgroup is the container's control group, nil where it has none.
func (c *Container) Cgroup() *cgroup.Group { return c.cgroup }

// Warnings say what was asked for and could not be had.
func (c *Container) Warnings() []string { return c.warnings }

// Close releases descriptors. It does not stop the container.
func (c *Container) Close() error {
	for _, f := range []*os.File{c.gate, c.console, c.devpts, c.files.root, c.userns, c.pidfd} {
		if f != nil {
			f.Close()
		}
	}
	c.files.close()
	return nil
}
