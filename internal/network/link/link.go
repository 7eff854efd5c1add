// Package link speaks rtnetlink: bridges, pairs of interfaces across namespaces, addresses and routes.
//
// A Conn belongs to the network namespace in which it was made, and works from any thread. What belongs together goes to the kernel in one
// message, for the start of a container waits for it.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is a socket to one namespace's links. Safe for many goroutines, which take turns.
type Conn struct {
	mu  sync.Mutex // guards what follows
	fd  int
	seq uint32
	buf []byte
}

// Dial opens a socket in the calling thread's namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a socket to the kernel's links: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind the socket to the kernel's links: %w", err)
	}
	// Errors without the request that they answer; unknown to no kernel since 4.12.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	c.fd = -1
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Do sends requests in one message and waits until all are answered. The error is the first one's that failed; those after it were carried
// out all the same.
func (c *Conn) Do(requests ...*Request) error {
	var first error
	for part := range slices.Chunk(requests, atOnce) {
		if _, err := c.exchange(part); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// atOnce is how many requests go into one message: their answers must find room in the socket's buffer.
const atOnce = 64

// Index asks for the number of a link.
func (c *Conn) Index(name string) (int, error) {
	r := newRequest("find link "+name, unix.RTM_GETLINK, 0)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, name)
	answers, err := c.exchange([]*Request{r})
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		if len(a) >= unix.SizeofIfInfomsg {
			return int(int32(binary.NativeEndian.Uint32(a[4:]))), nil
		}
	}
	return 0, fmt.Errorf("find link %s: the kernel's answer is none", name)
}

func (c *Conn) exchange(requests []*Request) (answers [][]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil, os.ErrClosed
	}
	first := c.seq + 1
	var out []byte
	for _, r := range requests {
		c.seq++
		out = append(out, r.finish(c.seq)...)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("%s: send to the kernel: %w", requests[0].what, err)
	}
	failed := len(requests)
	for left := len(requests); left > 0; {
		n, err := unix.Read(c.fd, c.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: read the kernel's answer: %w", requests[0].what, err)
		}
		for m := range messages(c.buf[:n]) {
			i := int(m.seq - first)
			if i < 0 || i >= len(requests) {
				continue
			}
			if m.kind != unix.NLMSG_ERROR {
				answers = append(answers, append([]byte(nil), m.body...))
				continue
			}
			left--
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.body))); errno != 0 && !requests[i].forgiven(errno) && i < failed {
				failed = i
				requests[i].errno = errno
			}
		}
	}
	if failed < len(requests) {
		return answers, fmt.Errorf("%s: %w", requests[failed].what, requests[failed].errno)
	}
	return answers, nil
}

type message struct {
	kind uint16
	seq  uint32
	body []byte
}

// messages iterates over what a read brought.
func messages(b []byte) func(yield func(message) bool) {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr+4 || n > len(b) {
				return
			}
			if !yield(message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n]}) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// Request is one thing asked of the kernel.
type Request struct {
	what  string // for errors: "make the pair x"
	b     []byte
	fine  []unix.Errno
	errno unix.Errno
}

// Forgive makes an error count as success: what was asked for is so already.
func (r *Request) Forgive(errno ...unix.Errno) *Request {
	r.fine = append(r.fine, errno...)
	return r
}

func (r *Request) forgiven(e unix.Errno) bool {
	for _, f := range r.fine {
		if e == f {
			return true
		}
	}
	return false
}

func newRequest(what string, kind, flags uint16) *Request {
	r := &Request{what: what, b: make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(r.b[4:], kind)
	binary.NativeEndian.PutUint16(r.b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return r
}

func (r *Request) finish(seq uint32) []byte {
	binary.NativeEndian.PutUint32(r.b[8:], seq)
	binary.NativeEndian.PutUint32(r.b, uint32(len(r.b)))
	return r.b
}

// link appends an ifinfomsg.
func (r *Request) link(family uint8, index int, flags, change uint32) {
	r.b = append(r.b, family, 0, 0, 0)
	r.b = binary.NativeEndian.AppendUint32(r.b, uint32(index))
	r.b = binary.NativeEndian.AppendUint32(r.b, flags)
	r.b = binary.NativeEndian.AppendUint32(r.b, change)
}

func (r *Request) attr(kind uint16, value []byte) {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(4+len(value)))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = append(r.b, value...)
	for len(r.b)%4 != 0 {
		r.b = append(r.b, 0)
	}
}

func (r *Request) text(kind uint16, s string) { r.attr(kind, append([]byte(s), 0)) }

func (r *Request) number(kind uint16, n int) {
	r.attr(kind, binary.NativeEndian.AppendUint32(nil, uint32(n)))
}

// nest appends an attribute that holds what fill appends.
func (r *Request) nest(kind uint16, fill func()) {
	at := len(r.b)
	r.attr(kind, nil)
	fill()
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
}

// attributes iterates over a message's attributes.
func attributes(b []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}
