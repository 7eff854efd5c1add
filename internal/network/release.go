package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/network/link"
)

// Release takes back all that Allocate and Attach gave. Unknown ids are fine. Slow kernel work is done behind the call.
func (s *Service) Release(ctx context.Context, containerID string) error {
	s.mu.Lock()
	h := s.holdings[containerID]
	if h == nil {
		s.mu.Unlock()
		return nil
	}
	delete(s.holdings, containerID)
	if !h.attached {
		s.drop(h)
		s.mu.Unlock()
		h.closePorts()
		return nil
	}
	var left []*lan
	var jobs []job
	published, own := rulesOf(&s.state, h), h.addresses()
	for _, e := range h.Endpoints {
		if n := s.detach(containerID, e); n != nil {
			left = append(left, n)
			jobs = append(jobs, s.unplug(h.ns, e, n))
		}
	}
	s.mu.Unlock()
	s.resolvers.Stop(containerID)
	err := s.fire.RemovePorts(published)
	h.closePorts()
	err = errors.Join(err, h.forget(s.o.live()))
	if h.ns != nil {
		jobs = append(jobs, job{then: func() { h.ns.Close() }})
	}
	f := flowsOf(h.Reserved)
	maps.Copy(f, h.Gave)
	if len(f) > 0 {
		jobs = append(jobs, job{run: func() error { return f.forget(own) }})
	}
	s.later.add(jobs...)
	for _, n := range left {
		s.publish(events.ActionDisconnect, n, containerID)
	}
	return err
}

// detach takes an endpoint off its network; its addresses and its link's name stay taken until its interface is gone. The caller holds the lock.
func (s *state) detach(containerID string, e *endpoint) *lan {
	n := s.networks[e.NetworkID]
	if n == nil || n.endpoints[containerID] != e {
		return nil
	}
	n.exit(containerID, e)
	return n
}

// unplug is the work of taking an endpoint's interfaces away.
func (s *Service) unplug(ns *os.File, e *endpoint, n *lan) job {
	j := job{end: e.End}
	if n.stacked() {
		// Explicitly, before the address is given to somebody else: a namespace takes its time to end.
		j.run = func() error { return s.unstack(ns, e.Interface) }
	}
	j.then = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range append([]netip.Addr{e.V4, e.V6}, e.Spare...) {
			n.giveAddress(a)
		}
		delete(s.ends, e.End)
	}
	return j
}

// unstack deletes an interface inside a namespace.
func (k *kernel) unstack(ns *os.File, name string) error {
	if ns == nil {
		return nil
	}
	return link.Inside(ns, k.home, func() error {
		c, err := link.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return link.Delete(c, 0, name)
	})
}

// Disconnect takes a container off a network; netns is nil where it does not run.
func (s *Service) Disconnect(ctx context.Context, nameOrID, containerID string, netns *os.File) error {
	s.mu.Lock()
	n, err := seen(&s.state, access.ScopeOf(ctx), nameOrID)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	h, e := s.holdings[containerID], n.endpoints[containerID]
	switch {
	case h == nil || e == nil:
		err = fmt.Errorf("container %s is not connected to network %s: %w", shortID(containerID), n.Name, errdefs.ErrPermissionDenied)
	case !n.plumbed() && n.Driver != driverNull:
		err = fmt.Errorf("container cannot be disconnected from the network %s or connected to it while it runs: %w", n.Name, errdefs.ErrPermissionDenied)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	before := pathsOf(&s.state, h)
	h.remove(e)
	s.detach(containerID, e)
	h.chooseWayOut(s.networks)
	h.noteWays(before)
	attached := h.attached
	s.mu.Unlock()
	if !attached {
		s.later.add(s.unplug(nil, e, n))
		return nil
	}
	errs := []error{h.write(s.o.live())}
	if err := s.reroute(h.ns, s.waysOut(h)); err != nil { // first: the kernel takes a default route away with its interface
		s.log(fmt.Errorf("routes of container %s, which leaves the network %s: %w", h.Request.Name, n.Name, err))
	}
	// It is off the network, whatever becomes of the others: what a user has done to his interfaces is his.
	if err := s.republish(h, before); err != nil {
		s.log(fmt.Errorf("ports of container %s, which left the network %s: %w", h.Request.Name, n.Name, err))
	}
	if !n.plumbed() { // it had nothing of it
	} else if n.stacked() {
		errs = append(errs, s.unstack(h.ns, e.Interface))
	} else {
		errs = append(errs, link.Delete(s.host, 0, e.End))
	}
	s.later.add(job{then: s.unplug(nil, e, n).then})
	s.publish(events.ActionDisconnect, n, containerID)
	return errors.Join(errs...)
}

// Connect puts a container on one more network: into its namespace where it runs, else among what Attach will plumb.
func (s *Service) Connect(ctx context.Context, nameOrID string, r AllocateRequest, settings *network.EndpointSettings, netns *os.File) (*network.EndpointSettings, error) {
	if settings == nil {
		settings = &network.EndpointSettings{}
	}
	s.mu.Lock()
	n, err := seen(&s.state, access.ScopeOf(ctx), nameOrID)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	h := s.holdings[r.ContainerID]
	if h == nil {
		h = &holding{BootID: s.bootID, Request: r}
		if netns != nil {
			h.attached = true
			err = h.pin(netns)
		}
	}
	before := pathsOf(&s.state, h)
	if err == nil {
		err = s.join(h, n, settings)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.holdings[r.ContainerID] = h
	e := n.endpoints[r.ContainerID]
	h.chooseWayOut(s.networks)
	h.noteWays(before)
	out := e.settings(n, r.ContainerID)
	plugs := s.plugs([]*endpoint{e})
	h.Asks = h.Asks || s.needsResolver(h)
	attached := h.attached
	s.mu.Unlock()
	if !attached {
		return out, nil
	}
	if err := s.connectLive(ctx, h, plugs, before); err != nil {
		s.mu.Lock()
		failed := pathsOf(&s.state, h)
		h.remove(e)
		s.detach(r.ContainerID, e)
		h.chooseWayOut(s.networks)
		s.mu.Unlock()
		s.log(s.reroute(h.ns, s.waysOut(h)))
		s.later.add(s.unplug(h.ns, e, n))
		err = errors.Join(err, s.republish(h, failed))
		return nil, errors.Join(fmt.Errorf("connect container %s to network %s: %w", r.Name, n.Name, err), h.write(s.o.live()))
	}
	s.publish(events.ActionConnect, n, r.ContainerID)
	return out, nil
}

func (s *Service) connectLive(ctx context.Context, h *holding, plugs []plug, before paths) error {
	if err := h.write(s.o.live()); err != nil {
		return err
	}
	if h.ns == nil {
		return fmt.Errorf("its network namespace was not found: %w", errdefs.ErrFailedPrecondition)
	}
	if err := raiseAnnexes(s, plugs); err != nil {
		return err
	}
	err := link.Inside(h.ns, s.home, func() error {
		if err := s.plumb(h, plugs); err != nil {
			return err
		}
		return s.startResolver(ctx, h)
	})
	if err != nil {
		return err
	}
	s.tellSeekers(h.ns, plugs)
	if err := s.republish(h, before); err != nil {
		return err
	}
	if before.ways == h.ways() {
		return nil
	}
	return s.reroute(h.ns, s.waysOut(h))
}
