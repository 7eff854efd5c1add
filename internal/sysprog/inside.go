package sysprog

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Inside says where Execute runs a program: as root of a user namespace, in a mount namespace that this owns. With the zero value it is the
// caller's own user namespace, where only the mount namespace is new.
type Inside struct {
	Join       *os.File  // the user namespace to join; nil: one is made where Uids are given
	Uids, Gids []Mapping // of the namespace to make; without Map one line each, which a process may write for itself
	// Map writes the maps from outside while the process waits (newuidmap(1)). Nil: the process does it, and gives up setgroups(2) as the
	// kernel wants it to.
	Map func(pid int) error
}

// markInside is passed right before the execve of Execute.
const markInside = 1

// Execute runs a binary, named by its path, from a read-only mount of its own, which no container can write to by way of /proc/PID/exe. It
// returns when the execve has happened; the process is a child with this one's descriptors and environment.
func (i Inside) Execute(binary string, argv, envp []string) (*os.File, error) {
	size := 16 << 10
	for _, list := range [][]string{argv, envp, {binary}} {
		for _, s := range list {
			size += len(s) + 64
		}
	}
	p, err := New(size)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var gate [2]int
	if i.Map != nil {
		if err := unix.Pipe2(gate[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		defer unix.Close(gate[0])
	}
	flags := i.writeNamespaces(p, gate)
	writeOwnBinary(p, binary, argv, envp)
	pr, err := p.Start(flags, false)
	if err == nil {
		err = i.settle(pr, gate[1])
	} else if i.Map != nil {
		unix.Close(gate[1])
	}
	if err != nil {
		return nil, err
	}
	return Pollable(pr.Pidfd)
}

// settle has the maps written and waits for the execve.
func (i Inside) settle(pr *Process, gate int) error {
	if i.Map != nil {
		err := i.Map(pr.Pid)
		if err == nil {
			_, err = unix.Write(gate, []byte{'m'})
		}
		unix.Close(gate)
		if err != nil {
			pr.Discard()
			return err
		}
	}
	if err := pr.Wait(markInside); err != nil {
		pr.Discard()
		return err
	}
	return nil
}

// writeNamespaces appends the steps into the namespaces and returns what the clone itself makes.
func (i Inside) writeNamespaces(p *Program, gate [2]int) (flags uint64) {
	flags = unix.CLONE_NEWNS
	switch {
	case i.Join != nil:
		p.Call("join the user namespace", unix.SYS_SETNS, int(i.Join.Fd()), unix.CLONE_NEWUSER)
		p.Call("make a mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		flags = 0
	case i.Map != nil:
		flags |= unix.CLONE_NEWUSER
		p.Call("close the parent's end", unix.SYS_CLOSE, gate[1])
		got := p.Store(p.Call("wait for the maps of ids", unix.SYS_READ, gate[0], p.Bytes(make([]byte, 8)), 1))
		p.JumpIfEqual(got, 1, 1)
		p.Fail("wait for the maps of ids", int(unix.EPIPE))
	case len(i.Uids) > 0:
		flags |= unix.CLONE_NEWUSER
		writeFile(p, "/proc/self/setgroups", "deny")
		writeFile(p, "/proc/self/uid_map", mapText(i.Uids))
		writeFile(p, "/proc/self/gid_map", mapText(i.Gids))
	}
	if i.Join != nil || len(i.Uids) > 0 {
		p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
		p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	}
	none := p.String("")
	p.Call("cut mounts off from the host's", unix.SYS_MOUNT, none, p.String("/"), none, unix.MS_SLAVE|unix.MS_REC, nil)
	return flags
}

func writeFile(p *Program, name, text string) {
	fd := p.Store(p.Call("open "+name, unix.SYS_OPENAT, unix.AT_FDCWD&0xffffffff, p.String(name), unix.O_WRONLY|unix.O_CLOEXEC, 0))
	p.Call("write "+strconv.Quote(text)+" to "+name, unix.SYS_WRITE, fd, p.String(text), len(text))
	p.Call("close "+name, unix.SYS_CLOSE, fd)
}

func writeOwnBinary(p *Program, binary string, argv, envp []string) {
	none := p.String("")
	mount := p.Store(p.Call("clone the mount of "+binary, unix.SYS_OPEN_TREE, unix.AT_FDCWD&0xffffffff, p.String(binary), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	attr := p.words([]uint64{unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, 0, 0, 0}) // struct mount_attr
	p.Call("make that mount read-only", unix.SYS_MOUNT_SETATTR, mount, none, unix.AT_EMPTY_PATH, attr, 32)
	p.DefaultSignals()
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Bytes(make([]byte, 8)), nil, 8)
	args, env := p.Strings(argv), p.Strings(envp)
	p.Mark(markInside)
	p.Call("execute "+binary, unix.SYS_EXECVEAT, mount, none, args, env, unix.AT_EMPTY_PATH)
	p.Fail("execute "+binary, int(unix.ENOEXEC))
}

// Parent is the user namespace that another was made in (ioctl_nsfs(2)).
func Parent(userns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(userns.Fd()), unix.NS_GET_PARENT)
	if err != nil {
		return nil, fmt.Errorf("find the user namespace that %s was made in: %w", userns.Name(), err)
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}
