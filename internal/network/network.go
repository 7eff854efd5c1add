// Package network connects containers: bridges, addresses, names, published ports, firewall rules.
//
// Definitions of networks are files, one each, below <Root>/networks; they last. What a running container holds (addresses, interfaces,
// ports) is a file below <State>/network, which ends with the boot: the next engine finds interfaces and rules as they were and takes them
// over. Package link speaks to the kernel about interfaces, package firewall keeps the one nftables table of this engine, package dns
// answers containers that ask for names.
//
// All methods of Service are safe for many goroutines. Its lock guards memory only and is not held while the kernel works.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/network/dns"
)

// Options of Open.
type Options struct {
	Root   string // persistent network definitions: <Root>/networks
	State  string // live endpoints (lost at reboot): <State>/network
	Events *event.Bus
	Log    func(error) // what went wrong behind the calls; nil: nobody is told
	// Kept are the sockets of a container's resolver that were given to somebody to keep in an earlier life (Sockets); nil: there are none.
	Kept func(ctx context.Context, containerID string) ([]*os.File, error)

	Pools   []string // ranges from which networks get subnets, each "base=10.200.0.0/16,size=24"; none: Docker's
	Publish string   // where ports without an address are published: PublishAll, which "" is too, or PublishLoopback

	Defaults  Defaults
	Resolvers Resolvers
}

// Service owns the networks, their bridges and the engine's nftables table.
type Service struct {
	o         Options
	bootID    string
	guard     *guard
	routes    *routes
	resolvers *dns.Server
	waiting   func() map[string]string // see Await
	kernel
	state
}

// state is what the service knows: in memory, changed under its lock, never while the kernel or a disk works.
type state struct {
	names     names // of links and of the table
	poolTexts []string
	defaults  defaults
	conf      hostConf

	mu       sync.Mutex // guards what follows
	networks map[string]*lan
	holdings map[string]*holding // by container
	ends     map[string]bool     // names of the host's ends of pairs that are there or are about to be
	closed   bool
}

func (o Options) definitions() string { return filepath.Join(o.Root, "networks") }

func (o Options) live() string { return filepath.Join(o.State, "network") }

func (s *Service) log(err error) {
	if err != nil && s.o.Log != nil {
		s.o.Log(err)
	}
}

// AllocateRequest asks for addresses and ports of a container that is about to start.
type AllocateRequest struct {
	ContainerID, Name, Hostname string
	Networks                    map[string]*network.EndpointSettings // by network name or id; the container's request
	Had                         map[string]Had                       // by network name: what it had, and gets again where nobody has it; Networks win
	First                       string                               // the one of Networks that gets the first interface; "": the first by name
	Ports                       network.PortMap                      // -p; host port 0 or empty: any free one
	PublishAll                  bool
	Exposed                     network.PortSet
	DNS, DNSSearch, DNSOptions  []string
	ExtraHosts                  []string // "name:address", host-gateway understood
	Domainname                  string
	Sysctls                     map[string]string // the container's own: the runtime sets them, here they only win over the usual ones
	Scope                       access.Scope      // how far the container reaches: networks of others may be out of it
	Privileged                  bool              // it may hold containers of its own: they reach its resolver
	Understudy                  bool              // another container has the ports, names and static addresses until TakeOver: it is found by nobody
}

// Had are a container's addresses on a network in an earlier life.
type Had struct {
	IPv4, IPv6 netip.Addr
	MAC        network.HardwareAddr
}

// Allocation is what a container gets. Networks and Ports have Docker's inspect shapes, completely filled in.
type Allocation struct {
	Networks map[string]*network.EndpointSettings // by network name
	Ports    network.PortMap
	// Files to bind into the container.
	Hosts, ResolvConf []byte
	Sysctls           map[string]string // to set inside the network namespace before Attach returns (done by Attach)
}

// Rename tells DNS about a container's new name.
func (s *Service) Rename(containerID, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdings[containerID]
	if h == nil || h.Request.Name == name {
		return
	}
	h.Request.Name = name
	for _, e := range h.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			n.forgetNames(containerID, e)
			e.Name = name
			n.learnNames(containerID, e)
		}
	}
	if h.attached {
		if err := h.write(s.o.live()); err != nil {
			s.log(err)
		}
	}
}

// Unlink has a container on the default bridge know nobody by an alias any more.
func Unlink(s *Service, containerID, alias string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdings[containerID]
	if h == nil {
		return
	}
	before := rulesOf(&s.state, h)
	for _, e := range h.Endpoints {
		if n := s.networks[e.NetworkID]; n == nil || n.Name != network.NetworkBridge {
			continue
		}
		asked := e.Asked.Copy()
		asked.Links = slices.DeleteFunc(asked.Links, func(l string) bool { _, a := parseLink(l); return a == alias })
		e.Asked = asked
	}
	if h.attached {
		s.log(s.fire.ChangePorts(before, rulesOf(&s.state, h)))
		s.log(h.write(s.o.live()))
	}
}

// Live returns the allocation of a container that an earlier engine's life attached, ok false where there is none. Of a running container
// it is also what its files are to be after a Connect, Disconnect or Rename.
func (s *state) Live(containerID string) (a *Allocation, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdings[containerID]
	if h == nil || !h.attached {
		return nil, false
	}
	return s.allocation(h), true
}

// Endpoints is what Live says of networks and ports, without the files: lists ask it of many containers.
func (s *state) Endpoints(containerID string) (networks map[string]*network.EndpointSettings, ports network.PortMap, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdings[containerID]
	if h == nil || !h.attached {
		return nil, nil, false
	}
	return s.settings(h), h.Ports, true
}

// Retain releases every endpoint whose container is not in ids (after a restart of the engine).
func (s *Service) Retain(ctx context.Context, ids map[string]bool) error {
	s.mu.Lock()
	var gone []string
	var errs []error
	for id, h := range s.holdings {
		if !ids[id] {
			gone = append(gone, id)
		} else if h.ns != nil {
			errs = append(errs, h.unplugged)
		}
	}
	s.mu.Unlock()
	for _, id := range gone {
		errs = append(errs, s.Release(ctx, id))
	}
	return errors.Join(errs...)
}

// Gateway is the address by which containers on the default bridge reach the host.
func (s *state) Gateway() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, err := s.find(network.NetworkBridge); err == nil {
		return n.gateway()
	}
	return netip.Addr{}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
