package docker

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// checkCreate refuses words in a create request that are in no enumeration; what they mean together is the service's to judge.
func checkCreate(r *container.CreateRequest) error {
	if r.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	if r.HostConfig == nil {
		r.HostConfig = &container.HostConfig{}
	}
	h := r.HostConfig
	if h.NetworkMode == "" {
		h.NetworkMode = "default"
	}
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"IPC mode", string(h.IpcMode), h.IpcMode.Valid()},
		{"PID mode", string(h.PidMode), h.PidMode.Valid()},
		{"UTS mode", string(h.UTSMode), h.UTSMode.Valid()},
		{"userns mode", string(h.UsernsMode), h.UsernsMode.Valid()},
		{"cgroup namespace mode", string(h.CgroupnsMode), h.CgroupnsMode.Valid()},
		{"cgroup", string(h.Cgroup), h.Cgroup.Valid()},
		{"isolation", string(h.Isolation), h.Isolation.IsDefault()},
	} {
		if !c.ok {
			return invalid("invalid %s: %s", c.name, c.value) // dockerd's words, which clients compare
		}
	}
	if _, ok := h.Annotations[""]; ok {
		return invalid("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return invalid("%v", err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	for _, d := range h.Devices {
		if strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return invalid("invalid permissions %q of device %s: they are of the letters r, w and m", d.CgroupPermissions, d.PathOnHost)
		}
	}
	if err := checkMounts(h.Mounts); err != nil {
		return err
	}
	return checkHealth(r.Config.Healthcheck)
}

func checkMounts(mounts []mount.Mount) error {
	known := []mount.Type{mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage}
	for i, m := range mounts {
		if !slices.Contains(known, m.Type) {
			return invalid("invalid mount config for type %q: mount type unknown: it can be bind, volume, tmpfs or image", m.Type)
		}
		switch m.Consistency {
		case "", mount.ConsistencyFull, mount.ConsistencyCached, mount.ConsistencyDelegated, mount.ConsistencyDefault:
		default:
			return invalid("invalid mount config for type %q: consistency %q is unknown", m.Type, m.Consistency)
		}
		if m.BindOptions != nil && m.BindOptions.Propagation != "" && !slices.Contains(mount.Propagations, m.BindOptions.Propagation) {
			return invalid("invalid mount config for type %q: propagation %q is unknown", m.Type, m.BindOptions.Propagation)
		}
		if m.Target == "" {
			return invalid("invalid mount config for type %q: field Target must not be empty (mount %d)", m.Type, i)
		}
	}
	return nil
}

func checkHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "", "NONE", "CMD", "CMD-SHELL":
		default:
			return invalid("Unknown healthcheck type '%s' in config (expected 'CMD')", strings.TrimSpace(h.Test[0]))
		}
	}
	for name, d := range map[string]int64{"Interval": int64(h.Interval), "Timeout": int64(h.Timeout), "StartPeriod": int64(h.StartPeriod), "StartInterval": int64(h.StartInterval)} {
		if d != 0 && d < int64(container.MinimumDuration) {
			return invalid("%s in Healthcheck cannot be less than %s", name, container.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}
