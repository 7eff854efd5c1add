package docker

import (
	"github.com/moby/moby/api/types/container"
)

// olderCreate makes of a create request what it meant to clients of its version.
func olderCreate(v apiVersion, r *container.CreateRequest) error {
	h := r.HostConfig
	if v < 1040 && h.IpcMode == "" {
		h.IpcMode = container.IPCModeShareable
	}
	if v < 1042 {
		h.ConsoleSize = [2]uint{} // clients sent the size of their own terminal and set it again after the start
	}
	if v < 1043 {
		h.Annotations = nil
	}
	if n := r.NetworkingConfig; v < 1044 && n != nil && len(n.EndpointsConfig) > 1 {
		return invalid("Container cannot be created with multiple network endpoints")
	}
	if v < 1044 && r.Config.Healthcheck != nil {
		r.Config.Healthcheck.StartInterval = 0
	}
	for i := range h.Mounts {
		b := h.Mounts[i].BindOptions
		if v >= 1044 || b == nil {
			continue
		}
		b.ReadOnlyForceRecursive = false
		if v < 1040 {
			b.NonRecursive = false
		}
		if v < 1042 {
			b.CreateMountpoint = false
		}
	}
	return nil
}

// olderStreams are the streams of an attach over a web socket: until 1.42 always all of them.
func olderStreams(v apiVersion, q query) {
	if v < 1042 {
		for _, name := range []string{"stdin", "stdout", "stderr"} {
			q.Set(name, "1")
		}
	}
}

// olderUpdate leaves alone what the engine did not hear of clients before a version: limits of processes, and rates of devices.
func olderUpdate(v apiVersion, u *container.UpdateConfig) {
	if v < 1040 {
		u.PidsLimit = nil
	}
	if v < 1055 {
		u.BlkioWeightDevice, u.BlkioDeviceReadBps, u.BlkioDeviceWriteBps, u.BlkioDeviceReadIOps, u.BlkioDeviceWriteIOps = nil, nil, nil, nil, nil
	}
}
