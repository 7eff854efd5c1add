// Package dns answers the questions of containers for names: of each other where they share a network, of the world through the host's
// resolvers.
//
// Each container that needs it has a resolver at 127.0.0.11 port 53 of its own network namespace, as with Docker. The engine makes its two
// sockets and reads them; somebody who lives as long as the container keeps them for the engine's next life. They sit at ports that the
// kernel chose, and two rules in the container's namespace exchange port numbers, without tracking connections: port 53 stays free for what
// runs inside, and neither a firewall of the host nor a network without a way out is in the way.
package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Names is what the resolver asks about a container.
type Names interface {
	// Lookup finds a name, in lower case and without the last dot, on the container's networks. A known name may have no addresses.
	Lookup(container, name string) (addresses []netip.Addr, known bool)
	// Reverse finds the name of an address. Of an address of the container's networks nobody else is asked.
	Reverse(container string, a netip.Addr) (name string, own bool)
	// Upstream are the servers that know the rest; none where the container has no way out.
	Upstream(container string) []netip.AddrPort
	// Dial connects to one of them, from where it is reached.
	Dial(ctx context.Context, container, network string, server netip.AddrPort) (net.Conn, error)
}

const (
	questionsAtOnce   = 256              // of one container to servers upstream; more wait
	questionsWaiting  = 2048             // more are dropped, and asked again by their client
	connectionsAtOnce = 128              // of one container
	idle              = 10 * time.Second // of a connection
	ttl               = 5                // seconds for which a container's address may be remembered
	received          = 6 << 20          // bytes of questions that the kernel keeps until they are read, of twice as many that it takes for them: ten thousand
)

// Server holds the resolvers of all containers. Safe for many goroutines.
type Server struct {
	names    Names
	turn     atomic.Uint32
	patience time.Duration // how long all servers upstream may take together
	silent   silent

	mu        sync.Mutex // guards what follows
	resolvers map[string]*resolver
	closed    bool
	wg        sync.WaitGroup
}

// New makes a server without resolvers.
func New(names Names) *Server {
	return &Server{names: names, patience: patience, resolvers: map[string]*resolver{}}
}

// resolver serves one container.
type resolver struct {
	s         *Server
	container string
	udp       *net.UDPConn
	tcp       *net.TCPListener
	kept      bool // Server.mu guards it: somebody keeps the sockets for the next life
	resumed   bool // they are those of an earlier life
	end       context.CancelFunc
	waiting   chan question // to servers upstream
	asking    chan struct{} // as many as they are asked at once

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// Start opens a container's resolver, with the sockets of an earlier life where these were kept; it closes the files. It answers at also, too, where that is
// an IPv4 address. It must run on a thread in the container's network namespace.
func (s *Server) Start(ctx context.Context, container string, also netip.Addr, kept ...*os.File) error {
	r, closer := resume(kept), func() error { return nil }
	if r == nil {
		var err error
		if r, closer, err = open(also); err != nil {
			return fmt.Errorf("open the resolver of container %s: %w", container, err)
		}
	}
	r.s, r.container = s, container
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.resolvers[container] != nil {
		r.close()
		return closer()
	}
	s.wg.Go(func() { _ = closer() })
	s.resolvers[container] = r
	ctx, r.end = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(func() { r.serveUDP(ctx) })
	s.wg.Go(func() { r.serveTCP(ctx) })
	return nil
}

func newResolver() *resolver {
	return &resolver{
		waiting: make(chan question, questionsWaiting), asking: make(chan struct{}, questionsAtOnce),
		conns: map[net.Conn]struct{}{}, end: func() {},
	}
}

// enlarge gives a socket room for a burst of questions: what finds none is lost, and its client asks again seconds later.
func enlarge(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, received) != nil { // beyond the host's limit; without root up to it
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, received)
		}
	})
}

// Sockets are copies of those of a container's resolver, for whoever keeps them; none where there is no resolver. The caller closes them. fresh says
// that nobody has them yet.
func (s *Server) Sockets(container string) (files []*os.File, fresh bool) {
	s.mu.Lock()
	r := s.resolvers[container]
	if r == nil {
		s.mu.Unlock()
		return nil, false
	}
	fresh, r.kept = !r.kept, true
	s.mu.Unlock()
	udp, err := r.udp.File()
	if err != nil {
		return nil, false
	}
	tcp, err := r.tcp.File()
	if err != nil {
		udp.Close()
		return nil, false
	}
	return []*os.File{udp, tcp}, fresh
}

// resume takes the sockets of an earlier life; nil where there are none, or the rules lead elsewhere: an engine of a build that knows nothing of
// them ran in between.
func resume(files []*os.File) *resolver {
	r := newResolver()
	r.kept, r.resumed = true, true
	for _, f := range files {
		if c, err := net.FilePacketConn(f); err == nil {
			r.udp, _ = c.(*net.UDPConn)
		} else if l, err := net.FileListener(f); err == nil {
			r.tcp, _ = l.(*net.TCPListener)
		}
		f.Close()
	}
	if r.udp == nil && r.tcp == nil {
		return nil
	}
	if r.udp != nil && r.tcp != nil && exchanged() == r.ports() {
		return r
	}
	if r.udp != nil {
		r.udp.Close()
	}
	if r.tcp != nil {
		r.tcp.Close()
	}
	return nil
}

// ports are where a resolver's sockets sit.
func (r *resolver) ports() ports {
	return ports{uint16(r.udp.LocalAddr().(*net.UDPAddr).Port), uint16(r.tcp.Addr().(*net.TCPAddr).Port)}
}

// open makes the sockets and the rules that lead to them.
func open(also netip.Addr) (r *resolver, closer func() error, err error) {
	r = newResolver()
	at := net.IP(resolverAddress[:])
	if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: at}); err != nil {
		return nil, nil, err
	}
	enlarge(r.udp)
	if r.tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: at}); err != nil {
		r.udp.Close()
		return nil, nil, err
	}
	if closer, err = exchangePorts(r.ports(), also); err != nil {
		r.close()
		return nil, nil, err
	}
	return r, closer, nil
}

// Serves says whether a container has a resolver.
func (s *Server) Serves(container string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resolvers[container] != nil
}

// Stop closes a container's resolver.
func (s *Server) Stop(container string) {
	s.mu.Lock()
	r := s.resolvers[container]
	delete(s.resolvers, container)
	s.mu.Unlock()
	if r != nil {
		r.close()
	}
}

// settleLimit is how long Close waits for what is with servers upstream.
const settleLimit = 300 * time.Millisecond

// Close closes all resolvers and waits until they are done. Questions that are with servers upstream get their answers, unless these take long; others stay in
// the sockets, for whoever has them next.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	all := maps.Clone(s.resolvers)
	s.mu.Unlock()
	for _, r := range all {
		_, _ = r.udp.SetReadDeadline(time.Unix(1, 0)), r.tcp.SetDeadline(time.Unix(1, 0))
	}
	for end := time.Now().Add(settleLimit); time.Now().Before(end) && busy(all); time.Sleep(settleLimit / 100) {
	}
	s.mu.Lock()
	s.resolvers = map[string]*resolver{}
	s.mu.Unlock()
	for _, r := range all {
		r.close()
	}
	s.wg.Wait()
}

// busy says that one of some resolvers waits for servers upstream.
func busy(all map[string]*resolver) bool {
	for _, r := range all {
		if len(r.asking)+len(r.waiting) > 0 {
			return true
		}
	}
	return false
}

func (r *resolver) close() {
	r.end()
	r.udp.Close()
	r.tcp.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

func (r *resolver) serveUDP(ctx context.Context) {
	in, err := r.udp.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	if r.resumed {
		r.catchUp(ctx, in, buf)
	}
	for {
		n, from, err := look(in, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		r.take(ctx, buf[:n], from)
		drop(in) // after the answer: an engine that is killed before leaves the question to the next
	}
}

// take answers a question, or has it wait for its turn with the servers upstream.
func (r *resolver) take(ctx context.Context, b []byte, from netip.AddrPort) {
	var q dns.Msg
	if q.Unpack(b) != nil || q.Response {
		return
	}
	if a := r.local(&q); a != nil { // whatever waits for servers upstream is not in its way
		r.send(&q, a, from)
		return
	}
	select {
	case r.waiting <- question{q: &q, from: from, until: time.Now().Add(r.s.patience / 2)}:
	default:
		return
	}
	select {
	case r.asking <- struct{}{}:
		r.s.wg.Go(func() { r.askAll(ctx) })
	default: // who asks now takes it when he is done
	}
}

// look reads the next packet and leaves it in the socket; drop takes it out.
func look(in syscall.RawConn, buf []byte) (n int, from netip.AddrPort, err error) {
	var sa unix.Sockaddr
	closed := in.Read(func(fd uintptr) bool {
		n, sa, err = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK)
		return err != unix.EAGAIN
	})
	if closed != nil {
		return 0, from, net.ErrClosed
	}
	if four, ok := sa.(*unix.SockaddrInet4); ok {
		from = netip.AddrPortFrom(netip.AddrFrom4(four.Addr), uint16(four.Port))
	}
	return n, from, err
}

func drop(in syscall.RawConn) {
	_ = in.Control(func(fd uintptr) { _, _, _ = unix.Recvfrom(int(fd), nil, unix.MSG_DONTWAIT) })
}

// question is one that came in a packet. Who asked has given up soon after until.
type question struct {
	q     *dns.Msg
	from  netip.AddrPort
	until time.Time
}

// askAll asks servers upstream what waits, until nothing does. A question that comes while its place is still taken is seen after that.
func (r *resolver) askAll(ctx context.Context) {
	for {
		r.askWaiting(ctx)
		<-r.asking
		if len(r.waiting) == 0 || ctx.Err() != nil {
			return
		}
		select {
		case r.asking <- struct{}{}:
		default:
			return
		}
	}
}

func (r *resolver) askWaiting(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case w := <-r.waiting:
			if time.Now().Before(w.until) {
				r.send(w.q, r.forward(ctx, w.q, "udp"), w.from)
			}
		default:
			return
		}
	}
}

// send answers in one packet. Who has gone needs no answer.
func (r *resolver) send(q, a *dns.Msg, to netip.AddrPort) {
	a.Truncate(room(q))
	if b, err := a.Pack(); err == nil {
		_, _ = r.udp.WriteToUDPAddrPort(b, to)
	}
}

// room is how long an answer may be that goes in one packet.
func room(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return max(dns.MinMsgSize, int(o.UDPSize()))
	}
	return dns.MinMsgSize
}

func (r *resolver) serveTCP(ctx context.Context) {
	for {
		c, err := r.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		if !r.hold(c) {
			c.Close()
			continue
		}
		r.s.wg.Go(func() {
			defer r.drop(c)
			r.serveConn(ctx, &dns.Conn{Conn: c})
		})
	}
}

// hold notes a connection; false when there are too many.
func (r *resolver) hold(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.conns) >= connectionsAtOnce || r.ended() {
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *resolver) ended() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.s.resolvers[r.container] != r
}

func (r *resolver) drop(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

func (r *resolver) serveConn(ctx context.Context, c *dns.Conn) {
	for {
		if c.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		q, err := c.ReadMsg()
		if err != nil || q.Response {
			return
		}
		if c.WriteMsg(r.answer(ctx, q, "tcp")) != nil {
			return
		}
	}
}
