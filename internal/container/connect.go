package container

import (
	"context"
	"errors"
	"maps"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/sandbox"
)

// ConnectNetwork adds a network to a container: at once where it runs, else at its next start.
func (s *Service) ConnectNetwork(ctx context.Context, id, name string, e *network.EndpointSettings) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	found, err := s.o.Networks.Inspect(ctx, name)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	if err := connectable(c, r, found.Name); err != nil {
		return err
	}
	switch _, ok := r.Networks[networkKey(r, found)]; {
	case ok && !r.Status.Alive():
		return nil // it has it at its next start. Docker takes no notice of what is asked for with it either
	case ok:
		return fail(errdefs.ErrPermissionDenied, "endpoint with name %s already exists in network %s", r.Name, found.Name)
	}
	if e == nil {
		e = &network.EndpointSettings{}
	}
	if err := scoped(found.Name, e); err != nil {
		return err
	}
	netns, err := netnsOf(c, r)
	if err != nil {
		return err
	}
	if netns == nil {
		if err := networks.Acceptable(s.o.Networks, found.Name, e); err != nil {
			return err
		}
	} else {
		defer netns.Close()
		if _, err := s.o.Networks.Connect(ctx, found.Name, r.allocateRequest(), e, netns); err != nil {
			return err
		}
		keepSockets(ctx, life{s, c})
		s.log((life{s, c}).rewriteFiles())
	}
	_, err = c.change(true, func(r *Record) error {
		r.Networks = withNetwork(r.Networks, found.Name, e)
		return nil
	})
	return err
}

// scoped refuses aliases on the default network, where nobody asks for names.
func scoped(name string, e *network.EndpointSettings) error {
	if name == network.NetworkBridge && len(e.Aliases) > 0 {
		return invalid("network-scoped aliases are only supported for user-defined networks, not for %s", name)
	}
	return nil
}

func connectable(c *Container, r *Record, name string) error {
	m := r.HostConfig.NetworkMode
	switch {
	case c.isGone(), r.Status == Removing, r.Status == Dead:
		return fail(errdefs.ErrConflict, "container %s is marked for removal and cannot be connected to a network", r.Name)
	case m.IsContainer():
		return fail(errdefs.ErrConflict, "container %s shares the network of another container and cannot be connected to another network: connect that one", r.Name)
	case m.IsHost():
		return fail(errdefs.ErrConflict, "container %s uses the host's network and cannot be connected to another one: create it without --network host", r.Name)
	case name == network.NetworkHost:
		return fail(errdefs.ErrConflict, "container %s cannot be disconnected from host network or connected to host network: create it with --network host", r.Name)
	}
	for other := range r.Networks {
		if other != name && (name == network.NetworkNone || other == network.NetworkNone) {
			return fail(errdefs.ErrConflict, "container %s cannot be connected to multiple networks with one of the networks in private (none) mode: disconnect it from %s first", r.Name, other)
		}
	}
	return nil
}

// networkKey is the name under which a container knows a network: the one it was asked for with, which may be an id.
func networkKey(r *Record, n network.Inspect) string {
	for key := range r.Networks {
		if key == n.Name || key == n.ID || len(key) >= 12 && len(key) <= len(n.ID) && n.ID[:len(key)] == key {
			return key
		}
	}
	return n.Name
}

func withNetwork(have map[string]*network.EndpointSettings, name string, e *network.EndpointSettings) map[string]*network.EndpointSettings {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]*network.EndpointSettings{}
	}
	if e == nil {
		delete(out, name)
	} else {
		out[name] = e
	}
	return out
}

// DisconnectNetwork takes a network away from a container. force: also one that is not there any more.
func (s *Service) DisconnectNetwork(ctx context.Context, id, name string, force bool) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	found, err := s.o.Networks.Inspect(ctx, name)
	if err != nil {
		if !force || !errdefs.IsNotFound(err) {
			return err
		}
		found.Name, found.ID = name, name
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	key := networkKey(r, found)
	if r.HostConfig.NetworkMode.IsHost() && found.Name == network.NetworkHost {
		return fail(errdefs.ErrConflict, "container %s cannot be disconnected from host network or connected to host network: create it anew, with another --network", r.Name)
	}
	if _, ok := r.Networks[key]; !ok || c.isGone() || !r.bridged() {
		return fail(errdefs.ErrConflict, "container %s is not connected to the network %s", r.Name, found.Name)
	}
	if err := (life{s, c}).disconnect(ctx, r, found.Name); err != nil && !force {
		return err
	}
	_, err = c.change(true, func(r *Record) error {
		r.Networks = withNetwork(r.Networks, key, nil)
		return nil
	})
	return err
}

// netnsOf is the network namespace that a container has; nil: none, or it is ending, and what is written down counts from its next start on.
func netnsOf(c *Container, r *Record) (*os.File, error) {
	if !r.Status.Alive() {
		return nil, nil
	}
	t, _, err := c.running()
	if err != nil {
		return nil, err
	}
	f, err := t.Namespace("net")
	if errdefs.IsFailedPrecondition(err) {
		return nil, nil
	}
	return f, err
}

func (l life) disconnect(ctx context.Context, r *Record, name string) error {
	netns, err := netnsOf(l.c, r)
	if netns == nil {
		return err
	}
	defer netns.Close()
	if err := l.s.o.Networks.Disconnect(ctx, name, l.c.id, netns); err != nil {
		return err
	}
	l.s.log(l.rewriteFiles())
	return nil
}

// rewriteFiles brings a running container's /etc/hosts and /etc/resolv.conf up to date with its networks.
func (l life) rewriteFiles() error {
	l.s.etc.Lock()
	defer l.s.etc.Unlock()
	a, ok := l.s.o.Networks.Live(l.c.id)
	if !ok {
		return nil
	}
	content := sandbox.Content{Hosts: a.Hosts, ResolvConf: a.ResolvConf, Hostname: l.c.record().Config.Hostname}
	return writeEtc(l.s, sandbox.FilesIn(l.s.o.etcDir(l.c.id)), content)
}

// settleNetworks mends what an engine left that was killed while it put a container on a network or took it off: nobody has heard that it is done.
// A network that the container was being put on it leaves again; one that it was leaving it has left.
func settleNetworks(ctx context.Context, l life) error {
	l.c.op.Lock()
	defer l.c.op.Unlock()
	r := l.c.record()
	has, _, ok := l.s.o.Networks.Endpoints(l.c.id)
	if !ok || !r.Status.Alive() || !r.bridged() {
		return nil
	}
	l.s.o.Networks.Rename(l.c.id, r.Name) // where a change of names was cut short
	var errs []error
	missing := maps.Clone(r.Networks)
	for name, e := range has {
		key := networkKey(r, network.Inspect{Network: network.Network{Name: name, ID: e.NetworkID}})
		if _, ok := missing[key]; !ok {
			errs = append(errs, l.disconnect(ctx, r, name))
		}
		delete(missing, key)
	}
	for key := range missing {
		if _, err := l.s.o.Networks.Inspect(ctx, key); err != nil {
			continue // the network is gone: the next start says so
		}
		_, err := l.c.change(true, func(r *Record) error {
			r.Networks = withNetwork(r.Networks, key, nil)
			return nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// awaitedNetworks are those of containers that a policy starts again, with a container's name: these are on none between an end and a start.
func awaitedNetworks(x *index) map[string]string {
	out := map[string]string{}
	for _, c := range x.all() {
		if r := c.record(); r.bridged() && (r.Status == Restarting || r.Status.Alive() && !r.HostConfig.RestartPolicy.IsNone()) {
			for name := range r.Networks {
				out[name] = r.Name
			}
		}
	}
	return out
}
