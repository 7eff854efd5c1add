package container

import (
	"maps"
	"path"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/spec"
)

const defaultShm = 64 << 20

// merge fills a configuration with what the image says, by Docker's rules: the user's entrypoint drops the image's command.
func merge(user *container.Config, img *dockerspec.DockerOCIImage) *container.Config {
	c, i := *user, img.Config
	c.Cmd, c.Entrypoint, c.Env = slices.Clone(c.Cmd), slices.Clone(c.Entrypoint), slices.Clone(c.Env)
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" { // --entrypoint ""
		c.Entrypoint = nil
	} else if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(i.Cmd)
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(i.Entrypoint)
		}
	}
	if c.User == "" {
		c.User = i.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = i.WorkingDir
	}
	if path.IsAbs(c.WorkingDir) {
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	if c.StopSignal == "" {
		c.StopSignal = i.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = i.Shell
	}
	c.OnBuild = slices.Clone(i.OnBuild)
	c.Env = imageEnv(i.Env, c.Env)
	c.Labels = union(i.Labels, c.Labels)
	if c.Volumes = union(i.Volumes, c.Volumes); len(c.Volumes) == 0 {
		c.Volumes = i.Volumes // docker's client sends {}, and null is what it gets to see
	}
	c.ExposedPorts = exposed(i.ExposedPorts, c.ExposedPorts)
	c.Healthcheck = mergeHealth(i.Healthcheck, c.Healthcheck)
	return &c
}

// imageEnv lays the user's variables over the image's. The user's come first, as Docker shows them; one without "=" unsets it.
func imageEnv(image, user []string) []string {
	out := slices.Clone(user)
	taken := make(map[string]bool, len(user))
	for _, kv := range user {
		key, _, _ := strings.Cut(kv, "=")
		taken[key] = true
	}
	for _, kv := range image {
		if key, _, _ := strings.Cut(kv, "="); !taken[key] {
			out = append(out, kv)
		}
	}
	return out
}

func union[M ~map[K]V, K comparable, V any](under, over M) M {
	if len(under)+len(over) == 0 {
		return over
	}
	out := make(M, len(under)+len(over))
	maps.Copy(out, under)
	maps.Copy(out, over)
	return out
}

// maxExposed bounds the ports that an image exposes, counted as often as they stand there: all of three protocols are fewer.
const maxExposed = 256 << 10

func exposed(image map[string]struct{}, user network.PortSet) network.PortSet {
	out := network.PortSet{}
	left := maxExposed
	for text := range image {
		r, err := network.ParsePortRange(text)
		if err != nil || !slices.Contains([]network.IPProtocol{network.TCP, network.UDP, network.SCTP}, r.Proto()) {
			continue // an image's nonsense does not keep it from running
		}
		if left -= int(r.End()-r.Start()) + 1; left < 0 {
			break
		}
		for p := range r.All() {
			out[p] = struct{}{}
		}
	}
	maps.Copy(out, user)
	if len(out) == 0 {
		return user
	}
	return out
}

func mergeHealth(image, user *container.HealthConfig) *container.HealthConfig {
	if user == nil {
		return image
	}
	if image == nil || len(user.Test) > 0 && user.Test[0] == "NONE" {
		return user
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	if h.Interval == 0 {
		h.Interval = image.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = image.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = image.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = image.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}

// fillIn puts the engine's settings where a configuration says nothing. What a container is made with stays, whatever the settings say later.
func fillIn(h *container.HostConfig, set *settings.Containers) {
	if h.ShmSize == 0 {
		h.ShmSize = set.Shm()
	}
	if h.IpcMode == "" {
		h.IpcMode = container.IpcMode(set.IpcMode)
	}
	if h.CgroupnsMode == "" && set.CgroupnsMode == "host" { // withDefaults has more to say about private ones
		h.CgroupnsMode = container.CgroupnsModeHost
	}
	if h.Init == nil && set.Init {
		on := true
		h.Init = &on
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = set.LogDriver
		options := set.LogOptions()
		maps.Copy(options, h.LogConfig.Config)
		h.LogConfig.Config = options
	}
	said := func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") }
	if set.NoNewPrivs && !slices.ContainsFunc(h.SecurityOpt, said) {
		h.SecurityOpt = append(slices.Clone(h.SecurityOpt), "no-new-privileges")
	}
	h.Ulimits = slices.Clone(h.Ulimits)
	for _, u := range set.Limits() {
		if !slices.ContainsFunc(h.Ulimits, func(own *container.Ulimit) bool { return own != nil && own.Name == u.Name }) {
			h.Ulimits = append(h.Ulimits, u)
		}
	}
}

// withDefaults fills in what Docker's inspect shows where nothing was asked for.
func withDefaults(h *container.HostConfig) *container.HostConfig {
	if h.ShmSize == 0 {
		h.ShmSize = defaultShm
	}
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = "bridge"
	}
	if h.IpcMode == "" {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsModePrivate
		if h.Privileged {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.Runtime == "" {
		h.Runtime = "oar"
	}
	if h.PidsLimit != nil && *h.PidsLimit == 0 { // the docker command sends it when nothing is said
		h.PidsLimit = nil
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 { // that too
		h.MemorySwappiness = nil
	}
	if h.PortBindings == nil {
		h.PortBindings = network.PortMap{}
	}
	h.PortBindings = maps.Clone(h.PortBindings)
	for port, list := range h.PortBindings {
		if len(list) == 0 { // as Docker: a port that is published nowhere in particular is so on a free one
			h.PortBindings[port] = []network.PortBinding{{}}
		}
	}
	if (h.Privileged || h.PidMode.IsHost() || h.IpcMode.IsHost()) && !slices.ContainsFunc(h.SecurityOpt, labelled) {
		h.SecurityOpt = append(slices.Clone(h.SecurityOpt), "label=disable")
	}
	if !h.Privileged && !slices.Contains(h.SecurityOpt, "systempaths=unconfined") {
		if h.MaskedPaths == nil {
			h.MaskedPaths = spec.MaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = spec.ReadonlyPaths()
		}
	}
	return h
}

// labelled: Docker looks for the form with = only.
func labelled(o string) bool { return o == "label" || strings.HasPrefix(o, "label=") }
