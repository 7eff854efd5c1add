package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limitOption is one option of update.
type limitOption struct {
	name, says string
	set        func(*specs.LinuxResources, string) error
}

// limits are all of them, each with where its value goes.
func limits() []limitOption {
	bytes, count, time := "in `BYTES`; k, m, g, t behind the number multiply it; -1: none", "how many: `N`; -1: none", "in `µs`"
	return []limitOption{
		{"memory", "the limit of memory " + bytes, amount(func(r *specs.LinuxResources) **int64 { return &memory(r).Limit })},
		{"memory-reservation", "what is left when memory is short, " + bytes, amount(func(r *specs.LinuxResources) **int64 { return &memory(r).Reservation })},
		{"memory-swap", "the limit of memory and swap together " + bytes, amount(func(r *specs.LinuxResources) **int64 { return &memory(r).Swap })},
		{"kernel-memory", hidden, amount(func(r *specs.LinuxResources) **int64 { return &memory(r).Kernel })},
		{"kernel-memory-tcp", hidden, amount(func(r *specs.LinuxResources) **int64 { return &memory(r).KernelTCP })},
		{"cpu-period", "the period that the quota is counted in, " + time, natural(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Period })},
		{"cpu-quota", "how long it may compute in a period, " + time + "; -1: always", integer(func(r *specs.LinuxResources) **int64 { return &cpu(r).Quota })},
		{"cpu-burst", "how much of an unused quota may be used later, " + time, natural(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Burst })},
		{"cpu-share", "its weight against others: `N` of 1024", natural(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Shares })},
		{"cpu-idle", "1: it computes when nobody else does; 0 (`N`): as others", zeroOrOne},
		{"cpu-rt-period", "the period of real-time scheduling, " + time, natural(func(r *specs.LinuxResources) **uint64 { return &cpu(r).RealtimePeriod })},
		{"cpu-rt-runtime", "how long it may compute in that, " + time, integer(func(r *specs.LinuxResources) **int64 { return &cpu(r).RealtimeRuntime })},
		{"cpuset-cpus", "the processors that it may use: a `LIST` as in 0-2,7", func(r *specs.LinuxResources, v string) error { cpu(r).Cpus = v; return nil }},
		{"cpuset-mems", "the memory nodes that it may use: a `LIST`", func(r *specs.LinuxResources, v string) error { cpu(r).Mems = v; return nil }},
		{"pids-limit", "the limit of processes and threads: " + count, someProcesses},
		{"blkio-weight", "its weight against others at disks: `N` from 10 to 1000", weight},
	}
}

// defineLimits makes an option of each limit; what is returned puts those that were given into resources.
func defineLimits(f flags) func(*specs.LinuxResources) error {
	for _, l := range limits() {
		f.String(l.name, "", l.says)
	}
	return func(r *specs.LinuxResources) error {
		for _, l := range limits() {
			value := f.Lookup(l.name).Value.String()
			if value == "" {
				continue
			}
			if err := l.set(r, value); err != nil {
				return fmt.Errorf("--%s %q: %w", l.name, value, err)
			}
		}
		return nil
	}
}

func part[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func memory(r *specs.LinuxResources) *specs.LinuxMemory { return part(&r.Memory) }
func cpu(r *specs.LinuxResources) *specs.LinuxCPU       { return part(&r.CPU) }
func pids(r *specs.LinuxResources) *specs.LinuxPids     { return part(&r.Pids) }

// amount reads a size in bytes, as in 64m, 1.5GiB or 4096; -1 for none.
func amount(at func(*specs.LinuxResources) **int64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		factor := int64(1)
		text = strings.TrimSuffix(strings.ToLower(text), "b")
		text = strings.TrimSuffix(text, "i")
		for i, unit := range []string{"k", "m", "g", "t", "p"} {
			if rest, ok := strings.CutSuffix(text, unit); ok {
				text, factor = strings.TrimSpace(rest), 1<<(10*(i+1))
			}
		}
		n, err := number(text, math.MaxInt64/factor)
		if part, e := strconv.ParseFloat(text, 64); err != nil && e == nil && part >= 0 && part < float64(math.MaxInt64/factor) {
			n, err = int64(part*float64(factor)), nil
		} else if n > 0 {
			n *= factor
		}
		*at(r) = &n
		return err
	}
}

func integer(at func(*specs.LinuxResources) **int64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := number(text, math.MaxInt64)
		*at(r) = &n
		return err
	}
}

func natural(at func(*specs.LinuxResources) **uint64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := number(text, math.MaxInt64)
		if err == nil && n < 0 {
			err = errors.New("it must not be negative")
		}
		u := uint64(n)
		*at(r) = &u
		return err
	}
}

// zeroOrOne is what idle scheduling may be.
func zeroOrOne(r *specs.LinuxResources, text string) error {
	n, err := number(text, 1)
	if err == nil && n < 0 {
		err = errors.New("it is 0 or 1")
	}
	cpu(r).Idle = &n
	return err
}

// someProcesses is at least one: the container's first has to be counted (runc takes 0 for 1).
func someProcesses(r *specs.LinuxResources, text string) error {
	n, err := number(text, math.MaxInt64)
	if n == 0 {
		n = 1
	}
	pids(r).Limit = &n
	return err
}

func weight(r *specs.LinuxResources, text string) error {
	n, err := number(text, math.MaxUint16)
	if err == nil && n < 0 {
		err = errors.New("it must not be negative")
	}
	w := uint16(n)
	part(&r.BlockIO).Weight = &w
	return err
}

// number reads a whole number from -1 on.
func number(text string, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > most:
		return 0, errors.New("it is out of range")
	case err != nil:
		return 0, errors.New("it is not a number")
	case n < -1:
		return 0, errors.New("it must not be negative, but for -1")
	}
	return n, nil
}
