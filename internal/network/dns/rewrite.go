package dns

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName = "wherry-dns"
	chainName = "ports"
)

// ports are those of a resolver's two sockets.
type ports struct{ udp, tcp uint16 }

// exchangePorts writes, in the calling thread's namespace, the rules that lead port 53 of 127.0.0.11 to the resolver's sockets:
//
//	ip daddr 127.0.0.11 udp dport 53 udp dport set UDP
//	ip saddr 127.0.0.11 udp sport UDP udp sport set 53
//
// and the same for TCP. They replace those of an earlier life of the engine whose sockets are gone. The caller closes what is returned, when nobody waits: that
// waits for what other namespaces' rules are doing.
func exchangePorts(to ports) (closer func() error, err error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open a socket to nftables: %w", err)
	}
	addRules(c, c.CreateTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}), to)
	err = c.Flush()
	if errors.Is(err, unix.EEXIST) {
		c.CloseLasting()
		c.DelTable(c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}))
		addRules(c, c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}), to)
		err = c.Flush()
	}
	if err != nil {
		c.CloseLasting()
		return nil, fmt.Errorf("lead port 53 to the resolver: %w", err)
	}
	return c.CloseLasting, nil
}

// exchanged are the ports to which the rules in the calling thread's namespace lead; zero without such rules.
func exchanged() (to ports) {
	c, err := nftables.New()
	if err != nil {
		return to
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	rules, err := c.GetRules(t, &nftables.Chain{Table: t, Name: chainName})
	if err != nil || len(rules) != 4 {
		return to
	}
	return ports{setPort(rules[0]), setPort(rules[2])}
}

// setPort is the port that a rule puts into packets.
func setPort(r *nftables.Rule) uint16 {
	for _, e := range r.Exprs {
		if i, ok := e.(*expr.Immediate); ok && len(i.Data) == 2 {
			return binaryutil.BigEndian.Uint16(i.Data)
		}
	}
	return 0
}

func addRules(c *nftables.Conn, t *nftables.Table, to ports) {
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: chainName, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	for _, row := range []struct {
		proto    byte
		port     uint16
		checksum uint32 // where the protocol's header has it
	}{{unix.IPPROTO_UDP, to.udp, 6}, {unix.IPPROTO_TCP, to.tcp, 16}} {
		for _, way := range []struct {
			address, port uint32 // offsets
			from, to      uint16
		}{{16, 2, 53, row.port}, {12, 0, row.port, 53}} {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: way.address, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127, 0, 0, 11}},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{row.proto}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: way.port, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(way.from)},
				&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(way.to)},
				&expr.Payload{
					OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: way.port, Len: 2,
					CsumType: expr.CsumTypeInet, CsumOffset: row.checksum,
				},
			}})
		}
	}
}
