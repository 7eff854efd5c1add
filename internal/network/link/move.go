package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

// Move is an interface that goes into another namespace.
type Move struct {
	Name string
	As   string // its name there; empty: as here. A "%d" in it becomes the first number that makes it free
	To   *os.File
}

// Do moves the interface from the calling thread's namespace, gives it its permanent addresses of global scope again, which it loses on the
// way, and sets it up. The kernel keeps what else it is: its hardware address, its MTU.
func (m Move) Do() error {
	here, err := Dial()
	if err != nil {
		return err
	}
	defer here.Close()
	index, err := here.Index(m.Name)
	if err != nil {
		return err
	}
	addresses, err := here.addresses(index)
	if err != nil {
		return fmt.Errorf("read the addresses of %s: %w", m.Name, err)
	}
	as := m.As
	if as == "" {
		as = m.Name
	}
	first := as
	if strings.Contains(as, "%") { // it is found again by a name that nobody has
		first = fmt.Sprintf("m%d-%d", index, os.Getpid()%100000)
	}
	return visit(m.To, func() error {
		// The kernel would move it first, and find then that its name is taken.
		if err := m.free(first); err != nil {
			return err
		}
		if err := here.Do(m.leave(index, first)); err != nil {
			return err
		}
		return m.settle(first, as, addresses)
	})
}

// visit calls fn on a thread that is in a network namespace and ends with the call: wherever it came from, it is not used again.
func visit(namespace *os.File, fn func() error) error {
	return threads.Apart(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the container's network namespace: %w", err)
		}
		return fn()
	})
}

// free says that no interface of the calling thread's namespace has the name.
func (m Move) free(name string) error {
	c, err := Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Index(name); !errors.Is(err, unix.ENODEV) {
		return errors.Join(err, fmt.Errorf("move interface %s into the container as %s: its network has one of this name: take another one, or one with %%d in it: %w",
			m.Name, name, unix.EEXIST))
	}
	return nil
}

func (m Move) leave(index int, as string) *Request {
	r := newRequest("move interface "+m.Name+" into the container as "+as, unix.RTM_SETLINK, 0)
	r.link(unix.AF_UNSPEC, index, 0, 0)
	r.text(unix.IFLA_IFNAME, as)
	r.number(unix.IFLA_NET_NS_FD, int(m.To.Fd()))
	return r
}

// settle makes a moved interface what it was.
func (m Move) settle(name, as string, addresses []address) error {
	c, err := Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := c.Index(name)
	if err != nil {
		return err
	}
	var requests []*Request
	if name != as {
		r := newRequest("name interface "+m.Name+" "+as, unix.RTM_SETLINK, 0)
		r.link(unix.AF_UNSPEC, index, 0, 0)
		r.text(unix.IFLA_IFNAME, as)
		requests = append(requests, r)
	}
	for _, a := range addresses {
		requests = append(requests, a.add(index, m.Name, as))
	}
	up := newRequest("set interface "+as+" up", unix.RTM_SETLINK, 0)
	up.link(unix.AF_UNSPEC, index, unix.IFF_UP, unix.IFF_UP)
	return c.Do(append(requests, up)...)
}

// address is one of an interface, as the kernel tells it (struct ifaddrmsg, rtnetlink(7)).
type address struct {
	family, bits, scope byte
	flags               uint32
	attributes          []attribute
}

type attribute struct {
	kind  uint16
	value []byte
}

// keptFlags are those of an address that are its owner's wish, not its state.
const keptFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// addresses lists the permanent ones of global scope.
func (c *Conn) addresses(index int) ([]address, error) {
	var list []address
	err := c.dump(unix.RTM_GETADDR, func(body []byte) {
		if len(body) < unix.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(body[4:])) != index {
			return
		}
		a := address{family: body[0], bits: body[1], flags: uint32(body[2]), scope: body[3]}
		for kind, value := range attributes(body[unix.SizeofIfAddrmsg:]) {
			switch kind {
			case unix.IFA_FLAGS:
				a.flags = binary.NativeEndian.Uint32(value)
			case unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_LABEL, unix.IFA_RT_PRIORITY:
				a.attributes = append(a.attributes, attribute{kind, append([]byte(nil), value...)})
			}
		}
		if a.scope == unix.RT_SCOPE_UNIVERSE && a.flags&unix.IFA_F_PERMANENT != 0 {
			list = append(list, a)
		}
	})
	return list, err
}

// add gives the address to an interface; a label is the interface's name, with something behind it or not.
func (a address) add(index int, old, name string) *Request {
	r := newRequest("give an address to "+name, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.b = append(r.b, a.family, a.bits, 0, a.scope)
	r.b = binary.NativeEndian.AppendUint32(r.b, uint32(index))
	for _, at := range a.attributes {
		if at.kind != unix.IFA_LABEL {
			r.attr(at.kind, at.value)
			continue
		}
		if rest, ok := strings.CutPrefix(unix.ByteSliceToString(at.value), old); ok && !strings.Contains(name, "%") && len(name+rest) < unix.IFNAMSIZ {
			r.text(unix.IFA_LABEL, name+rest)
		}
	}
	r.number(unix.IFA_FLAGS, int(a.flags&keptFlags))
	return r
}

// dump asks for all of a kind and tells each.
func (c *Conn) dump(kind uint16, tell func(body []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	r := newRequest("list", kind, unix.NLM_F_DUMP)
	r.b = append(r.b, make([]byte, unix.SizeofIfAddrmsg)...)
	if err := unix.Sendto(c.fd, r.finish(c.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, err := unix.Read(c.fd, c.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for m := range messages(c.buf[:n]) {
			switch {
			case m.seq != c.seq:
			case m.kind == unix.NLMSG_DONE:
				return nil
			case m.kind == unix.NLMSG_ERROR:
				if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.body))); errno != 0 {
					return errno
				}
			default:
				tell(m.body)
			}
		}
	}
}
