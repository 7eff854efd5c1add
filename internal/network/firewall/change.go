package firewall

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// AddPorts publishes ports.
func (t *Table) AddPorts(ports []Port) error { return t.ChangePorts(nil, ports) }

// RemovePorts takes ports back. Those that are not published are left out.
func (t *Table) RemovePorts(ports []Port) error { return t.ChangePorts(ports, nil) }

// ChangePorts takes ports back and publishes others, in one transaction: no packet sees a moment between. A port that is in both stays.
func (t *Table) ChangePorts(before, after []Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	stays := make(map[Port]bool, len(after))
	for _, p := range after {
		stays[p] = true
	}
	var remove, add []Port
	for _, p := range before {
		if t.ports[p] && !stays[p] {
			remove = append(remove, p)
		}
	}
	for _, p := range after {
		if !t.ports[p] {
			add = append(add, p)
		}
	}
	return t.change(remove, add)
}

// change removes and adds elements of the maps of ports. Where the kernel's table is not as expected it is replaced.
func (t *Table) change(remove, add []Port) error {
	if len(remove)+len(add) == 0 {
		return nil
	}
	t.note(remove, add)
	if !t.there {
		return nil
	}
	if err := t.flushElements(remove, add); err != nil {
		if again := t.swap(); again == nil {
			return nil
		}
		if len(add) > 0 { // what was taken back is not wanted, whatever the kernel says
			t.note(add, nil)
		}
		return fmt.Errorf("publish ports in the table %s: %w", t.name, err)
	}
	return nil
}

func (t *Table) note(remove, add []Port) {
	for _, p := range remove {
		delete(t.ports, p)
	}
	for _, p := range add {
		t.ports[p] = true
	}
	if t.local == nil {
		return
	}
	for _, p := range add { // first: what is in both is never missing
		if p.isLocal() {
			t.local.Publish(p.Proto, p.First, max(p.First, p.Last))
		}
	}
	for _, p := range remove {
		if p.isLocal() {
			t.local.Withdraw(p.Proto, p.First, max(p.First, p.Last))
		}
	}
}

// flushElements sends one transaction: what goes before what comes, which may have the same key.
func (t *Table) flushElements(remove, add []Port) error {
	for _, step := range []struct {
		ports []Port
		do    func(*nftables.Set, []nftables.SetElement) error
	}{{remove, t.conn.SetDeleteElements}, {add, t.conn.SetAddElements}} {
		for m, elements := range t.sets.elements(step.ports) {
			for chunk := range slices.Chunk(elements, chunk) {
				if err := step.do(m, chunk); err != nil {
					return err
				}
			}
		}
	}
	return t.conn.Flush()
}
