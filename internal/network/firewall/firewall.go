// Package firewall keeps one engine's rules: a single nftables table of the inet family that nobody else writes to.
//
// The table follows from what the engine wants (bridges and published ports) and is replaced whole, in one transaction. What happens at
// each start and end of a container is less: ports are elements of maps, so that neither the number of containers nor of ports makes a
// packet or a start slower. Rules of others are never touched, and no rule here accepts what others refuse.
package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a bridge of the engine.
type Bridge struct {
	Name       string
	Internal   bool // nothing passes between it and elsewhere
	Masquerade bool // packets that leave through another link get that link's address
	Parted     bool // containers on it reach each other's published ports only
	Foreign    bool // it is not of the engine's making: machines of any addresses may be behind it
	Subnets    []netip.Prefix
	Families   [2]Family // IPv4, IPv6
	Trusted    []string  // links from which published ports are reached at the containers' own addresses, too
}

// Family is what holds of one family of addresses on a bridge.
type Family struct {
	Routed bool       // packets keep their addresses: published ports are reached at the containers' own, from everywhere
	Open   bool       // all ports are
	Source netip.Addr // packets that leave get this address, not the other link's
}

// Port is a published port, or a range of ports that are the same on both sides.
type Port struct {
	Host        netip.Addr // unspecified: all of the host's addresses of that family
	Proto       uint8      // unix.IPPROTO_TCP, …UDP, …SCTP
	First, Last uint16     // on the host; Last 0: one port
	To          netip.AddrPort
	Direct      bool       // at the container's own address: First to Last of To's; there is no Host
	From        netip.Addr // a port that one other container on the same parted bridge reaches at the container's own address: First of To's; IPv4
	By          string     // no port: a bridge by which the container with To's address may send from it, too, though the host's route leads to another
}

func (p Port) isRange() bool { return p.Last > p.First }

// isLocal says that the port is one of 127.0.0.1.
func (p Port) isLocal() bool {
	return !p.Direct && p.Host.Is4() && (p.Host.IsUnspecified() || p.Host == netip.AddrFrom4([4]byte{127, 0, 0, 1}))
}

// Table is the engine's table. Safe for many goroutines; changes take turns, for the kernel takes them so.
type Table struct {
	name string

	mu      sync.Mutex // guards what follows
	conn    *nftables.Conn
	socket  *netlink.Conn // under conn
	port    uint32        // the connection's address, by which notices of own changes are told from those of others'
	bridges map[string]Bridge
	ports   map[Port]bool
	still   []string
	sets    sets
	lax     bool // the kernel knows no check of sources where this table has it
	there   bool
	closed  bool
	local   Local
}

// Local hears of ports that are published at 127.0.0.1, and that they are not any more.
type Local interface {
	Publish(proto uint8, first, last uint16)
	Withdraw(proto uint8, first, last uint16)
}

// Follow has somebody hear of all changes from now on.
func (t *Table) Follow(l Local) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.local = l
}

// Open connects to the kernel's tables; the table is made by the first Swap.
func Open(name string) (*Table, error) {
	t := &Table{name: name, bridges: map[string]Bridge{}, ports: map[Port]bool{}}
	return t, t.dial()
}

// dial makes a new connection. After an error the old one may have answers under way that nobody reads.
func (t *Table) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		var bindErr error
		t.port, bindErr = portOf(c)
		t.socket = c
		return errors.Join(bindErr, c.SetReadBuffer(4<<20), c.SetWriteBuffer(8<<20))
	}))
	if err != nil {
		return fmt.Errorf("open a socket to the kernel's nftables: %w", err)
	}
	if t.conn != nil {
		t.conn.CloseLasting()
	}
	t.conn = conn
	return nil
}

func portOf(c *netlink.Conn) (port uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		if sa, inner = unix.Getsockname(int(fd)); inner == nil {
			if nl, ok := sa.(*unix.SockaddrNetlink); ok {
				port = nl.Pid
			}
		}
	})
	return port, errors.Join(err, inner)
}

// Close ends the connection; the table stays.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.conn.CloseLasting()
}

// Still names links between which packets are not to pass, because they did not pass before the engine made the host forward.
func (t *Table) Still(links []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.still = slices.Clone(links)
}

// SetBridge adds a bridge or changes what is known of it.
func (t *Table) SetBridge(b Bridge) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bridges[b.Name] = b
	if !t.there {
		return nil
	}
	return t.swap()
}

// RemoveBridge takes a bridge out of the rules.
func (t *Table) RemoveBridge(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bridges, name)
	if !t.there {
		return nil
	}
	return t.swap()
}

// ChecksSources says that what comes from a bridge under an address that is not behind it is dropped: not by kernels before Linux 5.19.
func (t *Table) ChecksSources() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.lax
}

// Swap replaces the table by what is wanted, in one transaction.
func (t *Table) Swap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.swap()
}

func (t *Table) swap() error {
	if t.closed {
		return fmt.Errorf("replace the table %s: the engine is closing", t.name)
	}
	err := t.replace()
	if err != nil {
		if dialErr := t.dial(); dialErr != nil {
			return dialErr
		}
		err = t.replace()
	}
	if errors.Is(err, unix.EOPNOTSUPP) && !t.lax { // before Linux 5.19
		t.lax = true
		if dialErr := t.dial(); dialErr != nil {
			return dialErr
		}
		err = t.replace()
	}
	if err != nil {
		t.dial()
		return fmt.Errorf("replace the nftables table %s: %w", t.name, err)
	}
	t.there = true
	return nil
}

func (t *Table) replace() error {
	table := &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
	owned, err := t.claim()
	if err != nil {
		return err
	}
	if owned {
		if err := t.clear(table); err != nil {
			return err
		}
	} else {
		t.conn.AddTable(table)
		t.conn.DelTable(table)
		t.conn.AddTable(table)
	}
	t.sets = newSets(table)
	t.sets.lax = t.lax
	bridges := slices.SortedFunc(maps.Values(t.bridges), func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	if err := t.sets.add(t.conn, bridges, t.still); err != nil {
		return err
	}
	for m, elements := range t.sets.elements(slices.Collect(maps.Keys(t.ports))) {
		for chunk := range slices.Chunk(elements, chunk) {
			if err := t.conn.SetAddElements(m, chunk); err != nil {
				return err
			}
		}
	}
	addRules(t.conn, table, t.sets)
	return t.conn.Flush()
}

// Delete removes the table.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	table := &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
	owned, err := t.claim()
	if err != nil {
		return err
	}
	if !owned {
		t.conn.AddTable(table)
	}
	t.conn.DelTable(table)
	t.there = false
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("delete the nftables table %s: %w", t.name, err)
	}
	return nil
}
