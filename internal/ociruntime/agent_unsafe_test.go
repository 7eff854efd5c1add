package ociruntime

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// agent answers for system calls (seccomp_unotify(2)).
type agent struct {
	t        *testing.T
	listener *net.UnixListener
	states   chan specs.ContainerProcessState
}

// notification is a system call that waits for an answer.
type notification struct {
	fd   int
	id   uint64
	pid  int
	call int
	arg  uint64
}

type answer struct {
	errno   unix.Errno
	proceed bool // the kernel does it
}

const (
	notifyReceive = 0xc0502100
	notifySend    = 0xc0182101
	notifyIDValid = 0x40082102
)

// newAgent listens where the box's profile says.
func newAgent(t *testing.T, b *box) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "wherry-agent-") // short: a socket's path has 107 bytes
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	b.spec.Linux.Seccomp.ListenerPath = path
	return &agent{t, l, make(chan specs.ContainerProcessState, 64)}
}

// serve takes a listener from each connection and answers its calls until nobody has the filter any more.
func (a *agent) serve(decide func(notification) answer) {
	for {
		conn, err := a.listener.AcceptUnix()
		if err != nil {
			return
		}
		text, rights := make([]byte, 4096), make([]byte, 64)
		n, oob, _, _, err := conn.ReadMsgUnix(text, rights)
		if err != nil {
			a.t.Error(err)
			return
		}
		rest, err := io.ReadAll(conn)
		var s specs.ContainerProcessState
		if err != nil || json.Unmarshal(append(text[:n], rest...), &s) != nil {
			a.t.Errorf("%q, %v", text[:n], err)
		}
		conn.Close()
		messages, err := unix.ParseSocketControlMessage(rights[:oob])
		if err != nil || len(messages) != 1 {
			a.t.Errorf("%d messages, %v", len(messages), err)
			return
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			a.t.Errorf("%d descriptors, %v", len(fds), err)
			return
		}
		a.states <- s
		go a.answer(fds[0], decide)
	}
}

func (a *agent) answer(fd int, decide func(notification) answer) {
	defer unix.Close(fd)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		var call [10]uint64 // id; pid, flags; nr, arch; address; six arguments
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifyReceive, uintptr(unsafe.Pointer(&call))); errno != 0 {
			continue
		}
		n := notification{fd: fd, id: call[0], pid: int(uint32(call[1])), call: int(uint32(call[2])), arg: call[4]}
		d := decide(n)
		reply := [3]uint64{n.id, 0, uint64(uint32(-int32(d.errno)))} // id; value; error, flags
		if d.proceed {
			reply[2] = 1 << 32 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifySend, uintptr(unsafe.Pointer(&reply)))
	}
}

// path is the string that the first argument points to.
func (n notification) path() string {
	mem, err := os.Open("/proc/" + strconv.Itoa(n.pid) + "/mem")
	if err != nil {
		return err.Error()
	}
	defer mem.Close()
	b := make([]byte, 64)
	k, _ := mem.ReadAt(b, int64(n.arg))
	s, _, _ := strings.Cut(string(b[:k]), "\x00")
	return s
}

// stays says that the call is still there when the process's signal has been dealt with, or cannot be before it ends.
func (n notification) stays() bool {
	for range 100 {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), notifyIDValid, uintptr(unsafe.Pointer(&n.id))); errno != 0 {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// seize begins to trace a process without stopping it.
func seize(pid, options int) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, uintptr(options), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
