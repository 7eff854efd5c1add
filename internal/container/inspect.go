package container

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"wherry.dev/wherry/internal/sandbox"
)

// driver is what keeps file systems, by the name that Docker has for the same thing.
const driver = "overlayfs"

// Inspection is what Docker's inspect shows and what Wherry knows besides.
type Inspection struct {
	container.InspectResponse
	Wherry   Extras
	AskedMAC network.HardwareAddr `json:"-"` // of the network of its mode
}

// Extras are what Docker has no field for.
type Extras struct {
	// OOMVictim is the process that the kernel killed when the container was over its memory limit; "" where none was, or its name is
	// not known.
	OOMVictim string `json:",omitempty"`
	// Restarted says which writable layer the last start had when it was not the first: "kept" or "fresh" (--restart-fresh).
	Restarted string `json:",omitempty"`
	// OnUnhealthy is what is done when its health check fails: "restart", "stop" or "kill"; "": nothing.
	OnUnhealthy string `json:",omitempty"`
	// UserNamespace is the range of host ids that stand behind the container's own, "first+count"; "" is the host's user namespace.
	UserNamespace string `json:",omitempty"`
	Cgroup        string `json:",omitempty"` // path of the control group
	Image         Origin
	Secrets       []SecretUse `json:",omitempty"` // secrets and configs, without their values
}

// Inspect tells all about a container but the size of its files, which package files measures.
func (s *Service) Inspect(ctx context.Context, id string) (Inspection, error) {
	c, err := s.index.find(id)
	if err != nil {
		return Inspection{}, err
	}
	r := c.record()
	command := append(r.command(), "")
	owner, err := s.index.networkOwner(c)
	if err != nil {
		owner = c // nothing can be shown of one that has gone
	}
	files := sandbox.FilesIn(s.o.etcDir(owner.id))
	upper, work := layerDirs(c.dir)
	manifest := r.Image.Manifest
	out := Inspection{InspectResponse: container.InspectResponse{
		ID: r.ID, Created: r.Created.UTC().Format(time.RFC3339Nano), Path: command[0], Args: command[1 : len(command)-1],
		State: c.state(r), Image: r.Image.ID.String(), Name: "/" + r.Name, RestartCount: r.RestartCount, Driver: driver, Platform: "linux",
		ResolvConfPath: files.ResolvConf, HostnamePath: files.Hostname, HostsPath: files.Hosts, LogPath: r.Log.Dir,
		ExecIDs: s.execs.of(r.ID), HostConfig: s.index.shownHost(r), Config: r.Config, Mounts: r.shown(), ImageManifestDescriptor: &manifest,
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: driver}}},
		GraphDriver: &storage.DriverData{Name: driver, Data: map[string]string{
			"LowerDir": strings.Join(r.Image.Lower, ":"), "UpperDir": upper, "WorkDir": work,
		}},
		NetworkSettings: &container.NetworkSettings{},
	}}
	if e := r.Networks[r.mainNetwork()]; e != nil {
		out.AskedMAC = e.MacAddress
	}
	n := out.NetworkSettings
	n.Networks, n.Ports = s.connections(r)
	if r.Status.Alive() {
		n.SandboxID, n.SandboxKey = r.ID, fmt.Sprintf("/proc/%d/ns/net", r.Pid)
	}
	out.Wherry = Extras{OOMVictim: r.OOMVictim, Restarted: r.Restarted, Cgroup: s.o.cgroupPath(r), Image: r.origin(), Secrets: r.Secrets}
	if mode := r.onUnhealthy(); mode != unhealthyNone {
		out.Wherry.OnUnhealthy = mode
	}
	if r.IDMap.Size > 0 {
		out.Wherry.UserNamespace = fmt.Sprintf("%d+%d", r.IDMap.Base, r.IDMap.Size)
	}
	return out, nil
}

// state is the state as inspect shows it. A container that waits for its next start counts as running, as in Docker.
func (c *Container) state(r *Record) *container.State {
	return &container.State{
		Status: r.Status.API(), Running: r.Status.Alive() || r.Status == Restarting, Paused: r.Status == Paused,
		Restarting: r.Status == Restarting, Dead: r.Status == Dead, OOMKilled: r.OOMKilled, Pid: r.Pid, ExitCode: r.ExitCode, Error: r.Error,
		StartedAt: r.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: r.FinishedAt.UTC().Format(time.RFC3339Nano),
		Health: c.healthState(),
	}
}
