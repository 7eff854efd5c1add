package firewall

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A table that has an owner is changed by that one's socket only: nft flush ruleset of others passes it over, so that there is no moment without
// its rules. Such a table outlives its owner and is taken over by the next one since Linux 6.9 (NFT_TABLE_F_PERSIST). Where the kernel knows no such
// thing, or the table was made by an earlier engine without an owner, it is anybody's, and mended.
const (
	flagOwner   = 0x2 // NFT_TABLE_F_OWNER
	flagPersist = 0x4 // NFT_TABLE_F_PERSIST
)

// claim makes the table, or takes it over. owned false: it is anybody's.
func (t *Table) claim() (owned bool, err error) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(t.name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, flagOwner | flagPersist}},
	})
	if err != nil {
		return false, err
	}
	message := func(kind netlink.HeaderType, flags netlink.HeaderFlags, family, subsystem byte, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: append([]byte{family, 0, 0, subsystem}, data...)}
	}
	batch := []netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Acknowledge|netlink.Create, unix.NFPROTO_INET, 0, attributes),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
	}
	for try := range 10 {
		if _, err = t.socket.SendMessages(batch); err == nil {
			_, err = t.socket.Receive()
		}
		if !errors.Is(err, unix.EPERM) { // the socket of an engine that was just killed takes a moment to be gone
			break
		}
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
	}
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("own the table %s: %w", t.name, err)
	}
	return true, nil
}

// clear takes everything out of an owned table, in the transaction that is being put together.
func (t *Table) clear(table *nftables.Table) error {
	chains, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	sets, err := t.conn.GetSets(table)
	if err != nil {
		return err
	}
	t.conn.FlushTable(table)
	for _, c := range chains {
		if c.Table.Name == t.name {
			t.conn.DelChain(c)
		}
	}
	for _, s := range sets {
		s.Table = table
		t.conn.DelSet(s)
	}
	return nil
}
