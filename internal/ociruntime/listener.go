package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/seccomp"
	"wherry.dev/wherry/internal/sysprog"
)

// filter is a compiled seccomp profile, how it is loaded, and who is asked about its SCMP_ACT_NOTIFY.
type filter struct {
	code     []byte
	flags    int
	listener *listener // nil: nobody is asked
}

// listener is the agent to which each process's listening descriptor is sent (config-linux.md, "The Container Process State"):
//
//	the child                                this process                        the agent
//	  seccomp(NEW_LISTENER) = fd, noted
//	  waits at its gate                        sees the note, pidfd_getfd
//	                                           connect, sendmsg ────────────────▶ state, descriptor
//	  execve, system calls ◀── the gate's byte                        ◀─────────▶ answers
//
// The child tells nobody of the descriptor, as its filter may refuse any call: this process looks at the note.
type listener struct {
	path, metadata string
	state          specs.State
}

// sendPatience ends the wait for an agent that neither takes a connection nor reads.
const sendPatience = 10 // seconds

// filterOf takes or compiles the seccomp profile of a configuration; state is what an agent is told of the container.
func filterOf(spec *specs.Spec, code []byte, state specs.State) (f filter, err error) {
	f.code = code
	if spec.Linux == nil || spec.Linux.Seccomp == nil {
		return f, nil
	}
	p := spec.Linux.Seccomp
	if f.flags, err = seccomp.Flags(p); err != nil {
		return f, err
	}
	if f.code == nil {
		if f.code, err = seccomp.Compile(p); err != nil {
			return f, err
		}
	}
	switch {
	case p.ListenerMetadata != "" && p.ListenerPath == "":
		return f, errors.New("linux.seccomp.listenerMetadata is set without listenerPath: there is nobody to tell it")
	case !seccomp.Notifies(p):
	case p.ListenerPath == "":
		return f, errors.New("linux.seccomp uses SCMP_ACT_NOTIFY without listenerPath: nobody would answer; name the agent's socket")
	default:
		f.listener = &listener{path: p.ListenerPath, metadata: p.ListenerMetadata, state: state}
	}
	return f, nil
}

// write appends the loading of the filter; listening is the word of the descriptor to be sent, 0 where there is none.
func (f filter) write(p *sysprog.Program) (listening sysprog.Word) {
	if len(f.code) == 0 {
		return 0
	}
	fprog := p.Bytes(sockFprog(len(f.code)/8, p.Bytes(f.code)))
	load := p.Call("load the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f.flags, fprog)
	if f.listener == nil {
		return 0
	}
	return p.Store(load)
}

// send waits until the process has loaded its filter and sends the agent its descriptor.
func (l *listener) send(pr *sysprog.Process, listening sysprog.Word, state specs.State) error {
	number, err := pr.Await(listening)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdGetfd(pr.Pidfd, int(number), 0)
	if err != nil {
		return fmt.Errorf("take the seccomp listener of process %d: %w", pr.Pid, err)
	}
	defer unix.Close(fd)
	message, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pr.Pid, Metadata: l.metadata, State: state})
	if err != nil {
		return err
	}
	if err := sendDescriptor(l.path, message, fd); err != nil {
		return fmt.Errorf("failed to connect with seccomp agent: send the listener to %s (linux.seccomp.listenerPath): %w", l.path, err)
	}
	return nil
}

// sendDescriptor connects to a unix socket and sends a message, the descriptor with its first byte.
func sendDescriptor(path string, message []byte, fd int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: sendPatience}); err != nil {
		return err
	}
	if err := unix.Connect(socket, &unix.SockaddrUnix{Name: path}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	rights := unix.UnixRights(fd)
	for len(message) > 0 {
		n, err := unix.SendmsgN(socket, message, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		message, rights = message[n:], nil
	}
	return nil
}
