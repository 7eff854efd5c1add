package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const updateUsage = "usage: oar update [--resources FILE|-] [--memory BYTES] [--memory-reservation BYTES] [--memory-swap BYTES] [--cpu-period µs] [--cpu-quota µs] " +
	"[--cpu-burst µs] [--cpu-share N] [--cpu-idle 0|1] [--cpu-rt-period µs] [--cpu-rt-runtime µs] [--cpuset-cpus LIST] [--cpuset-mems LIST] [--pids-limit N] [--blkio-weight N] ID"

// update changes a container's limits; what no option names stays as it is.
func (r *store) update(_ context.Context, args []string) error {
	f := newFlags("update", updateUsage)
	var file string
	f.both(&file, "resources", "r", "")
	for _, name := range limitNames() {
		f.String(name, "", "")
	}
	id, err := f.id(args)
	if err != nil {
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
	if _, err := c.require("update", running()...); err != nil {
		return err
	}
	var res specs.LinuxResources
	if file != "" {
		if err := readResources(file, &res); err != nil {
			return err
		}
	}
	for _, name := range limitNames() {
		if value := f.Lookup(name).Value.String(); value != "" {
			if err := setLimit(&res, name, value); err != nil {
				return err
			}
		}
	}
	dropZero(&res)
	g, err := c.group()
	if err != nil {
		return err
	}
	if err := g.Update(&res); err != nil {
		return err
	}
	return c.noteLimits(&res)
}

// dropZero takes limits of nothing as not given, as callers mean them that send all of their fields.
func dropZero(res *specs.LinuxResources) {
	if c := res.CPU; c != nil {
		dropNone(&c.Quota)
		dropNone(&c.RealtimeRuntime)
		for _, p := range []**uint64{&c.Shares, &c.Period, &c.Burst, &c.RealtimePeriod} {
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
	if p := res.Pids; p != nil && (p.Limit == nil || *p.Limit == 0) {
		res.Pids = nil
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

func limitNames() []string {
	return []string{"memory", "memory-reservation", "memory-swap", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-idle", "cpu-rt-period",
		"cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight", "kernel-memory", "kernel-memory-tcp", "l3-cache-schema", "mem-bw-schema"}
}

// setLimit puts one option's value into the resources.
func setLimit(res *specs.LinuxResources, name, value string) error {
	if strings.HasPrefix(name, "cpu") && res.CPU == nil {
		res.CPU = &specs.LinuxCPU{}
	}
	if strings.HasPrefix(name, "memory") && res.Memory == nil {
		res.Memory = &specs.LinuxMemory{}
	}
	switch name {
	case "cpuset-cpus":
		res.CPU.Cpus = value
		return nil
	case "cpuset-mems":
		res.CPU.Mems = value
		return nil
	case "l3-cache-schema", "mem-bw-schema":
		return fmt.Errorf("--%s: Intel RDT is not supported by oar", name)
	case "kernel-memory", "kernel-memory-tcp":
		warn("--%s is ignored: Linux has no separate limit of kernel memory any more", name)
		return nil
	}
	n, err := number(name, value)
	if err != nil {
		return fmt.Errorf("--%s %q: %w", name, value, err)
	}
	u := uint64(n)
	switch name {
	case "memory":
		res.Memory.Limit = &n
	case "memory-reservation":
		res.Memory.Reservation = &n
	case "memory-swap":
		res.Memory.Swap = &n
	case "cpu-period":
		res.CPU.Period = &u
	case "cpu-quota":
		res.CPU.Quota = &n
	case "cpu-burst":
		res.CPU.Burst = &u
	case "cpu-share":
		res.CPU.Shares = &u
	case "cpu-idle":
		res.CPU.Idle = &n
	case "cpu-rt-period":
		res.CPU.RealtimePeriod = &u
	case "cpu-rt-runtime":
		res.CPU.RealtimeRuntime = &n
	case "pids-limit":
		res.Pids = &specs.LinuxPids{Limit: &n}
	case "blkio-weight":
		w := uint16(n)
		res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	return nil
}

// number reads a count, -1 for none; sizes may end in k, m, g or t.
func number(name, value string) (int64, error) {
	factor := int64(1)
	if strings.HasPrefix(name, "memory") {
		value = strings.TrimSuffix(strings.ToLower(value), "b")
		for i, unit := range []string{"k", "m", "g", "t"} {
			if rest, ok := strings.CutSuffix(value, unit); ok {
				value, factor = rest, 1<<(10*(i+1))
			}
		}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil:
		return 0, errors.New("it is not a number")
	case n < -1 || n < 0 && (name == "cpu-period" || name == "cpu-burst" || name == "cpu-share" || name == "cpu-rt-period"):
		return 0, errors.New("it must not be negative")
	case n > (1<<63-1)/factor || name == "blkio-weight" && (n < 0 || n > 1<<16-1):
		return 0, errors.New("it is out of range")
	}
	return n * factor, nil
}
