package docker

import (
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/network"

	containers "wherry.dev/wherry/internal/container"
	networks "wherry.dev/wherry/internal/network"
)

// portRoutes are about published ports: Docker's API changes none of a container that is there.
type portRoutes struct {
	networks   *networks.Service
	containers *containers.Service
}

func (p *portRoutes) add(add adder) {
	add("POST /wherry/containers/{id}/ports", p.change)
	add("GET /wherry/ports", p.list)
	add("GET /wherry/ports/{port}/{proto}", p.explain)
}

// change answers POST /wherry/containers/{id}/ports: {"Publish": …, "Unpublish": …}, both in the shape of HostConfig.PortBindings; it tells
// all of the container's ports in that of NetworkSettings.Ports.
func (p *portRoutes) change(w http.ResponseWriter, r *http.Request) error {
	var body containers.PortChange
	if err := decodeBody(w, r, &body); err != nil {
		return err
	}
	ports, err := containers.UpdatePorts(r.Context(), p.containers, r.PathValue("id"), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct{ Ports network.PortMap }{ports})
}

// list answers GET /wherry/ports: all published ports, a row of ports that is one rule being one.
func (p *portRoutes) list(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, networks.ListPorts(p.networks))
}

// explain answers GET /wherry/ports/{port}/{proto}: who listens there, through which rule, and who reaches it.
func (p *portRoutes) explain(w http.ResponseWriter, r *http.Request) error {
	number, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	proto := network.IPProtocol(r.PathValue("proto"))
	if err != nil || number == 0 || proto != network.TCP && proto != network.UDP && proto != network.SCTP {
		return invalid("port %s/%s: a port is a number from 1 to 65535, and tcp, udp or sctp", r.PathValue("port"), proto)
	}
	out, err := networks.ExplainPort(p.networks, uint16(number), proto)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}
