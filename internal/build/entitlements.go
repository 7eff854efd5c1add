package build

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"

	"wherry.dev/wherry/internal/settings"
)

// explainRights says of an error about a right that steps do not have by themselves who has to give it, and who has not. BuildKit asks both
// the client, for each build, and what the engine's settings say.
func explainRights(err error, s settings.Builds) error {
	if err == nil || strings.Contains(err.Error(), rightsHint) {
		return err
	}
	if strings.Contains(err.Error(), "requested by the build but not allowed") {
		return fmt.Errorf("%w: "+rightsHint+" (--allow device=NAME, or --allow device for all) and the engine's settings (builds.entitlements) have to", err)
	}
	for _, right := range settings.Entitlements() {
		if !strings.Contains(err.Error(), right+" is not allowed") {
			continue
		}
		missing := "the settings do not"
		switch client := strings.Contains(err.Error(), "granting entitlement"); {
		case slices.Contains(s.Entitlements, right):
			missing = "the client does not"
		case !client:
			missing = "neither does"
		}
		return fmt.Errorf("%w: "+rightsHint+" (--allow %s) and the engine's settings (builds.entitlements) have to; %s", err, right, missing)
	}
	return err
}

const rightsHint = "both the client"

// explained is a frontend whose errors say who has to allow what.
type explained struct {
	frontend.Frontend
	s settings.Builds
}

// Solve is frontend.Frontend's.
func (f explained) Solve(ctx context.Context, bridge frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string,
	inputs map[string]*pb.Definition, sid string, sessions *session.Manager,
) (*frontend.Result, error) {
	res, err := f.Frontend.Solve(ctx, bridge, exec, opt, inputs, sid, sessions)
	return res, explainRights(err, f.s)
}
