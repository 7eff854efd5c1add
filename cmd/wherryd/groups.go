package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/sysprog"
	"wherry.dev/wherry/internal/systemd"
)

// Where systemd is the service manager it owns the tree of control groups, and delegates parts of it (systemd.io, "Control Group APIs and
// Delegation"). The engine asks for one part for all of its containers, a scope, which is none of its own service's: containers and shims
// go on when the service is stopped or restarted.
//
//	system.slice/
//	  wherry.service            wherryd
//	  wherry-ID.scope/          delegated
//	    shims                   a place holder as long as wherryd lives, and a shim for each container
//	    <container>             its processes
const (
	defaultGroup = "/wherry"
	shimsName    = "shims"
)

// cleanGroup checks --cgroup-parent.
func (o *options) cleanGroup() error {
	if o.cgroupParent == "" || isSlice(o.cgroupParent) {
		return nil
	}
	o.cgroupParent = filepath.Clean("/" + o.cgroupParent)
	if o.cgroupParent == "/" {
		return errors.New("--cgroup-parent /: the root group takes no limits; name one below it, such as /wherry")
	}
	return nil
}

// isSlice says that a name is one of systemd's, and no path.
func isSlice(name string) bool {
	return strings.HasSuffix(name, ".slice") && !strings.Contains(name, "/")
}

// placeGroups says where containers and shims go; leave gives up the engine's own place there.
func (o *options) placeGroups(ctx context.Context, id string, log *slog.Logger) (leave func(), err error) {
	slice := ""
	if isSlice(o.cgroupParent) {
		slice = o.cgroupParent
	}
	switch {
	case slice == "" && o.cgroupParent != "":
		return func() {}, nil
	case !systemd.Running() || !cgroup.OnlyUnified():
		if slice != "" {
			return nil, fmt.Errorf("--cgroup-parent %s: a slice is made by systemd on hosts with cgroup v2 only; give a path, such as %s", slice, defaultGroup)
		}
		o.cgroupParent = defaultGroup
		return func() {}, nil
	}
	holder, err := sysprog.Hold()
	if err != nil {
		return nil, err
	}
	if err := o.enterScope(ctx, "wherry-"+id[:min(12, len(id))]+".scope", slice, holder.Pid); err != nil {
		holder.Release()
		if slice != "" {
			return nil, fmt.Errorf("--cgroup-parent %s: %w", slice, err)
		}
		log.Warn("systemd does not give a scope for containers: they go to "+defaultGroup, "error", err)
		o.cgroupParent = defaultGroup
		return func() {}, nil
	}
	return holder.Release, nil
}

// enterScope makes the scope, or finds it where shims of the engine's earlier life are in it, and puts the holder beside them.
func (o *options) enterScope(ctx context.Context, unit, slice string, holder int) error {
	conn, err := systemd.Open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	group, err := conn.Group(ctx, unit)
	if err == nil && group != "" {
		_ = conn.Set(ctx, unit, []systemd.Property{systemd.Unlimited()}) // earlier engines left systemd's default; the scope is good in any case
	} else {
		group, err = conn.Start(ctx, systemd.Scope{Unit: unit, Slice: slice, Description: "Wherry's containers", Pids: []int{holder},
			Properties: []systemd.Property{systemd.Unlimited()}})
	}
	if err != nil {
		return err
	}
	g, err := cgroup.Open(group)
	if err != nil {
		return err
	}
	dir, _ := g.Dir()
	shims := filepath.Join(dir, shimsName)
	if err := os.Mkdir(shims, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the control group of shims: %w", err)
	}
	if err := os.WriteFile(filepath.Join(shims, "cgroup.procs"), []byte(strconv.Itoa(holder)), 0); err != nil {
		return fmt.Errorf("enter the control group of shims: %w", err)
	}
	o.cgroupParent, o.shimGroup = group, shims
	return nil
}
