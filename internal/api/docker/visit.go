package docker

import (
	"context"
	"net/http"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/audit"
	"wherry.dev/wherry/internal/tracing"
)

type visitKey struct{}

// visit is one request as far as it is known before its route: who makes it, what they may, and for which version of the API.
type visit struct {
	caller  *access.Caller
	may     access.Right
	why     string // they may so much
	version apiVersion

	route string // of the table, without its method; "" where none was found

	tracer *tracing.Tracer // nil: no spans are wanted
	starts []string        // ids of containers that the request may start

	// For the audit log.
	path   string // without the version
	object *audit.Object
	with   map[string]string
}

// visitOf is nil in a context that is no request's.
func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// visit finds out who asks, and refuses whom the rules give no right. The visit is there as soon as it is known who it is.
func (s *Server) visit(r *http.Request) (*visit, error) {
	caller, err := callerOf(r)
	if err != nil {
		return nil, err
	}
	v := &visit{caller: caller, path: r.URL.Path, tracer: s.tracer}
	v.may, v.why = s.access.Load().Of(caller)
	if v.may == access.None {
		return v, refused(v)
	}
	return v, nil
}

// refused is for who may not use the engine at all.
func refused(v *visit) error {
	if v.caller.Certificate != nil {
		return classed(errdefs.ErrPermissionDenied, "%s may not use this engine: %s", v.caller.ID(), v.why)
	}
	return classed(errdefs.ErrPermissionDenied, "user %d may not use this engine, since whoever commands it is root, and %s; try sudo, or have engine.group and rules of access set",
		v.caller.UID, v.why)
}
