package docker

import (
	"net/http"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/metrics"
)

// metricsRoutes show what Prometheus asks for.
type metricsRoutes struct{ c *metrics.Collector }

func (m *metricsRoutes) add(add adder) { add("GET /metrics", m.page) }

func (m *metricsRoutes) page(w http.ResponseWriter, r *http.Request) error {
	if m.c == nil {
		return classed(errdefs.ErrNotImplemented, "this engine counts nothing")
	}
	page, err := m.c.Page(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	_, err = w.Write(page)
	return err
}
