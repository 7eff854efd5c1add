package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	networks "wherry.dev/wherry/internal/network"
)

// Link is another container that one on the default bridge knows by an alias. It is held by its id: it may be renamed, and its name given to
// somebody else. On other networks links are the network's, which looks for the names when somebody asks for them.
type Link struct{ ID, Alias string }

// manyOwners is how many containers are followed to the one whose network it is.
const manyOwners = 64

// networkOwner is the container whose network c is in, itself where that is its own: `--network container:` may name one that is in another's.
func (x *index) networkOwner(c *Container) (*Container, error) {
	for range manyOwners {
		owner := c.record().HostConfig.NetworkMode.ConnectedContainer()
		if owner == "" {
			break
		}
		next, err := x.find(owner)
		if err != nil {
			return nil, fmt.Errorf("container %s shares the network of a container that is not there: %w", c.record().Name, err)
		}
		c = next
	}
	return c, nil
}

// links finds those that --link names. An alias may be written as inspect shows it: /ME/ALIAS.
func (n *creating) links(context.Context) error {
	if n.r.HostConfig.NetworkMode != network.NetworkBridge {
		return nil
	}
	for _, text := range n.r.HostConfig.Links {
		name, alias, _ := strings.Cut(text, ":")
		name = strings.TrimPrefix(name, "/")
		c, err := n.s.index.find(name)
		if err != nil {
			return invalid("could not get container for %s: %v", name, err)
		}
		if c, err = n.s.index.networkOwner(c); err != nil { // one in another's network is reached where that one is
			return invalid("could not get container for %s: %v", name, err)
		}
		if c.record().HostConfig.NetworkMode.IsHost() {
			return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior: container %s has the host's network", name)
		}
		if alias = alias[strings.LastIndexByte(alias, '/')+1:]; alias == "" {
			alias = name
		}
		n.r.Links = append(n.r.Links, Link{ID: c.id, Alias: alias})
	}
	return nil
}

// Unlink takes a link away, `rm --link PARENT/ALIAS`; the container that it leads to stays.
func Unlink(ctx context.Context, s *Service, parent, alias string) error {
	c, err := s.index.find(parent)
	if err != nil {
		return err
	}
	if scope := access.ScopeOf(ctx); scope.Limited && c.record().Owner != scope.Owner { // the way here may have led by the link itself
		return noSuchContainer(parent)
	}
	if alias == "" {
		return fail(errdefs.ErrConflict, "Conflict, cannot remove the default link name of the container: write CONTAINER/ALIAS, as inspect shows links (HostConfig.Links)")
	}
	c.op.Lock()
	defer c.op.Unlock()
	at := func(l Link) bool { return l.Alias == alias }
	r, err := c.change(true, func(r *Record) error {
		if !slices.ContainsFunc(r.Links, at) {
			return fail(errdefs.ErrNotFound, "No such container: %s/%s: container %s has no link of that name", parent, alias, r.Name)
		}
		r.Links = slices.DeleteFunc(slices.Clone(r.Links), at)
		h := *r.HostConfig
		h.Links = nil // they are in Links
		if len(r.Links) > 0 {
			h.Links = r.askedLinks()
		}
		r.HostConfig = &h
		return nil
	})
	if err != nil {
		return err
	}
	if r.bridged() && r.Status.Alive() {
		networks.Unlink(s.o.Networks, c.id, alias)
		s.log((life{s, c}).rewriteFiles())
	}
	return nil
}

// askedLinks are the links as package network reads them.
func (r *Record) askedLinks() []string {
	if len(r.Links) == 0 { // on another network, or the record is older
		return r.HostConfig.Links
	}
	out := make([]string, len(r.Links))
	for i, l := range r.Links {
		out[i] = l.ID + ":" + l.Alias
	}
	return out
}

// shownHost is the host configuration as inspect shows it: links by the names that both have now.
func (x *index) shownHost(r *Record) *container.HostConfig {
	if len(r.Links) == 0 {
		return r.HostConfig
	}
	h := *r.HostConfig
	h.Links = nil
	for _, l := range r.Links {
		if c, err := x.find(l.ID); err == nil {
			h.Links = append(h.Links, "/"+c.record().Name+":/"+r.Name+"/"+l.Alias)
		}
	}
	return &h
}

// linkNames are the further names that containers have by others' links to them, by id.
func linkNames(all []*Container) map[string][]string {
	var out map[string][]string
	for _, c := range all {
		r := c.record()
		for _, l := range r.Links {
			if out == nil {
				out = map[string][]string{}
			}
			out[l.ID] = append(out[l.ID], "/"+r.Name+"/"+l.Alias)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// linked is the container that another one knows by an alias; nil without one. The caller holds mu.
func (x *index) linked(name string) *Container {
	parent, alias, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok {
		return nil
	}
	c := x.byID[x.names[parent]]
	if c == nil {
		c = x.byID[parent]
	}
	if c == nil {
		return nil
	}
	for _, l := range c.record().Links {
		if l.Alias == alias {
			return x.byID[l.ID]
		}
	}
	return nil
}

// linkable refuses to start a container before those that it is linked to.
func (x *index) linkable(r *Record) error {
	for _, l := range r.Links {
		c, err := x.find(l.ID)
		if err != nil {
			return invalid("Cannot link to %s, which is no longer there, AS /%s/%s: create the container anew", l.ID, r.Name, l.Alias)
		}
		if !c.record().Status.Alive() {
			return invalid("Cannot link to a non running container: /%s AS /%s/%s", c.record().Name, r.Name, l.Alias)
		}
	}
	return nil
}

// moveLinks has those that are linked to a container linked to the one that takes its place, from their next start on.
func (x *index) moveLinks(from, to *Container) (err error) {
	for _, c := range x.linkers(from.id) {
		_, failed := c.change(true, func(r *Record) error {
			r.Links = slices.Clone(r.Links)
			for i := range r.Links {
				if r.Links[i].ID == from.id {
					r.Links[i].ID = to.id
				}
			}
			return nil
		})
		if failed != nil && !c.isGone() {
			err = errors.Join(err, fmt.Errorf("link container %s to the one in the place of %s: %w", c.record().Name, from.record().Name, failed))
		}
	}
	return err
}

// relink tells those that are linked to a container which address it has now.
func relink(s *Service, id string) {
	for _, c := range s.index.linkers(id) {
		if c.record().Status.Alive() {
			s.log((life{s, c}).rewriteFiles())
		}
	}
}
