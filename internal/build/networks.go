package build

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	dockercontainer "github.com/moby/moby/api/types/container"
)

// onNetwork begins the parent of a step's control group where the step is to be on a network of the user's: BuildKit knows no such networks, and
// this is what it hands on as it was given. Behind it stand the network's id and the parent itself.
const onNetwork = "wherry-network:"

// network says which network the steps of a build are on; "": the one of builds.
func (b *Builder) network(ctx context.Context, name string, attrs map[string]string) error {
	switch {
	case name == "", name == "default", name == "bridge":
		return nil
	case name == "host", name == "none":
		attrs["force-network-mode"] = name
		return nil
	case strings.HasPrefix(name, "container:"):
		return fmt.Errorf("network mode %q is not for builds: there are default, none, host, and networks by their names: %w", name, errdefs.ErrInvalidArgument)
	}
	n, err := b.o.Networks.Inspect(ctx, name)
	if err != nil {
		return fmt.Errorf("%v: %w", err, errdefs.ErrInvalidArgument) // as for other words of the request
	}
	attrs["cgroup-parent"] = onNetwork + n.ID + ":" + attrs["cgroup-parent"]
	return nil
}

// placeOf is the network that a step is on, and the parent of its control group.
func placeOf(m *executor.Meta) (mode dockercontainer.NetworkMode, parent string) {
	rest, ok := strings.CutPrefix(m.CgroupParent, onNetwork)
	if !ok {
		return networkMode(m.NetMode), m.CgroupParent
	}
	id, parent, _ := strings.Cut(rest, ":")
	if m.NetMode != pb.NetMode_UNSET { // RUN --network, of this step alone
		return networkMode(m.NetMode), parent
	}
	return dockercontainer.NetworkMode(id), parent
}
