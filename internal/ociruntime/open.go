package ociruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/sysprog"
)

// OpenOptions describe a container that another process created. Spec, Pid and Pidfd are needed.
type OpenOptions struct {
	Spec   *specs.Spec // as it was created from
	State  specs.State // what a seccomp agent is told of it
	Pid    int
	Pidfd  *os.File // of the init process, and surely its: the Container closes it
	Cgroup *cgroup.Group
	Filter []byte // the compiled seccomp profile; nil: Spec.Linux.Seccomp is compiled
	// RootPath is the root file system on the host; Confined alone looks there.
	RootPath string
	// OOMScoreAdj is given to processes whose configuration says none.
	OOMScoreAdj int
}

// Open makes a Container of one that runs, or waits at its gate, and is no child of this process: for Exec, with the same confinement.
func Open(o OpenOptions) (*Container, error) {
	if err := sysprog.Protect(); err != nil {
		return nil, err
	}
	if o.Spec.Linux == nil {
		o.Spec.Linux = &specs.Linux{}
	}
	filter, err := filterOf(o.Spec, o.Filter, o.State)
	if err != nil {
		return nil, err
	}
	c := &Container{spec: o.Spec, process: &sysprog.Process{Pid: o.Pid, Pidfd: descriptor(o.Pidfd)}, pidfd: o.Pidfd, cgroup: o.Cgroup, filter: filter,
		oomScore: o.OOMScoreAdj}
	proc := "/proc/" + strconv.Itoa(o.Pid)
	for _, ns := range o.Spec.Linux.Namespaces {
		if ns.Type != specs.UserNamespace {
			continue
		}
		c.ids = idsOf(o.Spec.Linux.UIDMappings)
		if c.userns, err = os.Open(proc + "/ns/user"); err != nil {
			return nil, fmt.Errorf("open the container's user namespace: %w", err)
		}
	}
	c.devpts = openDevpts(proc + "/root")
	// What was opened by the pid's number is the container's: its process has not gone until now.
	if err := unix.PidfdSendSignal(descriptor(o.Pidfd), 0, nil, 0); err != nil {
		c.Close()
		return nil, fmt.Errorf("the container's process %d: %w", o.Pid, err)
	}
	return c, nil
}

// openDevpts opens what is mounted on /dev/pts in a container, where it is a devpts; nil otherwise. Whatever instance the container has
// put there is one that it may use.
func openDevpts(root string) *os.File {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	f, err := openIn(dir, "/dev/pts", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(descriptor(f), &st); err != nil || st.Type != unix.DEVPTS_SUPER_MAGIC {
		f.Close()
		return nil
	}
	return f
}

// NotExecuted reads what a container's process has left in its caller's gate when it was opened: an *ExecError where no program was executed,
// nil where one was. root is the container's, for words about what is wrong with the program; nil: fewer of them.
func NotExecuted(spec *specs.Spec, root *os.File, told []byte) error {
	if len(told) < 8 || len(told)%8 != 0 {
		return nil
	}
	proc := spec.Process
	tried := execPaths{paths: candidates(proc)}
	e := &ExecError{Path: proc.Args[0], Code: 127, Err: unix.ENOENT}
	name := e.Path
	for i, path := range tried.paths {
		if len(told) < 8*(i+1) {
			break
		}
		errno := unix.Errno(binary.NativeEndian.Uint64(told[8*i:]))
		if errno != 0 && errno != unix.ENOENT && errno != unix.ENOTDIR {
			e.Code, e.Err, name = 126, errno, path
		}
	}
	explain(e, name, tried, view{root: root, cwd: proc.Cwd})
	return e
}

// CheckProgram says, of a container at its caller's gate, why the program surely cannot be executed: an *ExecError where no file with a mode to execute is found.
func (c *Container) CheckProgram() error {
	proc := c.spec.Process
	v := view{root: c.rootOf(), cwd: proc.Cwd}
	if v.root == nil {
		return nil
	}
	defer v.root.Close()
	var found error = unix.ENOENT
	for _, name := range candidates(proc) {
		f, err := v.open(name, unix.O_PATH)
		if errors.Is(err, unix.ELOOP) || strings.HasPrefix(path.Clean(name), "/proc/") { // the kernel finds out: /proc/self is nobody here
			return nil
		}
		if err != nil {
			continue
		}
		fi, err := f.Stat()
		f.Close()
		if err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return nil
		}
		found = unix.EACCES
	}
	e := &ExecError{Path: proc.Args[0], Code: 127, Err: found}
	if errors.Is(found, unix.EACCES) {
		e.Code = 126
	}
	explain(e, proc.Args[0], c.execs, v)
	return e
}
