package firewall

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch tells when somebody else changed the table, and when notices were lost.
type Watch struct {
	t      *Table
	conn   *netlink.Conn
	closed atomic.Bool // what a receive says that is interrupted by Close depends on where it is
}

// Watch subscribes to the kernel's notices.
func (t *Table) Watch() (*Watch, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	_ = c.SetReadBuffer(1 << 20) // a smaller one loses notices sooner, which is noticed
	return &Watch{t: t, conn: c}, nil
}

// Close makes Next return os.ErrClosed.
func (w *Watch) Close() error {
	w.closed.Store(true)
	return w.conn.Close()
}

// Next waits for a change by somebody else.
func (w *Watch) Next() error {
	for {
		messages, err := w.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil
		case err != nil:
			if w.closed.Load() {
				return os.ErrClosed
			}
			return fmt.Errorf("read changes of nftables: %w", err)
		}
		for _, m := range messages {
			if w.foreign(m) {
				return nil
			}
		}
	}
}

// foreign says whether a notice is of a change to the table by somebody else.
func (w *Watch) foreign(m netlink.Message) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return false
	}
	w.t.mu.Lock()
	own := w.t.port
	w.t.mu.Unlock()
	if m.Header.PID == own {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[4:]) // behind struct nfgenmsg
	if err != nil {
		return false
	}
	for attributes.Next() {
		if attributes.Type() == 1 { // in tables, chains, rules, sets and elements alike: the table's name
			return attributes.String() == w.t.name
		}
	}
	return false
}

// Whole looks whether the kernel's table has all rules and ports that it should have.
func (t *Table) Whole() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.there || t.closed {
		return true
	}
	rules, ports, err := t.count()
	if err != nil && !errors.Is(err, unix.ENOENT) {
		_ = t.dial() // answers may be under way; a swap tells what is wrong
	}
	return err == nil && rules == t.ruleCount() && ports == len(t.ports)
}

// ruleCount is how many rules addRules writes.
func (t *Table) ruleCount() int {
	if t.lax {
		return 2 + 8 + 2 + 2 + 7 + 1 + 17
	}
	return 2 + 8 + 2 + 2 + 7 + 3 + 19
}

func (t *Table) count() (rules, ports int, err error) {
	table := &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
	chains, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return 0, 0, err
	}
	for _, c := range chains {
		if c.Table.Name != t.name {
			continue
		}
		list, err := t.conn.GetRules(table, c)
		if err != nil {
			return 0, 0, err
		}
		rules += len(list)
	}
	if rules != t.ruleCount() {
		return rules, 0, nil
	}
	maps := []*nftables.Set{t.sets.linked, t.sets.families[0].direct, t.sets.families[1].direct, t.sets.families[0].answers, t.sets.families[1].answers}
	for _, family := range t.sets.ports {
		for _, kind := range family {
			maps = append(maps, kind[:]...)
		}
	}
	for _, m := range maps {
		list, err := t.conn.GetSetElements(m)
		if err != nil {
			return 0, 0, err
		}
		ports += len(list)
	}
	return rules, ports, nil
}
