package network

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// publishingOf is what decides about a holding's ports.
func publishingOf(s *Service, h *holding) *publishing {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &publishing{via: exits(&s.state, h), loopback: s.o.Publish == PublishLoopback, have: slices.Clone(h.Reserved)}
	p.claimed = func(r *reservation) string {
		if slices.ContainsFunc(p.made, func(m *reservation) bool { return m.stands(r.Host, r.Proto) }) {
			return "this container"
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.publisher(r.Host, r.Proto, h)
	}
	return p
}

// reservePorts chooses and reserves the host's ports of a container that is about to start.
func reservePorts(s *Service, h *holding) error {
	p, want := publishingOf(s, h), h.Request.published()
	if h.Request.Understudy {
		h.Ports = want.shown(nil)
		return nil
	}
	wishes, err := p.wishes(want.wanted())
	if err == nil {
		err = p.reserve(wishes)
	}
	if err != nil {
		return err
	}
	h.Reserved, h.Ports = p.got, want.shown(p.got)
	return nil
}

// explainPorts says which container has a port that could not be had. The caller holds the lock.
func explainPorts(s *state, err error, e *endpoint) error {
	if taken := new(portTaken); errors.As(err, &taken) {
		taken.who = cmp.Or(s.publisher(taken.host, taken.proto, nil), taken.who)
	}
	if e != nil {
		err = fmt.Errorf("failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %w", e.Name, e.ID, err)
	}
	return err
}

// PortsRequest is what a running container is to have published from now on, as AllocateRequest says it.
type PortsRequest struct {
	ContainerID string
	Ports       network.PortMap
	PublishAll  bool
	Exposed     network.PortSet
}

// SetPorts changes the published ports of a running container: what stays is not touched, and the rules change in one transaction. Connections
// that are there go on, through ports that are taken away, too. It gives all ports as inspect shows them.
func SetPorts(s *Service, q PortsRequest) (network.PortMap, error) {
	s.mu.Lock()
	h := s.holdings[q.ContainerID]
	if h == nil || !h.attached || h.exclusiveDriver(s.networks) == driverHost {
		s.mu.Unlock()
		return nil, fmt.Errorf("container %s has no network of its own: %w", shortID(q.ContainerID), errdefs.ErrFailedPrecondition)
	}
	before := rulesOf(&s.state, h)
	s.mu.Unlock()
	p, want := publishingOf(s, h), published{q.Ports, q.PublishAll, q.Exposed}
	wishes, err := p.wishes(want.wanted())
	if err == nil {
		err = p.reserve(wishes)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, explainPorts(&s.state, err, nil)
	}
	s.mu.Lock()
	old, shownBefore, asked := h.Reserved, h.Ports, h.Request.published()
	h.Reserved, h.Ports = p.got, want.shown(p.got)
	h.Request.Ports, h.Request.PublishAll, h.Request.Exposed = q.Ports, q.PublishAll, q.Exposed
	after := rulesOf(&s.state, h)
	shown := h.Ports
	s.mu.Unlock()
	if err := s.fire.ChangePorts(before, after); err != nil {
		closeAll(p.made)
		s.mu.Lock()
		defer s.mu.Unlock()
		h.Reserved, h.Ports = old, shownBefore // their sockets may be closed; the rules are there
		h.Request.Ports, h.Request.PublishAll, h.Request.Exposed = asked.Ports, asked.All, asked.Exposed
		for _, r := range p.have {
			_ = r.bind()
		}
		return nil, err
	}
	if f := flowsOf(append(p.have, p.made...)); len(f) > 0 {
		s.later.add(job{run: func() error { return f.forget(nil) }})
	}
	return shown, h.write(s.o.live())
}
