package ociruntime

import (
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// processProgram says how a process comes to its own program: the same for a container's first process and for exec.
type processProgram struct {
	process  *specs.Process
	path     string // what is executed; empty: looked for as the first argument says
	stdio    Stdio
	terminal *os.File // becomes the controlling terminal
	filter   filter
	gate     int // where it waits to be started; 0: it does not
	rlimits  []rlimit
	keyring  bool
	preserve int
	noGroups bool // the kernel permits no change of groups, or the caller's are to stay
	tells    bool // whoever opened the gate is told why nothing was executed (NotExecuted)
}

// execPaths are where a program was looked for, and why each try failed.
type execPaths struct {
	paths []string
	why   []sysprog.Word
}

// processWritten are places in the program of a process that are looked at later.
type processWritten struct {
	execPaths
	listening sysprog.Word
}

// writeProcess appends the steps from "prepared" to execve, after writeStreams.
func writeProcess(p *sysprog.Program, pp processProgram) (written processWritten, err error) {
	if written.listening, err = writeConfinement(p, pp); err != nil {
		return written, err
	}
	written.execPaths = writeExecute(p, pp)
	return written, nil
}

// writeConfinement appends the steps that take rights away. Each runs with the privileges that it needs and no more: seccomp is loaded
// early only where it wants CAP_SYS_ADMIN (no_new_privs off). Somebody may have to take the filter's listener before the program runs.
func writeConfinement(p *sysprog.Program, pp processProgram) (listening sysprog.Word, err error) {
	proc := pp.process
	if pp.keyring {
		key := p.Call("join a keyring of its own", unix.SYS_KEYCTL, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, nil)
		p.Tolerate(key, 0, unix.EPERM, unix.ENOSYS, unix.EACCES)
	}
	if proc.User.Umask != nil {
		p.Call("set the umask", unix.SYS_UMASK, int(*proc.User.Umask))
	} else {
		p.Call("set the umask", unix.SYS_UMASK, 0o022)
	}
	writeWorkingDirectory(p, proc.Cwd)
	writeRlimits(p, pp.rlimits)
	if !proc.NoNewPrivileges {
		listening = pp.filter.write(p)
	}
	if err := writeIdentity(p, proc, pp.noGroups); err != nil {
		return 0, err
	}
	if proc.NoNewPrivileges {
		p.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		listening = pp.filter.write(p)
	}
	if pp.gate != 0 && pp.filter.listener != nil {
		writeAwait(p, waitToStart, pp.gate)
	}
	return listening, nil
}

const waitToStart = "wait to be started"

// writeStreams gives the process its streams and terminal and closes all other descriptors but the gate, which moves behind those to
// preserve and closes itself at the execve. Nothing of the host's is open when a path of the configuration is used, nor while the process
// waits at its gate.
func writeStreams(p *sysprog.Program, pp processProgram, gate *os.File) (moved int) {
	session := p.Call("begin a session", unix.SYS_SETSID)
	p.Tolerate(session, 0, unix.EPERM)
	for i, f := range []*os.File{pp.stdio.In, pp.stdio.Out, pp.stdio.Err} {
		if fd := descriptor(f); fd != i {
			p.Call("set stream "+string(rune('0'+i)), unix.SYS_DUP3, fd, i, 0)
		}
	}
	if pp.terminal != nil {
		p.Call("take the terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	moved, first := 3+pp.preserve, 3+pp.preserve
	if gate != nil {
		if fd := descriptor(gate); fd != moved {
			p.Call("move the gate", unix.SYS_DUP3, fd, moved, unix.O_CLOEXEC)
		}
		first++
	}
	p.Call("close all other descriptors", unix.SYS_CLOSE_RANGE, first, uintptr(^uint32(0)), 0)
	return moved
}

// writeWorkingDirectory goes to a path of the configuration, from the root where the process is: no magic link of /proc leads out of it.
func writeWorkingDirectory(p *sysprog.Program, dir string) {
	how := p.Bytes(openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, inRoot))
	name := enterDirectory + dir
	fd := p.Store(p.Call(name, unix.SYS_OPENAT2, here, p.String(dir), how, openHowSize))
	p.Call(name, unix.SYS_FCHDIR, fd)
}

// enterDirectory begins the name of the steps that go to the working directory.
const enterDirectory = "go to the working directory "

// writeIdentity sets bounding set, groups, ids and capability sets (capabilities(7), "Effect of user ID changes on capabilities").
func writeIdentity(p *sysprog.Program, proc *specs.Process, noGroups bool) error {
	sets := capabilitySets(proc.Capabilities)
	for c := 0; c <= lastCapability; c++ {
		if sets.bounding&(1<<c) == 0 {
			drop := p.Call("drop capability "+capabilityNames[c], unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			p.Tolerate(drop, 0, unix.EINVAL)
		}
	}
	p.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	groups := make([]byte, 0, len(proc.User.AdditionalGids)*4+4)
	for _, g := range proc.User.AdditionalGids {
		groups = append(groups, byte(g), byte(g>>8), byte(g>>16), byte(g>>24))
	}
	if !noGroups {
		p.Call("set the groups", unix.SYS_SETGROUPS, len(proc.User.AdditionalGids), p.Bytes(append(groups, 0)))
	}
	gid, uid := int(proc.User.GID), int(proc.User.UID)
	p.Call(fmt.Sprintf("become group %d", gid), unix.SYS_SETRESGID, gid, gid, gid)
	p.Call(fmt.Sprintf("become user %d", uid), unix.SYS_SETRESUID, uid, uid, uid)
	p.Call("set the capabilities", unix.SYS_CAPSET, p.Bytes([]byte{0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0}), p.Bytes(sets.data()))
	for c := 0; c <= lastCapability; c++ {
		if sets.ambient&(1<<c) != 0 {
			p.Call("raise capability "+capabilityNames[c], unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
	return nil
}

// writeExecute tries the program's path, or each folder of PATH.
func writeExecute(p *sysprog.Program, pp processProgram) execPaths {
	proc := pp.process
	p.DefaultSignals()
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Bytes(make([]byte, 8)), nil, 8)
	argv, envp := p.Strings(proc.Args), p.Strings(proc.Env)
	var e execPaths
	if e.paths = []string{pp.path}; pp.path == "" {
		e.paths = candidates(proc)
	}
	p.Mark(markExecute)
	if pp.tells && len(e.paths) <= mostTold {
		writeTelling(p, pp.gate, e.paths, [2]uintptr{argv, envp})
		p.Fail("execute "+proc.Args[0], int(unix.ENOENT))
		return e
	}
	for _, name := range e.paths {
		op := p.Call("execute "+name, unix.SYS_EXECVE, p.String(name), argv, envp)
		p.Tolerate(op, 0, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		e.why = append(e.why, p.Store(op))
	}
	p.Fail("execute "+proc.Args[0], int(unix.ENOENT))
	return e
}

// mostTold is how many error numbers are told: what goes into a pipe that nobody reads yet.
const mostTold = 512

// writeTelling tries the paths as writeExecute does, and leaves in the gate why each was not executed. What is found and is no program ends
// the search.
func writeTelling(p *sysprog.Program, gate int, paths []string, vectors [2]uintptr) {
	why := p.Bytes(make([]byte, 8*len(paths)))
	for i, name := range paths {
		op := p.Call("execute "+name, unix.SYS_EXECVE, p.String(name), vectors[0], vectors[1])
		p.Store(op, sysprog.Word(why+uintptr(8*i)))
		left := len(paths) - 1 - i
		if left == 0 {
			p.Tolerate(op, 0, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ENOEXEC, unix.EPERM, unix.E2BIG, unix.ENOMEM, unix.EINVAL, unix.EIO, unix.ELOOP, unix.ENAMETOOLONG, unix.ETXTBSY)
			continue
		}
		p.Tolerate(op, 0, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ENOEXEC)
		p.JumpIfEqual(sysprog.Word(why+uintptr(8*i)), int(unix.ENOEXEC), 2*left-1)
	}
	tell := p.Call("tell why nothing was executed", unix.SYS_WRITE, gate, why, 8*len(paths))
	p.Tolerate(tell, 0, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EBADF, unix.EPIPE, unix.EAGAIN)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func candidates(proc *specs.Process) []string {
	name := proc.Args[0]
	if name == "" || strings.Contains(name, "/") {
		return []string{name}
	}
	search := defaultPath
	for _, kv := range proc.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, path.Join(dir, name))
	}
	return out
}
