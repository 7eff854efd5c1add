package task

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/sysprog"
)

// Shims starts shims, and keeps one started ahead of time: a container's start then does not wait for a process to come up, nor for a network
// namespace, which the spare one has made for the range of ids that the next container will have. It knows nothing of any container and ends by
// itself, with what it has made, when this process does. Safe for many goroutines.
type Shims struct {
	oar   string
	group string // the directory of their control group; "": this process's
	next  func() rootfs.IDMap
	bare  func() *os.File // a mount namespace with nothing of the host (sysprog.BareMounts); nil where none could be made

	launcher *sysprog.Launcher // nil: each start has one of its own

	mu     sync.Mutex // guards what follows
	spare  *shimProcess
	coming chan struct{} // closed when the spare under way is there, or cannot be made; nil: none is under way, or somebody waits for it
	making bool          // one is under way
	closed bool
	work   sync.WaitGroup
}

// A new spare is started calm after the container that took the last one runs or, where it is removed at its end, has ended: earlier, each would wait for
// the other's processor. Where neither comes, it is refillAfter; who wants a shim before starts one.
const (
	calm        = 2 * time.Millisecond
	refillAfter = 12 * time.Millisecond
)

// shimProcess is a shim that waits to be told its container.
type shimProcess struct {
	conn   *shim.Conn
	pid    int
	binary os.FileInfo
	ids    rootfs.IDMap // of what it has made ahead
	net    *os.File     // the network namespace among that; nil: nothing was made
}

// OpenShims makes the first spare, in the background. oar is the path of the runtime's binary; next says, without taking it, which range of
// ids the next container will have, nil: nothing is made ahead but the process.
func OpenShims(oar string, next func() rootfs.IDMap) *Shims { return OpenShimsIn("", oar, next) }

// OpenShimsIn is OpenShims with the directory of a control group (version 2) that the shims begin in: this process's own may be one whose
// processes a service manager ends together with this one.
func OpenShimsIn(group, oar string, next func() rootfs.IDMap) *Shims {
	s := &Shims{oar: oar, group: group, next: next, bare: sync.OnceValue(bareMounts)}
	s.launcher, _ = sysprog.NewLauncher(inherits)
	s.refill()
	return s
}

// bareMounts makes what the mount namespaces of containers are copied from. Where that is refused, they are copies of the host's.
func bareMounts() *os.File {
	f, err := sysprog.BareMounts()
	if err != nil {
		slog.Debug("containers get copies of the host's mounts", "error", err)
		return nil
	}
	return f
}

// refill makes a spare where there is none.
func (s *Shims) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.spare != nil || s.making {
		return
	}
	s.work.Add(1)
	s.making, s.coming = true, make(chan struct{})
	coming := s.coming
	go func() {
		defer s.work.Done()
		p := s.make()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.making, s.coming = false, nil
		close(coming)
		if s.closed && p != nil {
			p.close()
			return
		}
		s.spare = p
	}()
}

// make starts a spare and has it prepare what it can; nil: whoever needs one starts one and says why it cannot.
func (s *Shims) make() *shimProcess {
	p, err := s.start()
	if err != nil || s.next == nil {
		return p
	}
	if err := p.prepare(s.next()); err != nil {
		p.close()
		return nil
	}
	return p
}

// prepareLimit bounds what a spare may take: somebody may have stopped it. comingLimit is how long a start waits for it before it takes a shim of
// its own.
const (
	prepareLimit = 2 * time.Second
	comingLimit  = 50 * time.Millisecond
)

// prepare has a shim make namespaces for a range of ids. One that says that it cannot is as good as others without.
func (p *shimProcess) prepare(ids rootfs.IDMap) error {
	limit := time.AfterFunc(prepareLimit, func() { p.conn.Close() })
	defer limit.Stop()
	if err := p.conn.Send(shim.Adoption{Prepare: &ids}); err != nil {
		return err
	}
	var r shim.Response
	files, err := p.conn.Receive(&r)
	if err == nil && len(files) == 1 {
		p.ids, p.net = ids, files[0]
	}
	return err
}

// close ends a shim that has no container.
func (p *shimProcess) close() {
	p.conn.Close()
	p.forget()
}

// forget drops what the shim has made ahead.
func (p *shimProcess) forget() {
	if p.net != nil {
		p.net.Close()
	}
	p.net = nil
}

// take is the spare, or the one under way where nobody waits for that yet; nil without one or where the binary has been replaced since.
func (s *Shims) take() *shimProcess {
	p := s.present()
	if p == nil {
		return nil
	}
	if now, err := os.Stat(s.oar); err != nil || !os.SameFile(now, p.binary) || now.ModTime() != p.binary.ModTime() {
		p.close()
		return nil
	}
	return p
}

func (s *Shims) present() *shimProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	if coming := s.coming; s.spare == nil && coming != nil {
		s.coming = nil
		s.mu.Unlock()
		limit := time.NewTimer(comingLimit)
		select {
		case <-coming:
		case <-limit.C:
		}
		limit.Stop()
		s.mu.Lock()
	}
	p := s.spare
	s.spare = nil
	return p
}

// Close ends the spare. Shims that have a container go on.
func (s *Shims) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
	if p := s.present(); p != nil {
		p.close()
	}
}

// adopt gives a container with a configuration to a shim, to the spare one where there is one.
func (s *Shims) adopt(spec *specs.Spec, a shim.Adoption, files ...*os.File) (*shimProcess, error) {
	p := s.take()
	time.AfterFunc(refillAfter, s.refill)
	if p != nil {
		ids, ok := shim.FitsPrepared(spec)
		if a.Prepared = ok && p.net != nil && p.ids == ids; !a.Prepared {
			p.forget()
		}
		if p.conn.Send(a, files...) == nil {
			return p, nil
		}
		p.close() // somebody has killed it
		a.Prepared = false
	}
	p, err := s.start()
	if err != nil {
		return nil, err
	}
	if err := p.conn.Send(a, files...); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// start starts a shim, connected by a pair of sockets.
func (s *Shims) start() (*shimProcess, error) {
	binary, err := os.Stat(s.oar)
	if err != nil {
		return nil, err
	}
	// A read-only mount of the binary for this one process: /proc/PID/exe of a container's processes may lead to it before their execve,
	// and through it nobody can write to the binary on the host.
	program, err := rootfs.Bind(s.oar, rootfs.BindOptions{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
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
	launch := sysprog.Launch{Program: program, Argv: []string{"oar", "shim"}, Envp: shim.Environment(), Files: []*os.File{nil, nil, nil, theirs, nil}}
	if s.bare != nil {
		launch.Files[4] = s.bare()
	}
	pid, pidfd, err := s.launch(launch)
	if err != nil {
		conn.Close()
		return nil, sysprog.NoProcess(err)
	}
	go func() { _ = reap(pidfd) }() // ends with the shim; a later engine's life has no child to wait for
	return &shimProcess{conn: shim.NewConn(conn.(*net.UnixConn)), pid: pid, binary: binary}, nil
}

// inherits is how many descriptors a shim is started with: the standard streams, the connection and a mount namespace.
const inherits = 5

func (s *Shims) launch(x sysprog.Launch) (pid, pidfd int, err error) {
	if s.group != "" {
		if x.Group, err = os.Open(s.group); err != nil {
			return 0, -1, fmt.Errorf("the control group of shims is gone, restart wherryd: %w", err)
		}
		defer x.Group.Close()
	}
	l := s.launcher
	if l == nil {
		if l, err = sysprog.NewLauncher(inherits); err != nil {
			return 0, -1, err
		}
		defer l.Close()
	}
	return l.Start(x)
}
