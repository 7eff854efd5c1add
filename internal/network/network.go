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
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/event"
)

// Options of Open.
type Options struct {
	Root   string // persistent network definitions: <Root>/networks
	State  string // live endpoints (lost at reboot): <State>/network
	Events *event.Bus
	Log    func(error) // what went wrong behind the calls; nil: nobody is told
}

// Service owns the networks, their bridges and the engine's nftables table.
type Service struct {
	o      Options
	names  names // of links and of the table
	bootID string

	mu       sync.Mutex // guards what follows
	networks map[string]*lan
	holdings map[string]*holding // by container
	closed   bool
}

// Open reads the definitions, makes the default network "bridge" (and "host", "none"), mends links and rules from the live endpoints.
func Open(ctx context.Context, o Options) (*Service, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	s := &Service{
		o: o, names: namesOf(o.State), bootID: strings.TrimSpace(string(boot)),
		networks: map[string]*lan{}, holdings: map[string]*holding{},
	}
	for _, dir := range []string{s.definitionsDir(), s.liveDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of networks: %w", err)
		}
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close stops DNS and watchers; links and rules stay, running containers keep their network.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *Service) definitionsDir() string { return filepath.Join(s.o.Root, "networks") }

func (s *Service) liveDir() string { return filepath.Join(s.o.State, "network") }

func (s *Service) log(err error) {
	if err != nil && s.o.Log != nil {
		s.o.Log(err)
	}
}

// AllocateRequest asks for addresses and ports of a container that is about to start.
type AllocateRequest struct {
	ContainerID, Name, Hostname string
	Networks                    map[string]*network.EndpointSettings // by network name or id; the container's request
	Ports                       network.PortMap                      // -p; host port 0 or empty: any free one
	PublishAll                  bool
	Exposed                     network.PortSet
	DNS, DNSSearch, DNSOptions  []string
	ExtraHosts                  []string // "name:address", host-gateway understood
	Domainname                  string
}

// Allocation is what a container gets. Networks and Ports have Docker's inspect shapes, completely filled in.
type Allocation struct {
	Networks map[string]*network.EndpointSettings // by network name
	Ports    network.PortMap
	// Files to bind into the container.
	Hosts, ResolvConf []byte
	Sysctls           map[string]string // to set inside the network namespace before Attach returns (done by Attach)
}

// Attach plumbs an allocated container's interfaces, routes, DNS and ports into its network namespace.
func (s *Service) Attach(ctx context.Context, containerID string, netns *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.holdings[containerID]; h != nil {
		for _, e := range h.Endpoints {
			if e.Interface != "" {
				return errors.New("not written yet")
			}
		}
		h.attached = true
	}
	return nil
}

// Connect and Disconnect change a running container (netns non-nil) and return its endpoint's settings.
func (s *Service) Connect(ctx context.Context, nameOrID string, r AllocateRequest, settings *network.EndpointSettings, netns *os.File) (*network.EndpointSettings, error) {
	panic("not written yet")
}
func (s *Service) Disconnect(ctx context.Context, nameOrID, containerID string, netns *os.File) error {
	panic("not written yet")
}

// Rename tells DNS about a container's new name.
func (s *Service) Rename(containerID, name string) {}

// Live returns the allocation of a container that an earlier engine's life attached, ok false where there is none.
func (s *Service) Live(containerID string) (a *Allocation, ok bool) { return nil, false }

// Retain releases every endpoint whose container is not in ids (after a restart of the engine).
func (s *Service) Retain(ctx context.Context, ids map[string]bool) error { return nil }

// Gateway is the address by which containers on the default bridge reach the host.
func (s *Service) Gateway() netip.Addr {
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
