package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/network/link"
)

// validName says what a network may be called. Vagrant's are called by their subnets, vagrant_network_172.30.9.0/24. A name stands in the path of a
// request, so that it has no part that a path is cut short by, and it is none of what containers say in the place of a network.
func validName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-' || c == ':' || (c == ' ' || c == '/') && i < len(s)-1):
		default:
			return false
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return !strings.HasPrefix(s, "container:")
}

// Create makes a network, with its link and its rules.
func (s *Service) Create(ctx context.Context, r network.CreateRequest) (network.CreateResponse, error) {
	r, err := configured(&s.state, access.ScopeOf(ctx), r)
	if err != nil {
		return network.CreateResponse{}, err
	}
	if bridged(r) {
		s.defaults.addTo(&r)
	}
	d, err := newDefinition(s.names, r)
	if err != nil {
		return network.CreateResponse{}, err
	}
	scope := access.ScopeOf(ctx)
	d.Owner = scope.Owner
	if scope.Limited {
		if err := errors.Join(ownSubnets(&s.state, d.Name, r.IPAM), ownShare(&s.state, scope, d)); err != nil {
			return network.CreateResponse{}, err
		}
	}
	n, err := s.enlist(d, r.IPAM)
	if errdefs.IsPermissionDenied(err) {
		// What is in the way may be a bridge whose network is gone: it goes a moment later.
		s.later.flush()
		n, err = s.enlist(d, r.IPAM)
	}
	if err != nil {
		return network.CreateResponse{}, err
	}
	if err := s.build(ctx, n); err != nil {
		s.mu.Lock()
		unlist(&s.state, n)
		s.mu.Unlock()
		return network.CreateResponse{}, err
	}
	s.mu.Lock()
	n.built = true
	s.mu.Unlock()
	s.publish(events.ActionCreate, n, "")
	return network.CreateResponse{ID: d.ID}, nil
}

// build makes what a new network consists of outside memory, and nothing where a step fails. The definition comes first: a link whose making is cut
// short bears no mark yet, and is found again by it.
func (s *Service) build(ctx context.Context, n *lan) (err error) {
	if n.ConfigOnly {
		return n.write(s.o.definitions())
	}
	if n.option("bridge.name") != "" || n.stacked() {
		n.Adopted = isForeign(s, n.Bridge)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.unbuild(n))
		}
	}()
	if err := n.write(s.o.definitions()); err != nil {
		return err
	}
	if err := s.raise(n, s.names.table); err != nil {
		return err
	}
	if n.Driver == driverBridge {
		if err := s.fire.SetBridge(n.rules()); err != nil {
			return err
		}
	}
	return avoidHost(&s.state, n)
}

// isForeign says that the host has a link of that name which is not of this engine's making.
func isForeign(s *Service, name string) bool {
	l, err := netlink.LinkByName(name)
	return err == nil && l.Attrs().Alias != s.names.table
}

// unbuild takes away what build made, the definition first: without it the network does not come back.
func (s *Service) unbuild(n *lan) error {
	err := os.Remove(filepath.Join(s.o.definitions(), n.ID+".json"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if n.Driver == driverBridge {
		err = errors.Join(err, s.fire.RemoveBridge(n.Bridge))
	}
	for _, name := range s.annexLinks(n) {
		s.later.add(job{end: name})
	}
	if n.Bridge != "" && !n.Adopted {
		s.later.add(job{run: func() error {
			if parentIsUsed(&s.state, n) {
				return nil
			}
			return link.Delete(s.host, 0, n.Bridge)
		}})
	}
	return err
}

// parentIsUsed says that another network needs the link of one that goes.
func parentIsUsed(s *state, n *lan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.networks {
		if other != n && other.Bridge == n.Bridge {
			return true
		}
	}
	return false
}

// newDefinition checks a request; addresses are yet to come.
func newDefinition(names names, r network.CreateRequest) (*definition, error) {
	switch {
	case !validName(r.Name):
		return nil, invalid("%q is no name for a network: letters, digits, and after the first also _ . : - spaces and single slashes are fine", r.Name)
	case r.Name == network.NetworkDefault || r.Name == network.NetworkBridge || r.Name == network.NetworkHost || r.Name == network.NetworkNone:
		return nil, fmt.Errorf("operation is not permitted on predefined %s network: %w", r.Name, errdefs.ErrPermissionDenied)
	}
	if err := checkDriver(r.Driver); err != nil && !r.ConfigOnly {
		return nil, err
	}
	d := &definition{Network: network.Network{
		Name: r.Name, ID: newID(), Created: time.Now(), Scope: "local", Driver: driverBridge,
		ConfigOnly: r.ConfigOnly, ConfigFrom: network.ConfigReference{Network: configOf(r)},
		EnableIPv4: r.EnableIPv4 == nil || *r.EnableIPv4, EnableIPv6: r.EnableIPv6 != nil && *r.EnableIPv6,
		Internal: r.Internal, Attachable: r.Attachable, Options: map[string]string{}, Labels: map[string]string{},
		IPAM: network.IPAM{Driver: ipamDefault},
	}}
	maps.Copy(d.Options, r.Options)
	maps.Copy(d.Labels, r.Labels)
	if err := d.readFamilies(r); err != nil {
		return nil, err
	}
	switch {
	case r.ConfigOnly:
		d.Driver = driverNull
		return d, nil
	case r.Driver == driverMacvlan, r.Driver == driverIpvlan:
		d.Driver = r.Driver
		return d, d.checkStacked(names)
	}
	d.Bridge = d.option("bridge.name")
	if d.Bridge == "" {
		d.Bridge = names.bridgeOf(d.ID)
	}
	return d, d.checkOptions()
}

// enlist gives a network its addresses and its name among the others.
func (s *state) enlist(d *definition, ipam *network.IPAM) (*lan, error) {
	if ipam != nil {
		if err := d.readAddresses(ipam); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		switch {
		case n.Name == d.Name:
			return nil, fmt.Errorf("network with name %s already exists: %w", d.Name, errdefs.ErrConflict)
		case d.Driver == driverBridge && n.Driver == driverBridge && n.Bridge == d.Bridge:
			return nil, fmt.Errorf("network %s: the bridge %s belongs to the network %s: %w", d.Name, d.Bridge, n.Name, errdefs.ErrConflict)
		}
	}
	if err := shares(s, d); err != nil {
		return nil, err
	}
	if d.ConfigOnly {
		n, err := newLan(d, nil)
		s.networks[d.ID] = n
		return n, err
	}
	if err := s.completeAddresses(d); err != nil {
		return nil, err
	}
	n, err := newLan(d, neighbours(s, d))
	if err != nil {
		return nil, err
	}
	d.Unasked = nil
	for p := range n.pools() { // the gateway is written down: it stays the same whatever the rules of choosing will be
		for j := range d.IPAM.Config {
			c := &d.IPAM.Config[j]
			if c.Subnet != p.subnet {
				continue
			}
			if !c.Gateway.IsValid() && p.gateway.IsValid() {
				d.Unasked = append(d.Unasked, p.gateway)
			}
			c.Gateway = p.gateway
		}
	}
	list(s, n)
	return n, nil
}

// readAddresses takes over what a request says of addresses.
func (d *definition) readAddresses(ipam *network.IPAM) error {
	switch ipam.Driver {
	case "", ipamDefault:
	case ipamNull:
		if len(ipam.Config) > 0 {
			return invalid("network %s: the IPAM driver null gives no addresses, so it takes no subnet: leave the subnet out, or the driver", d.Name)
		}
		d.IPAM.Driver = ipamNull
	default:
		return fmt.Errorf("IPAM driver %q: could not find plugin, this engine has default and null: %w", ipam.Driver, errdefs.ErrNotFound)
	}
	for _, c := range ipam.Config {
		if c.Subnet.IsValid() && c.Subnet != c.Subnet.Masked() {
			return invalid("invalid network config: invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		}
	}
	d.IPAM.Config = slices.Clone(ipam.Config)
	d.IPAM.Options = maps.Clone(ipam.Options) // none at all stays that: clients compare
	return nil
}

// completeAddresses checks the subnets that are asked for and adds those that are missing. The caller holds the lock.
func (s *state) completeAddresses(d *definition) error {
	have := map[bool]bool{}
	for i := range d.IPAM.Config {
		c := &d.IPAM.Config[i]
		if !c.Subnet.IsValid() {
			return invalid("network %s: an ip-range, a gateway or an auxiliary address needs a subnet", d.Name)
		}
		if err := checkAuxiliary(*c); err != nil {
			return err
		}
		six := c.Subnet.Addr().Is6()
		have[six] = true
		if six && !d.EnableIPv6 && !d.stacked() {
			return invalid("network %s: an IPv6 subnet needs IPv6: add --ipv6", d.Name)
		}
		if c.Subnet.Addr().IsUnspecified() && c.Subnet.Bits() > 0 { // only how large it is
			var err error
			if c.Subnet, err = s.freeSubnet(six, c.Subnet.Bits()); err != nil {
				return fmt.Errorf("choose addresses for the network %s: %w", d.Name, err)
			}
		}
		for _, other := range d.IPAM.Config[:i] {
			if other.Subnet.Overlaps(c.Subnet) {
				return fmt.Errorf("network %s: invalid pool request: Pool overlaps with other one on this address space: its own subnets %s and %s: %w", d.Name, other.Subnet, c.Subnet, errdefs.ErrPermissionDenied)
			}
		}
		if !d.addressed(c.Subnet.Addr()) {
			continue
		}
		if err := s.checkSubnet(d, *c); err != nil {
			return err
		}
	}
	for _, row := range []struct{ six, on bool }{{false, d.EnableIPv4}, {true, d.EnableIPv6}} {
		if !row.on || have[row.six] || d.IPAM.Driver == ipamNull {
			continue
		}
		subnet, err := s.freeSubnet(row.six, 0)
		if err != nil {
			return fmt.Errorf("choose addresses for the network %s: %w", d.Name, err)
		}
		d.IPAM.Config = append(d.IPAM.Config, network.IPAMConfig{Subnet: subnet, Gateway: subnet.Addr().Next()})
		d.Chosen = d.Chosen || !row.six
	}
	slices.SortStableFunc(d.IPAM.Config, func(a, b network.IPAMConfig) int { return a.Subnet.Addr().BitLen() - b.Subnet.Addr().BitLen() }) // as Docker: IPv4 first
	return nil
}

// checkAuxiliary refuses an address that is reserved twice.
func checkAuxiliary(c network.IPAMConfig) error {
	taken := map[netip.Addr]string{}
	if c.Gateway.IsValid() {
		taken[c.Gateway] = "the gateway"
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		a := c.AuxAddress[name]
		if by := taken[a]; by != "" {
			return invalid("failed to allocate secondary ip address (%s:%s): Address already in use: by %s", name, a, by)
		}
		taken[a] = name
	}
	return nil
}

// checkSubnet refuses what another network or the host has already.
func (s *state) checkSubnet(d *definition, asked network.IPAMConfig) error {
	subnet := asked.Subnet
	if a := subnet.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() {
		return invalid("network %s: subnet %s is none that a network can have", d.Name, subnet)
	}
	for _, n := range s.networks {
		if n.ConfigOnly {
			continue
		}
		for _, c := range n.IPAM.Config {
			if c.Subnet.Overlaps(subnet) && !mayShare(d, n.definition, asked, c) {
				return fmt.Errorf("network %s: invalid pool request: Pool overlaps with other one on this address space: subnet %s and %s of network %s: %w", d.Name, subnet, c.Subnet, n.Name, errdefs.ErrPermissionDenied)
			}
		}
	}
	if d.stacked() {
		return nil // as a rule it is the parent's own
	}
	routes, err := hostRoutes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.to.Overlaps(subnet) {
			return fmt.Errorf("network %s: subnet %s overlaps with the host's route to %s: choose another subnet: %w", d.Name, subnet, r.to, errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

// publish tells of a network, with Docker's attributes.
func (s *Service) publish(action events.Action, n *lan, containerID string) {
	if s.o.Events == nil {
		return
	}
	attributes := map[string]string{"name": n.Name, "type": n.Driver, access.OwnerAttribute: n.Owner}
	if containerID != "" {
		attributes["container"] = containerID
	}
	s.o.Events.Publish(events.NetworkEventType, action, n.ID, attributes)
}
