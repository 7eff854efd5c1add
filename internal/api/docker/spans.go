package docker

import (
	"context"
	"net/http"

	"wherry.dev/wherry/internal/tracing"
)

// traced begins the span of a request, where spans are wanted; end ends it.
func (s *Server) traced(r *http.Request, v *visit, w *response) (*http.Request, func()) {
	if s.tracer == nil {
		return r, func() {}
	}
	ctx, end := s.tracer.Request(r)
	return r.WithContext(ctx), func() {
		a := tracing.Answer{Route: v.route, Caller: v.caller.ID(), Status: w.status, Failure: redacted(w.failure + w.late), Containers: v.starts}
		if a.Route == "" {
			a.Route = "other"
		}
		end(a)
	}
}

// mayStart has the steps of a container's start be children of the request's span.
func (v *visit) mayStart(ctx context.Context, id string) {
	if v.tracer == nil || id == "" {
		return
	}
	v.starts = append(v.starts, id)
	v.tracer.Starts(ctx, id)
}
