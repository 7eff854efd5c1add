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
	id, err := b.usersNetwork(ctx, name)
	if err != nil {
		return err
	}
	attrs["cgroup-parent"] = onNetwork + id + ":" + attrs["cgroup-parent"]
	return nil
}

// usersNetwork is the id of a network that a step may be on as its user says: what is not one in the words of settings and entitlements.
func (b *Builder) usersNetwork(ctx context.Context, name string) (id string, err error) {
	n, err := b.o.Networks.Inspect(ctx, name)
	if err != nil {
		return "", fmt.Errorf("%v: %w", err, errdefs.ErrInvalidArgument) // as for other words of the request
	}
	if n.Driver == "host" || n.Driver == "null" {
		return "", fmt.Errorf("network %s is that of the mode %s: name the mode: %w", name, n.Name, errdefs.ErrInvalidArgument)
	}
	return n.ID, nil
}

// placeOf is the network that a step is on, and the parent of its control group. The words are its maker's, who may be anybody: they lead to no mode.
func (b *Builder) placeOf(ctx context.Context, m *executor.Meta) (mode dockercontainer.NetworkMode, parent string, err error) {
	rest, ok := strings.CutPrefix(m.CgroupParent, onNetwork)
	if !ok {
		return networkMode(m.NetMode), m.CgroupParent, nil
	}
	id, parent, _ := strings.Cut(rest, ":")
	if m.NetMode != pb.NetMode_UNSET { // RUN --network, of this step alone
		return networkMode(m.NetMode), parent, nil
	}
	id, err = b.usersNetwork(ctx, id)
	return dockercontainer.NetworkMode(id), parent, err
}
