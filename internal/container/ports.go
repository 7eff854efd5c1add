package container

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	networks "wherry.dev/wherry/internal/network"
)

// PortChange is what UpdatePorts changes.
type PortChange struct {
	Publish   network.PortMap
	Unpublish network.PortMap // a port without bindings, or with an empty one: all of that port's
}

// UpdatePorts publishes ports and takes others back: of a running container at once, while its process and its connections go on, and for
// its next starts. It gives the ports as inspect shows them.
func UpdatePorts(ctx context.Context, s *Service, id string, q PortChange) (network.PortMap, error) {
	c, err := s.index.find(id)
	if err != nil {
		return nil, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	switch m := r.HostConfig.NetworkMode; {
	case c.isGone(), r.Status == Removing, r.Status == Dead:
		return nil, fail(errdefs.ErrConflict, "container %s is marked for removal and cannot be updated", r.Name)
	case m.IsHost():
		return nil, fail(errdefs.ErrConflict, "container %s uses the host's network: its ports are the host's and nothing is to be published", r.Name)
	case m.IsNone(), m.IsContainer():
		return nil, fail(errdefs.ErrConflict, "container %s has the network mode %s: it publishes no ports", r.Name, m)
	case r.Replaces != nil:
		return nil, busy(r, "taking the place of another one: change its ports afterwards")
	}
	var live network.PortMap
	if _, ports, ok := s.o.Networks.Endpoints(r.ID); ok && r.Status.Alive() {
		live = ports
	}
	h, config := *r.HostConfig, *r.Config
	if h.PortBindings, err = changedPorts(r, live, q); err != nil {
		return nil, err
	}
	config.ExposedPorts = maps.Clone(config.ExposedPorts)
	for port := range q.Publish {
		if config.ExposedPorts == nil {
			config.ExposedPorts = network.PortSet{}
		}
		config.ExposedPorts[port] = struct{}{}
	}
	if err := (&validation{config: &config, host: &h}).ports(); err != nil {
		return nil, err
	}
	if live != nil {
		_, err := networks.SetPorts(s.o.Networks, networks.PortsRequest{ContainerID: r.ID, Ports: h.PortBindings, PublishAll: h.PublishAllPorts, Exposed: config.ExposedPorts})
		if err != nil {
			return nil, plain(err)
		}
		keepSockets(ctx, life{s, c})
	}
	r, err = c.change(true, func(r *Record) error {
		r.HostConfig, r.Config = &h, &config
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.publish(r, events.ActionUpdate)
	_, ports := s.connections(r)
	return ports, nil
}

// changedPorts are a container's bindings after a change.
func changedPorts(r *Record, live network.PortMap, q PortChange) (network.PortMap, error) {
	out := network.PortMap{}
	for port, bindings := range r.HostConfig.PortBindings {
		out[port] = slices.Clone(bindings)
	}
	for port, list := range q.Unpublish {
		if len(out[port]) == 0 {
			return nil, fail(errdefs.ErrNotFound, "container %s does not publish port %s", r.Name, port)
		}
		for _, b := range list {
			if b.HostPort == "" && !b.HostIP.IsValid() {
				list = nil
			}
		}
		if len(list) == 0 {
			delete(out, port)
			continue
		}
		for _, b := range list {
			out[port] = numbered(out[port], live[port])
			left := slices.DeleteFunc(slices.Clone(out[port]), func(have network.PortBinding) bool { return meant(b, have) })
			if len(left) == len(out[port]) {
				return nil, fail(errdefs.ErrNotFound, "container %s does not publish its port %s as %s", r.Name, port, bindingText(b))
			}
			if out[port] = left; len(left) == 0 {
				delete(out, port)
			}
		}
	}
	for port, list := range q.Publish {
		for _, b := range list {
			if !slices.Contains(out[port], b) || b.HostPort == "" {
				out[port] = append(out[port], b)
			}
		}
	}
	return out, nil
}

// numbered gives bindings the numbers that the engine has chosen for them, so that one of them can be meant.
func numbered(asked, live []network.PortBinding) []network.PortBinding {
	if len(live) == 0 || !slices.ContainsFunc(asked, func(b network.PortBinding) bool { return b.HostPort == "" || b.HostPort == "0" }) {
		return asked
	}
	var out []network.PortBinding
	for _, b := range live {
		if b.HostIP.IsUnspecified() {
			b.HostIP = netip.Addr{}
		}
		if !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

// meant says whether a binding is one that is to go; no address is any address, and no port any port.
func meant(b, have network.PortBinding) bool {
	anywhere := !have.HostIP.IsValid() || have.HostIP.IsUnspecified()
	address := !b.HostIP.IsValid() || b.HostIP == have.HostIP || b.HostIP.IsUnspecified() && anywhere
	return address && (b.HostPort == "" || b.HostPort == have.HostPort)
}

func bindingText(b network.PortBinding) string {
	if !b.HostIP.IsValid() {
		return b.HostPort
	}
	return b.HostIP.String() + ":" + b.HostPort
}
