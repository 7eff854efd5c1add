package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
)

// imageFrontend answers a Dockerfile's `# syntax=` line, and whatever else asks for a frontend that is an image. The images of docker's own
// Dockerfile frontend are this one, which is linked in, so they need no network; others are programs that write the build: each runs as a step
// does, in a sandbox, from an image that was pulled as all are.
type imageFrontend struct {
	own, others frontend.Frontend
	allowed     bool // others are
}

// Solve is frontend.Frontend's.
func (f imageFrontend) Solve(ctx context.Context, bridge frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string,
	inputs map[string]*pb.Definition, sid string, sessions *session.Manager,
) (*frontend.Result, error) {
	source := opt["source"]
	switch {
	case isOwnFrontend(source):
		return f.own.Solve(ctx, bridge, exec, opt, inputs, sid, sessions)
	case !f.allowed:
		return nil, fmt.Errorf("the frontend %q is a program of an image's, and the engine's settings (builds.frontends) allow only docker/dockerfile: remove the `# syntax=` line, write docker/dockerfile:1, or set builds.frontends = \"all\", which has such programs run as sandboxed steps: %w",
			source, errdefs.ErrPermissionDenied)
	}
	said := &lastWords{}
	res, err := f.others.Solve(ctx, bridge, frontendExecutor{exec, said}, opt, inputs, sid, sessions)
	return res, said.explain(source, err)
}

// isOwnFrontend says whether an image is of docker's Dockerfile frontend, by any tag or digest.
func isOwnFrontend(source string) bool {
	name, err := reference.ParseNormalizedNamed(source)
	return err == nil && slices.Contains([]string{"docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"}, name.Name())
}
