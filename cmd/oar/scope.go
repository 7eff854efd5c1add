package main

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/sysprog"
	"wherry.dev/wherry/internal/systemd"
)

// With --systemd-cgroup a container's control group is a transient scope's, which systemd makes. A scope wants a process from its
// beginning, and the container's own is cloned into its group: until then one of ours stands in it.
//
//	oar                      systemd                     the scope's group
//	  clone a place holder
//	  StartTransientUnit ───▶ makes the scope ──────────▶ place holder
//	  ◀── job done, path
//	  limits, clone ────────────────────────────────────▶ place holder, the container's process
//	  kill the place holder ────────────────────────────▶ the container's process
type scope struct {
	group  *cgroup.Group
	holder *sysprog.Holder
}

// makeScope has systemd make the container's group, and writes the limits that systemd has no word for.
func makeScope(ctx context.Context, c *record) (*scope, error) {
	if !systemd.Running() {
		return nil, errors.New("--systemd-cgroup: systemd is not this host's service manager (there is no /run/systemd/system); " +
			"set the caller's cgroup driver to cgroupfs (podman: cgroup_manager, docker: native.cgroupdriver, containerd: SystemdCgroup)")
	}
	properties, err := systemd.Annotated(c.spec.Annotations)
	if err != nil {
		return nil, err
	}
	holder, err := sysprog.Hold()
	if err != nil {
		return nil, err
	}
	s := &scope{holder: holder}
	if err := s.start(ctx, c, properties); err != nil {
		s.release()
		if errors.Is(err, systemd.ErrExists) { // another container's, which goes on
			return nil, err
		}
		return nil, errors.Join(err, stopScope(context.WithoutCancel(ctx), c.Scope))
	}
	return s, nil
}

func (s *scope) start(ctx context.Context, c *record, properties []systemd.Property) error {
	conn, err := systemd.Open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	limits := systemd.Limits(c.spec.Linux.Resources)
	group, err := conn.Start(ctx, systemd.Scope{Unit: c.Scope, Slice: c.slice, Description: "container " + c.ID, Pids: []int{s.holder.Pid},
		Properties: append(limits, properties...)})
	if err != nil {
		return err
	}
	if group == "" || group == "/" {
		return fmt.Errorf("systemd gave %s no control group of its own", c.Scope)
	}
	c.Cgroup, c.spec.Linux.CgroupsPath = group, group
	if err := c.save(); err != nil {
		return err
	}
	res := c.spec.Linux.Resources
	if systemd.OfUser() {
		res = cgroup.Delegable(res)
	}
	if s.group, err = cgroup.Adopt(group, res); err != nil || !systemd.OfUser() {
		return err
	}
	return enterable(s.group, c.Scope)
}

// enterable says why no process can be cloned into a scope's group, before the kernel says only that it is not permitted.
func enterable(g *cgroup.Group, unit string) error {
	if cgroup.MayEnter(g) {
		return nil
	}
	return fmt.Errorf("--systemd-cgroup: no process can be put into %s (control group %s): permission denied: the kernel lets a user do that only from within the part of the tree "+
		"that is delegated to him, and a login session is outside of it: begin there: systemd-run --user --scope -p Delegate=yes oar …", unit, g.Path())
}

// stopScope removes a scope that is empty, or failed.
func stopScope(ctx context.Context, unit string) error {
	if unit == "" {
		return nil
	}
	conn, err := systemd.Open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Stop(ctx, unit)
}

// updateScope tells systemd of new limits, so that it does not write the old ones again.
func updateScope(ctx context.Context, unit string, res *specs.LinuxResources) error {
	if unit == "" {
		return nil
	}
	conn, err := systemd.Open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Set(ctx, unit, systemd.Limits(res))
}

// release ends the place holder: the group has its process, or will have none. A nil scope has nobody.
func (s *scope) release() {
	if s != nil {
		s.holder.Release()
	}
}
