package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/resctrl"
)

// update changes a container's limits; what no option names stays as it is.
func (r *store) update(ctx context.Context, f flags) error {
	var file string
	var res specs.LinuxResources
	f.text(&file, "resources r", "", "limits as the specification's JSON, of a `FILE` or (-) standard input; the other options come on top")
	var rdt specs.LinuxIntelRdt
	f.text(&rdt.L3CacheSchema, "l3-cache-schema", "", "Intel RDT's share of the caches, a `LINE` as in L3:0=ff")
	f.text(&rdt.MemBwSchema, "mem-bw-schema", "", "Intel RDT's share of the memory's bandwidth, a `LINE` as in MB:0=50")
	given := defineLimits(f)
	id, err := f.id()
	if err != nil {
		return err
	}
	if file != "" {
		if err := readResources(file, &res); err != nil {
			return err
		}
	}
	if err := given(&res); err != nil {
		return err
	}
	c, err := r.load(id)
	if err != nil {
		return err
	}
	release, err := c.lockCreated()
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("update", running()...); err != nil {
		return err
	}
	if m := res.Memory; m != nil && m.Kernel != nil { //nolint:staticcheck // deprecated, but given
		c.warn("the limit of kernel memory is ignored: Linux has no separate one any more")
		m.Kernel = nil //nolint:staticcheck // as above
	}
	if m := res.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = m.Limit // that of memory cannot be above that of both together
	}
	dropZero(&res)
	if p := res.Pids; p != nil && (p.Limit == nil || *p.Limit == 0) { // at the creation it means none at all
		res.Pids = nil
	}
	if err := updateClass(c, rdt); err != nil {
		return err
	}
	if len(res.Devices) > 0 { // callers send all that they have: the container's own devices are none of theirs to take away
		res.Devices = append(res.Devices, defaultDevices()...)
	}
	g, err := needGroup(c, "update")
	if err != nil {
		return err
	}
	cgroup.WholeQuota(g, res.CPU)
	if err := updateScope(ctx, c.Scope, &res); err != nil {
		return err
	}
	if err := g.Update(&res); err != nil {
		return err
	}
	return c.noteLimits(&res)
}

// updateClass changes the shares of the container's class of service (Intel RDT).
func updateClass(c *record, change specs.LinuxIntelRdt) error {
	if change.L3CacheSchema == "" && change.MemBwSchema == "" {
		return nil
	}
	have := c.spec.Linux.IntelRdt
	if have == nil {
		return errors.New("--l3-cache-schema and --mem-bw-schema: the container was created without a class of service (linux.intelRdt)")
	}
	root, err := resctrl.Find()
	if err != nil {
		return err
	}
	change.ClosID = have.ClosID
	if err := root.Update(c.ID, &change); err != nil {
		return err
	}
	if change.L3CacheSchema != "" {
		have.L3CacheSchema = change.L3CacheSchema
	}
	if change.MemBwSchema != "" {
		have.MemBwSchema = change.MemBwSchema
	}
	return nil
}

// dropZero takes limits of nothing as not given, as callers mean them that send all of their fields.
func dropZero(res *specs.LinuxResources) {
	if c := res.CPU; c != nil {
		dropNone(&c.Quota)
		dropNone(&c.RealtimeRuntime)
		for _, p := range []**uint64{&c.Shares, &c.Period, &c.RealtimePeriod} {
			if *p != nil && **p == 0 {
				*p = nil
			}
		}
	}
	if m := res.Memory; m != nil {
		dropNone(&m.Limit)
		dropNone(&m.Reservation)
		dropNone(&m.Swap)
	}
	if b := res.BlockIO; b != nil && b.Weight != nil && *b.Weight == 0 {
		b.Weight = nil
	}
}

func dropNone(limit **int64) {
	if *limit != nil && **limit == 0 {
		*limit = nil
	}
}

func readResources(file string, res *specs.LinuxResources) error {
	from := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	if err := json.NewDecoder(from).Decode(res); err != nil {
		return fmt.Errorf("resources of %s: %w", file, err)
	}
	return nil
}

// noteLimits keeps the stored configuration true.
func (c *record) noteLimits(res *specs.LinuxResources) error {
	if c.spec.Linux == nil {
		c.spec.Linux = &specs.Linux{}
	}
	have := c.spec.Linux.Resources
	if have == nil {
		have = &specs.LinuxResources{}
		c.spec.Linux.Resources = have
	}
	// Decoding over what is there replaces the named limits only.
	change, err := json.Marshal(res)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(change, have); err != nil {
		return err
	}
	b, err := json.Marshal(c.spec)
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(c.dir, configFile), b)
}
