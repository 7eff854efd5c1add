package container

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/spec"
)

// Rename gives a container another name.
func (s *Service) Rename(_ context.Context, id, name string) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	if name != "" && name[0] == '/' {
		name = name[1:]
	}
	if !validName(name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	c.op.Lock()
	defer c.op.Unlock()
	old := c.record().Name
	switch {
	case c.isGone():
		return noSuchContainer(id)
	case old == name:
		return invalid("Renaming a container with the same name as its current name")
	}
	if err := s.index.reserve(name, c.id); err != nil {
		return err
	}
	r, err := c.change(true, func(r *Record) error {
		r.Name = name
		return nil
	})
	if err != nil {
		s.index.release(name, c.id)
		return err
	}
	s.index.release(old, c.id)
	if r.bridged() && r.Status.Alive() {
		s.o.Networks.Rename(c.id, name)
	}
	s.publish(r, events.ActionRename, "oldName", "/"+old)
	return nil
}

// Update changes limits, of a running container at once, and the restart policy. What is not given stays as it is.
func (s *Service) Update(_ context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error) {
	c, err := s.index.find(id)
	if err != nil {
		return container.UpdateResponse{}, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	if c.isGone() || r.Status == Removing || r.Status == Dead {
		return container.UpdateResponse{}, fail(errdefs.ErrConflict, "container %s is marked for removal and cannot be updated", r.Name)
	}
	h := *r.HostConfig
	if err := mergeUpdate(&h, &u); err != nil {
		return container.UpdateResponse{}, err
	}
	v := validation{config: r.Config, host: &h, cpus: s.host.cpus, nodes: s.host.nodes, v2: s.host.v2}
	if err := v.resources(&h.Resources); err != nil {
		return container.UpdateResponse{}, err
	}
	if r.Status.Alive() {
		if err := s.o.limit(r, &h, &u); err != nil {
			return container.UpdateResponse{}, err
		}
	}
	r, err = c.change(true, func(r *Record) error {
		r.HostConfig = &h
		return nil
	})
	if err != nil {
		return container.UpdateResponse{}, err
	}
	s.publish(r, events.ActionUpdate)
	return container.UpdateResponse{Warnings: v.warnings}, nil
}

// limit gives a running container its new limits.
func (o *Options) limit(r *Record, h *container.HostConfig, u *container.UpdateConfig) error {
	changes := u.Resources
	if changes.Memory != 0 || changes.MemorySwap != 0 {
		changes.Memory, changes.MemorySwap = h.Memory, h.MemorySwap
	}
	old := &r.HostConfig.Resources
	for _, l := range []struct{ before, now *[]*blkiodev.ThrottleDevice }{
		{&old.BlkioDeviceReadBps, &changes.BlkioDeviceReadBps}, {&old.BlkioDeviceWriteBps, &changes.BlkioDeviceWriteBps},
		{&old.BlkioDeviceReadIOps, &changes.BlkioDeviceReadIOps}, {&old.BlkioDeviceWriteIOps, &changes.BlkioDeviceWriteIOps},
	} {
		*l.now = lifting(*l.before, *l.now)
	}
	block, err := blockIO(&changes)
	if err != nil {
		return err
	}
	g, err := cgroup.Open(o.cgroupPath(r))
	if err != nil {
		return err
	}
	if err := g.Update(spec.Changes(&changes, block)); err != nil && !isGone(g) {
		return fmt.Errorf("update container %s: %w", r.Name, err)
	}
	return nil
}

// lifting is a new list of devices' rates, with those that are in it no longer at 0, which means no limit; nil says nothing of any.
func lifting(before, now []*blkiodev.ThrottleDevice) []*blkiodev.ThrottleDevice {
	if now == nil {
		return nil
	}
	out := slices.Clone(now)
	for _, b := range before {
		if !slices.ContainsFunc(now, func(n *blkiodev.ThrottleDevice) bool { return n.Path == b.Path }) {
			out = append(out, &blkiodev.ThrottleDevice{Path: b.Path})
		}
	}
	return out
}

// mergeUpdate lays what is given over the present configuration.
func mergeUpdate(h *container.HostConfig, u *container.UpdateConfig) error {
	if p := u.RestartPolicy; p.Name != "" {
		if h.AutoRemove && !p.IsNone() {
			return fail(errdefs.ErrConflict, "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		if err := container.ValidateRestartPolicy(p); err != nil {
			return invalid("%v", err)
		}
		h.RestartPolicy = p
	}
	n := &u.Resources
	switch {
	case n.NanoCPUs > 0 && (h.CPUPeriod > 0 || h.CPUQuota > 0):
		return fail(errdefs.ErrConflict, "Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set")
	case h.NanoCPUs > 0 && n.CPUPeriod > 0:
		return fail(errdefs.ErrConflict, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case h.NanoCPUs > 0 && n.CPUQuota > 0:
		return fail(errdefs.ErrConflict, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case n.Memory > 0 && n.MemorySwap == 0 && h.MemorySwap > 0 && n.Memory > h.MemorySwap:
		return fail(errdefs.ErrConflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	set(&h.Memory, n.Memory)
	set(&h.MemorySwap, n.MemorySwap)
	set(&h.MemoryReservation, n.MemoryReservation)
	set(&h.CPUShares, n.CPUShares)
	set(&h.NanoCPUs, n.NanoCPUs)
	set(&h.CPUPeriod, n.CPUPeriod)
	set(&h.CPUQuota, n.CPUQuota)
	set(&h.CPURealtimePeriod, n.CPURealtimePeriod)
	set(&h.CPURealtimeRuntime, n.CPURealtimeRuntime)
	set(&h.CpusetCpus, n.CpusetCpus)
	set(&h.CpusetMems, n.CpusetMems)
	set(&h.BlkioWeight, n.BlkioWeight)
	if n.PidsLimit != nil {
		limit := max(*n.PidsLimit, 0) // all that is no limit is shown as 0, as dockerd does
		h.PidsLimit = &limit
	}
	setList(&h.BlkioWeightDevice, n.BlkioWeightDevice)
	setList(&h.BlkioDeviceReadBps, n.BlkioDeviceReadBps)
	setList(&h.BlkioDeviceWriteBps, n.BlkioDeviceWriteBps)
	setList(&h.BlkioDeviceReadIOps, n.BlkioDeviceReadIOps)
	setList(&h.BlkioDeviceWriteIOps, n.BlkioDeviceWriteIOps)
	return nil
}

// setList replaces a list by one that is given; an empty one is given too, and nil is not.
func setList[T any](to *[]T, given []T) {
	if given != nil {
		*to = given
	}
}

// set replaces a value by one that is given.
func set[T comparable](to *T, given T) {
	var zero T
	if given != zero {
		*to = given
	}
}
