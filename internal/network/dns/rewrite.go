package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName = "wherry-dns"
	chainName = "ports"
)

// resolverAddress is where a resolver's sockets are bound.
var resolverAddress = [4]byte{127, 0, 0, 11}

// ports are those of a resolver's two sockets.
type ports struct{ udp, tcp uint16 }

// exchangePorts writes, in the calling thread's namespace, the rules that lead port 53 of 127.0.0.11 to the resolver's sockets:
//
//	ip daddr 127.0.0.11 udp dport 53 udp dport set UDP
//	ip saddr 127.0.0.11 udp sport UDP udp sport set 53
//
// and the same for TCP. They replace those of an earlier life of the engine whose sockets are gone. Those of exchangeAddress come with them where also is
// an address. The caller closes what is returned, when nobody waits: that waits for what other namespaces' rules are doing.
func exchangePorts(to ports, also netip.Addr) (closer func() error, err error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open a socket to nftables: %w", err)
	}
	add := func(t *nftables.Table) {
		addRules(c, t, to)
		if also.Is4() {
			exchangeAddress(c, t, to, also)
		}
	}
	add(c.CreateTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}))
	err = c.Flush()
	if errors.Is(err, unix.EEXIST) {
		c.CloseLasting()
		c.DelTable(c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}))
		add(c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}))
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

// row is a protocol in the rules.
type row struct {
	proto    byte
	port     uint16 // of the resolver's socket
	checksum uint32 // where the protocol's header has it
}

func (to ports) rows() []row {
	return []row{{unix.IPPROTO_UDP, to.udp, 6}, {unix.IPPROTO_TCP, to.tcp, 16}}
}

// Where the headers have their addresses and ports.
const (
	sourceAddress, destinationAddress = 12, 16
	sourcePort, destinationPort       = 0, 2
)

func addRules(c *nftables.Conn, t *nftables.Table, to ports) {
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: chainName, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	for _, r := range to.rows() {
		question := slices.Concat(addressIs(destinationAddress, resolverAddress[:]), r.portIs(destinationPort, 53), r.setPort(destinationPort, r.port))
		answer := slices.Concat(addressIs(sourceAddress, resolverAddress[:]), r.portIs(sourcePort, r.port), r.setPort(sourcePort, 53))
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: question})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: answer})
	}
}

// exchangeAddress writes the rules by which the resolver answers at another address, too, to programs in the namespace and to those in namespaces behind it:
//
//	ip daddr ALSO udp dport 53 udp dport set UDP ip daddr set 127.0.0.11
//	ip saddr 127.0.0.11 ip daddr != 127.0.0.0/8 udp sport UDP udp sport set 53 ip saddr set ALSO
//
// and the same for TCP. They come before those of addRules, which leave alone what these have changed. Who asks 127.0.0.11 does so from a loopback address. Who
// is behind the namespace needs its route_localnet, which Kubernetes sets.
func exchangeAddress(c *nftables.Conn, t *nftables.Table, to ports, also netip.Addr) {
	first := nftables.ChainPriorityRef(*nftables.ChainPriorityRaw - 1)
	out := c.AddChain(&nftables.Chain{Table: t, Name: "out", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: first})
	in := c.AddChain(&nftables.Chain{Table: t, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: first})
	for _, r := range to.rows() {
		question := slices.Concat(addressIs(destinationAddress, also.AsSlice()), r.portIs(destinationPort, 53),
			r.setPort(destinationPort, r.port), r.setAddress(destinationAddress, resolverAddress[:]))
		answer := slices.Concat(addressIs(sourceAddress, resolverAddress[:]), notLoopback(), r.portIs(sourcePort, r.port),
			r.setPort(sourcePort, 53), r.setAddress(sourceAddress, also.AsSlice()))
		c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: question})
		c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: answer})
		c.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: question})
	}
}

func addressIs(offset uint32, address []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address},
	}
}

// notLoopback is for packets to others than 127.0.0.0/8.
func notLoopback() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destinationAddress, Len: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127}},
	}
}

func (r row) portIs(offset uint32, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func (r row) setPort(offset uint32, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: r.checksum,
		},
	}
}

// setAddress writes an address, the checksum of the IP header, and that of the protocol, which counts addresses.
func (r row) setAddress(offset uint32, address []byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: address},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4,
			CsumType: expr.CsumTypeInet, CsumOffset: 10, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
		},
	}
}
