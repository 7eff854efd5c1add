// Package ociruntime creates, starts and enters containers from an OCI bundle (runtime-spec 1.3).
//
// The start of a container is a list of named steps, which stands in start.go with the protocol between the processes drawn above it.
package ociruntime

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	// Gate is read for the byte that starts the program, a pipe of Create's own where it is nil (then use Container.Start). Until Keep is
	// called the process ends with this one. One that can be written to as well is told why no program was executed (NotExecuted).
	Gate *os.File
	// OOMScoreAdj is given to processes whose configuration says none. This process's own may differ: it guards itself.
	OOMScoreAdj int
	// PreserveFDs are descriptors 3… that the program inherits.
	PreserveFDs int
	// NoNewKeyring leaves the program in the session keyring of its creator.
	NoNewKeyring bool
	// KeepGroups leaves the program the supplementary groups of this process, in place of the configuration's.
	KeepGroups bool
	// NoPivot moves the root file system over the host's instead of pivoting, for hosts that run from their initial RAM disk.
	NoPivot bool
	// Ready are namespaces to use in place of new ones, for the range of ids of Spec; Create takes them over.
	Ready *Ready
	// Mounts is what the container's mount namespace is copied from (sysprog.BareMounts), where that serves as well as this process's own. Nil: it does not.
	Mounts *os.File
	// Trace, when not nil, is told each step as it begins.
	Trace func(step string)
	// Measure the stages of the child's program (Container.Times).
	Measure bool
}

// Container is a created container whose init process is a child of this process.
type Container struct {
	spec     *specs.Spec
	process  *sysprog.Process
	program  *sysprog.Program
	pidfd    *os.File
	gate     *os.File // write side; with CreateOptions.Gate until Keep
	console  *os.File
	devpts   *os.File
	cgroup   *cgroup.Group
	ids      rootfs.IDMap
	execs    execPaths
	told     report
	files    view // until the program runs
	userns   *os.File
	filter   filter // every exec's too
	oomScore int
}

// report is what a start has to say.
type report struct {
	warnings []string
	clock    *sysprog.Clock
	times    []sysprog.Part
}

func (c *Container) Pid() int { return c.process.Pid }

// Pidfd polls readable when the init process has exited. The caller owns reaping: waitid(P_PIDFD, WEXITED).
func (c *Container) Pidfd() *os.File { return c.pidfd }

// HoldMounts gives the container's mount namespace: while it is open the mounts stay in place when the process ends. Taking them down waits for
// grace periods of the kernel's, and the end is seen after that. Nil: the kernel cannot (PIDFD_GET_MNT_NAMESPACE, before 6.11).
func (c *Container) HoldMounts() *os.File {
	const getMountNamespace = 0xff<<8 | 3 // include/uapi/linux/pidfd.h
	fd, err := unix.IoctlRetInt(descriptor(c.pidfd), getMountNamespace)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "mounts")
}

// Console is the terminal's master side; nil without a terminal.
func (c *Container) Console() *os.File { return c.console }

// Cgroup is the container's control group, nil where it has none.
func (c *Container) Cgroup() *cgroup.Group { return c.cgroup }

// Warnings say what was asked for and could not be had.
func (c *Container) Warnings() []string { return c.told.warnings }

// Close releases descriptors. It does not stop the container.
func (c *Container) Close() error {
	for _, f := range []*os.File{c.gate, c.console, c.devpts, c.files.root, c.userns, c.pidfd} {
		if f != nil {
			f.Close()
		}
	}
	c.files.close()
	c.files.parts.close()
	return nil
}
