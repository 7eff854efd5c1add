package docker

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
	networks "wherry.dev/wherry/internal/network"
)

// networkRoutes make, show and remove networks and join containers to them.
type networkRoutes struct {
	s          *networks.Service
	containers *containers.Service
}

func (n *networkRoutes) add(add adder) {
	add("GET /networks", n.list)
	add("GET /networks/{$}", n.list)
	add("GET /networks/{id}", n.inspect)
	add("POST /networks/create", n.create)
	add("POST /networks/prune", n.prune)
	add("DELETE /networks/{id}", n.remove)
	add("POST /networks/{id}/connect", n.connect)
	add("POST /networks/{id}/disconnect", n.disconnect)
}

func (n *networkRoutes) list(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	list, err := n.s.List(r.Context(), filters)
	if err != nil {
		return err
	}
	n.withoutOthers(r.Context(), list...)
	n.older(clientVersion(r.Context()), list...)
	return writeList(w, shapeNetworks(clientVersion(r.Context()), list))
}

func (n *networkRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	if scope := queryOf(r).Get("scope"); scope != "" && scope != "local" {
		return classed(errdefs.ErrNotFound, "network %s not found: all networks of this engine are local, none is of scope %s", r.PathValue("id"), scope)
	}
	out, err := n.s.Inspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if out.Containers == nil {
		out.Containers = map[string]network.EndpointResource{}
	}
	n.withoutOthers(r.Context(), out)
	n.older(clientVersion(r.Context()), out)
	if clientVersion(r.Context()) < 1052 {
		out.Status = nil
	}
	return writeJSON(w, http.StatusOK, out)
}

// older leaves out the gateways that nobody asked for, which 1.51 and before did not tell of in a subnet that somebody asked for: Terraform, which
// compares them with its plan, would remove the network and make it anew each time.
func (n *networkRoutes) older(v apiVersion, list ...network.Inspect) {
	if v >= 1052 {
		return
	}
	for _, one := range list {
		unasked := networks.UnaskedGateways(n.s, one.ID)
		for i := range one.IPAM.Config {
			if c := &one.IPAM.Config[i]; slices.Contains(unasked, c.Gateway) {
				c.Gateway = netip.Addr{}
			}
		}
	}
}

func (n *networkRoutes) create(w http.ResponseWriter, r *http.Request) error {
	var req network.CreateRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	if req.Scope == "swarm" || req.Ingress {
		return invalid("network %s: this engine has no swarm mode", req.Name)
	}
	if clientVersion(r.Context()) < 1048 {
		req.EnableIPv4 = nil // it was always on
	}
	note(r.Context(), "driver", req.Driver)
	if err := limitsOf(r.Context(), n.containers).network(&req); err != nil {
		return err
	}
	out, err := n.s.Create(r.Context(), req)
	if err != nil {
		return err
	}
	noteObject(r.Context(), "network", out.ID, req.Name)
	return writeJSON(w, http.StatusCreated, out)
}

func (n *networkRoutes) prune(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	report, err := n.s.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	report.NetworksDeleted = orEmpty(report.NetworksDeleted)
	return writeJSON(w, http.StatusOK, report)
}

func (n *networkRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	if err := n.s.Remove(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (n *networkRoutes) connect(w http.ResponseWriter, r *http.Request) error {
	var req network.ConnectRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	note(r.Context(), "container", req.Container)
	if err := n.ownEnd(r.Context(), &req.Container, req.EndpointConfig); err != nil {
		return err
	}
	if req.EndpointConfig == nil {
		req.EndpointConfig = &network.EndpointSettings{}
	}
	olderEndpoint(clientVersion(r.Context()), req.EndpointConfig)
	if err := n.containers.ConnectNetwork(r.Context(), req.Container, r.PathValue("id"), req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (n *networkRoutes) disconnect(w http.ResponseWriter, r *http.Request) error {
	var req network.DisconnectRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	note(r.Context(), "container", req.Container)
	if err := n.ownEnd(r.Context(), &req.Container, nil); err != nil {
		return err
	}
	if err := n.containers.DisconnectNetwork(r.Context(), req.Container, r.PathValue("id"), req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// ownEnd checks whom a caller with limits connects or disconnects.
func (n *networkRoutes) ownEnd(ctx context.Context, ref *string, e *network.EndpointSettings) error {
	l := limitsOf(ctx, n.containers)
	if l == nil {
		return nil
	}
	c, err := l.own(*ref)
	if err != nil {
		return err
	}
	*ref = c.ID
	return l.endpoint("", e)
}

// withoutOthers takes the containers of others out of what is told about a network.
func (n *networkRoutes) withoutOthers(ctx context.Context, list ...network.Inspect) {
	v := visitOf(ctx)
	if v == nil || v.may != access.Own {
		return
	}
	l := &limits{v, n.containers}
	for i := range list {
		for id := range list[i].Containers {
			if _, err := l.own(id); err != nil {
				delete(list[i].Containers, id)
			}
		}
	}
}
