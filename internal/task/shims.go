package task

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/sysprog"
)

// Shims starts shims, and keeps one started ahead of time: a container's start then does not wait for a process to come up. The spare one
// knows nothing of any container and ends by itself when this process does. Safe for many goroutines.
type Shims struct {
	oar string

	mu     sync.Mutex // guards what follows
	spare  *shimProcess
	coming chan struct{} // closed when the spare under way is there, or cannot be made; nil: none is under way
	closed bool
	work   sync.WaitGroup
}

// refillAfter is when a new spare is started after one was taken: by then the container that took it runs, and neither waits for the other's
// processor.
const refillAfter = 5 * time.Millisecond

// shimProcess is a shim that waits to be told its container.
type shimProcess struct {
	conn   *net.UnixConn
	pid    int
	binary os.FileInfo
}

// OpenShims makes the first spare, in the background. oar is the path of the runtime's binary.
func OpenShims(oar string) *Shims {
	s := &Shims{oar: oar}
	s.refill()
	return s
}

// refill makes a spare where there is none.
func (s *Shims) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.spare != nil || s.coming != nil {
		return
	}
	s.work.Add(1)
	coming := make(chan struct{})
	s.coming = coming
	go func() {
		defer s.work.Done()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.coming = nil
			close(coming)
		}()
		p, err := startShim(s.oar)
		if err != nil {
			return // whoever needs one starts one and says why it cannot
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			p.conn.Close()
			return
		}
		s.spare = p
	}()
}

// take is the spare, the one under way too; nil without one or where the binary has been replaced since.
func (s *Shims) take() *shimProcess {
	s.mu.Lock()
	p, coming := s.spare, s.coming
	s.spare = nil
	s.mu.Unlock()
	if p == nil && coming != nil {
		<-coming
		s.mu.Lock()
		p = s.spare
		s.spare = nil
		s.mu.Unlock()
	}
	if p == nil {
		return nil
	}
	if now, err := os.Stat(s.oar); err != nil || !os.SameFile(now, p.binary) || now.ModTime() != p.binary.ModTime() {
		p.conn.Close()
		return nil
	}
	return p
}

// Close ends the spare. Shims that have a container go on.
func (s *Shims) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
	if p := s.take(); p != nil {
		p.conn.Close()
	}
}

// adopt gives a container to a shim, to the spare one where there is one.
func (s *Shims) adopt(a shim.Adoption, files ...*os.File) (c *shim.Conn, pid int, err error) {
	p := s.take()
	time.AfterFunc(refillAfter, s.refill)
	if p != nil {
		c := shim.NewConn(p.conn)
		if c.Send(a, files...) == nil {
			return c, p.pid, nil
		}
		c.Close() // somebody has killed it
	}
	if p, err = startShim(s.oar); err != nil {
		return nil, 0, err
	}
	c = shim.NewConn(p.conn)
	if err := c.Send(a, files...); err != nil {
		c.Close()
		return nil, 0, err
	}
	return c, p.pid, nil
}

// startShim starts a shim, connected by a pair of sockets.
func startShim(oar string) (*shimProcess, error) {
	binary, err := os.Stat(oar)
	if err != nil {
		return nil, err
	}
	// A read-only mount of the binary for this one process: /proc/PID/exe of a container's processes may lead to it before their execve,
	// and through it nobody can write to the binary on the host.
	program, err := rootfs.Bind(oar, rootfs.BindOptions{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	if err != nil {
		return nil, err
	}
	defer program.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "shim"), os.NewFile(uintptr(pair[1]), "engine")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	pidfd := -1
	p, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), []string{"oar", "shim"}, &os.ProcAttr{Dir: "/", Env: shim.Environment(),
		Files: []*os.File{null, null, null, theirs}, Sys: &unix.SysProcAttr{Setsid: true, PidFD: &pidfd}})
	if err != nil {
		conn.Close()
		return nil, sysprog.NoProcess(err)
	}
	pid := p.Pid
	_ = p.Release()
	go func() { _ = reap(pidfd) }() // ends with the shim; a later engine's life has no child to wait for
	return &shimProcess{conn: conn.(*net.UnixConn), pid: pid, binary: binary}, nil
}
