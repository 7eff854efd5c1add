// Package network connects containers: bridges, addresses, names, published ports, firewall rules.
package network

import (
	"context"
	"net/netip"
	"os"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/event"
)

// Options of Open.
type Options struct {
	Root   string // persistent network definitions: <Root>/networks
	State  string // live endpoints (lost at reboot): <State>/network
	Events *event.Bus
}

// Service owns the networks, their bridges and the engine's nftables table.
type Service struct{}

// Open reads the definitions, makes the default network "bridge" (and "host", "none"), mends links and rules from the live endpoints.
func Open(ctx context.Context, o Options) (*Service, error) { panic("not written yet") }

// Close stops DNS and watchers; links and rules stay, running containers keep their network.
func (s *Service) Close() error { panic("not written yet") }

func (s *Service) Create(ctx context.Context, r network.CreateRequest) (network.CreateResponse, error) {
	panic("not written yet")
}
func (s *Service) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	panic("not written yet")
}
func (s *Service) List(ctx context.Context, filters map[string]map[string]bool) ([]network.Inspect, error) {
	panic("not written yet")
}
func (s *Service) Remove(ctx context.Context, nameOrID string) error { panic("not written yet") }
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (network.PruneReport, error) {
	panic("not written yet")
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
	Networks map[string]*network.EndpointSettings
	Ports    network.PortMap
	// Files to bind into the container.
	Hosts, ResolvConf []byte
	Sysctls           map[string]string // to set inside the network namespace before Attach returns (done by Attach)
}

// Allocate reserves addresses and host ports (errdefs.ErrConflict naming the process that holds a port). Nothing is plumbed yet.
func (s *Service) Allocate(ctx context.Context, r AllocateRequest) (*Allocation, error) {
	panic("not written yet")
}

// Attach plumbs an allocated container's interfaces, routes, DNS and ports into its network namespace.
func (s *Service) Attach(ctx context.Context, containerID string, netns *os.File) error {
	panic("not written yet")
}

// Release takes back all that Allocate and Attach gave. Unknown ids are fine. Slow kernel work is done behind the call.
func (s *Service) Release(ctx context.Context, containerID string) error { panic("not written yet") }

// Connect and Disconnect change a running container (netns non-nil) and return its endpoint's settings.
func (s *Service) Connect(ctx context.Context, nameOrID string, r AllocateRequest, settings *network.EndpointSettings, netns *os.File) (*network.EndpointSettings, error) {
	panic("not written yet")
}
func (s *Service) Disconnect(ctx context.Context, nameOrID, containerID string, netns *os.File) error {
	panic("not written yet")
}

// Rename tells DNS about a container's new name.
func (s *Service) Rename(containerID, name string) { panic("not written yet") }

// Live returns the allocation of a container that an earlier engine's life attached, ok false where there is none.
func (s *Service) Live(containerID string) (a *Allocation, ok bool) { panic("not written yet") }

// Retain releases every endpoint whose container is not in ids (after a restart of the engine).
func (s *Service) Retain(ctx context.Context, ids map[string]bool) error { panic("not written yet") }

// Gateway is the address by which containers on the default bridge reach the host.
func (s *Service) Gateway() netip.Addr { panic("not written yet") }
