package container

import (
	"maps"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// successor asks for a container like another one, of another image. What the old one had from its image gives way to the new image's.
func successor(r *Record, image string) CreateRequest {
	config := own(r.Config, &r.Image.Config)
	config.Image = image
	if config.Hostname == r.short() || r.HostConfig.NetworkMode.IsHost() || r.HostConfig.UTSMode.IsHost() || r.HostConfig.NetworkMode.IsContainer() {
		config.Hostname = ""
		if r.HostConfig.NetworkMode.IsContainer() {
			config.Domainname = ""
		}
	}
	host := *r.HostConfig
	host.Links = r.askedLinks()
	q := CreateRequest{Config: config, HostConfig: &host, inherit: r.Mounts}
	q.apart = r.bridged() && len(r.Networks) == 0
	if !host.NetworkMode.IsContainer() {
		q.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
		for name, e := range r.Networks {
			q.NetworkingConfig.EndpointsConfig[name] = e.Copy()
		}
	}
	return q
}

// own is merge backwards: what of a container's configuration its image has not said.
func own(c *container.Config, img *dockerspec.DockerOCIImage) *container.Config {
	out, i := *c, img.Config
	if slices.Equal(c.Entrypoint, i.Entrypoint) {
		out.Entrypoint = nil
		if slices.Equal(c.Cmd, i.Cmd) {
			out.Cmd = nil
		}
	} else if len(c.Entrypoint) == 0 {
		out.Entrypoint = []string{""} // the image's was taken away
	}
	for _, row := range []struct {
		have *string
		img  string
	}{{&out.User, i.User}, {&out.WorkingDir, i.WorkingDir}, {&out.StopSignal, i.StopSignal}} {
		if *row.have == row.img {
			*row.have = ""
		}
	}
	if slices.Equal(c.Shell, i.Shell) {
		out.Shell = nil
	}
	out.OnBuild = nil
	out.Env = slices.DeleteFunc(slices.Clone(c.Env), func(kv string) bool { return slices.Contains(i.Env, kv) })
	out.Labels = without(c.Labels, i.Labels)
	out.Volumes = without(c.Volumes, i.Volumes)
	out.ExposedPorts = without(c.ExposedPorts, exposed(i.ExposedPorts, nil))
	out.Healthcheck = ownHealth(c.Healthcheck, i.Healthcheck)
	return &out
}

// without leaves out the pairs that are in another map.
func without[M ~map[K]V, K, V comparable](from, these M) M {
	out := maps.Clone(from)
	maps.DeleteFunc(out, func(k K, v V) bool {
		other, ok := these[k]
		return ok && other == v
	})
	return out
}

func ownHealth(have, image *container.HealthConfig) *container.HealthConfig {
	if have == nil || image == nil {
		return have
	}
	h := *have
	if slices.Equal(h.Test, image.Test) {
		h.Test = nil
	}
	forget(&h.Interval, image.Interval)
	forget(&h.Timeout, image.Timeout)
	forget(&h.StartPeriod, image.StartPeriod)
	forget(&h.StartInterval, image.StartInterval)
	forget(&h.Retries, image.Retries)
	if h.Test == nil && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.StartInterval == 0 && h.Retries == 0 {
		return nil
	}
	return &h
}

func forget[T comparable](have *T, image T) {
	var zero T
	if *have == image {
		*have = zero
	}
}
