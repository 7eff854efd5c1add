package docker

import (
	"net/http"

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
