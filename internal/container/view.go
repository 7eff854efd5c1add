package container

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/event"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/spec"
)

// View is a container as it is at this moment. A container that ends meanwhile is seen as not running.
func (s *Service) View(ctx context.Context, id string) (View, error) {
	c, err := s.index.find(id)
	if err != nil {
		return View{}, err
	}
	t, r, err := c.running()
	if r.Status == Removing { // some of its files may have gone
		return View{}, busy(r, "being removed")
	}
	img := r.Image
	v := View{ID: r.ID, Name: r.Name, Rootfs: s.o.rootfs(r), Config: r.Config, HostConfig: r.HostConfig, Mounts: r.points(), Binds: r.Mounts,
		Secrets: len(r.Secrets) > 0, Layer: &c.disk.layer,
		Image: &img, Created: r.Created, Owner: r.Owner}
	v.Networks, _ = s.connections(r)
	if err != nil {
		v.Kept = keptNow(c, r)
		return v, nil
	}
	if v.Init, err = t.Pidfd(); errdefs.IsFailedPrecondition(err) {
		return v, nil
	} else if err != nil { // it runs, whatever this process lacks: who took it for stopped would mount its files a second time
		return View{}, fmt.Errorf("look at container %s, which runs: %w", r.Name, err)
	}
	if v.Cgroup, err = cgroup.Open(s.o.cgroupPath(r)); err != nil {
		v.Init.Close()
		v.Init = nil
		if now := c.record(); !now.Status.Alive() {
			return v, nil
		}
		return View{}, fmt.Errorf("open the control group of container %s: %w", r.Name, err)
	}
	v.Running, v.Paused, v.Pid = true, r.Status == Paused, r.Pid
	return v, nil
}

// Publish tells of something that was done with the container.
func (v *View) Publish(bus *event.Bus, action events.Action, more map[string]string) {
	attributes := map[string]string{}
	if v.Config != nil {
		maps.Copy(attributes, v.Config.Labels)
		attributes["image"] = v.Config.Image
	}
	attributes["name"] = v.Name
	maps.Copy(attributes, more)
	attributes[access.OwnerAttribute] = v.Owner
	bus.Publish(events.ContainerEventType, action, v.ID, attributes)
}

// points are all mounts.
func (r *Record) points() []container.MountPoint {
	out := make([]container.MountPoint, 0, len(r.Mounts))
	for _, m := range r.Mounts {
		out = append(out, m.Point())
	}
	return out
}

// shown are the mounts as inspect has them: those of --tmpfs stand in the host configuration alone, as in Docker.
func (r *Record) shown() []container.MountPoint {
	flags := make(map[string]bool, len(r.HostConfig.Tmpfs))
	for asked := range r.HostConfig.Tmpfs {
		if clean, err := spec.Clean(asked); err == nil {
			flags[clean] = true
		}
	}
	return slices.DeleteFunc(r.points(), func(p container.MountPoint) bool { return p.Type == mount.TypeTmpfs && flags[p.Destination] })
}

// connections are a container's networks and published ports: those that it has while it runs, those that it asks for otherwise.
func (s *Service) connections(r *Record) (map[string]*network.EndpointSettings, network.PortMap) {
	if r.Status.Alive() && r.bridged() {
		if endpoints, published, ok := s.o.Networks.Endpoints(r.ID); ok {
			ports := network.PortMap{}
			for p := range r.Config.ExposedPorts {
				ports[p] = nil
			}
			maps.Copy(ports, published)
			return endpoints, ports
		}
	}
	out := make(map[string]*network.EndpointSettings, len(r.Networks))
	for name, e := range r.Networks {
		settings := e.Copy()
		if found, err := networks.NameOf(s.o.Networks, name); err == nil { // inspect would list all that is on it
			settings.NetworkID = found.ID
		}
		out[name] = settings
	}
	return out, network.PortMap{}
}
