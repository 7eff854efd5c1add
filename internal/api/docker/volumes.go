package docker

import (
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	volumes "wherry.dev/wherry/internal/volume"
)

// volumeRoutes make, show and remove volumes.
type volumeRoutes struct{ s *volumes.Service }

func (v *volumeRoutes) add(add adder) {
	add("GET /volumes", v.list)
	add("GET /volumes/{name}", v.inspect)
	add("POST /volumes/create", v.create)
	add("POST /volumes/prune", v.prune)
	add("DELETE /volumes/{name}", v.remove)
	add("PUT /volumes/{name}", func(http.ResponseWriter, *http.Request) error {
		return classed(errdefs.ErrUnavailable, "only cluster volumes can be updated, and this node is not a swarm manager")
	})
}

func (v *volumeRoutes) list(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	list, err := v.s.List(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume.ListResponse{Volumes: orEmpty(list), Warnings: []string{}})
}

func (v *volumeRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	out, err := v.s.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (v *volumeRoutes) create(w http.ResponseWriter, r *http.Request) error {
	var req volume.CreateRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return classed(errdefs.ErrUnavailable, "volume %s: this node is not a swarm manager, so it has no cluster volumes", req.Name)
	}
	note(r.Context(), "driver", req.Driver)
	if err := limitsOf(r.Context(), nil).volume(req.Driver, req.DriverOpts); err != nil {
		return err
	}
	note(r.Context(), "device", req.DriverOpts["device"])
	out, err := v.s.Create(r.Context(), req)
	if err != nil {
		return err
	}
	noteObject(r.Context(), "volume", "", out.Name)
	return writeJSON(w, http.StatusCreated, out)
}

// prune removes anonymous volumes only, since 1.42, unless the filter all says otherwise; before, all that are unused.
func (v *volumeRoutes) prune(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	if clientVersion(r.Context()) < 1042 {
		filters["all"] = map[string]bool{"true": true}
	}
	report, err := v.s.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	report.VolumesDeleted = orEmpty(report.VolumesDeleted)
	return writeJSON(w, http.StatusOK, report)
}

func (v *volumeRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	if err := v.s.Remove(r.Context(), r.PathValue("name"), queryOf(r).yes("force")); err != nil {
		return err
	}
	return noContent(w)
}
