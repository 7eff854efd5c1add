package docker

import (
	"github.com/moby/moby/api/types/container"
)

// olderCreate makes of a create request what it meant to clients of its version.
func olderCreate(v apiVersion, r *container.CreateRequest) {
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
}

// olderStreams are the streams of an attach over a web socket: until 1.42 always all of them.
func olderStreams(v apiVersion, q query) {
	if v < 1042 {
		for _, name := range []string{"stdin", "stdout", "stderr"} {
			q.Set(name, "1")
		}
	}
}

// olderUpdate leaves rates of devices alone for clients before 1.55, which send lists that were never heard.
func olderUpdate(v apiVersion, u *container.UpdateConfig) {
	if v < 1055 {
		u.BlkioWeightDevice, u.BlkioDeviceReadBps, u.BlkioDeviceWriteBps, u.BlkioDeviceReadIOps, u.BlkioDeviceWriteIOps = nil, nil, nil, nil, nil
	}
}
