package task

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/seccomp"
)

func TestFiltersKeepsProfilesApart(t *testing.T) {
	errno := uint(7)
	profile := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 2, ValueTwo: 3, Op: specs.OpMaskedEqual}}}}}
		change(p)
		return p
	}
	rows := []func(*specs.LinuxSeccomp){
		func(*specs.LinuxSeccomp) {},
		func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &errno },
		func(p *specs.LinuxSeccomp) { p.Architectures = nil },
		func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, specs.ArchX32) },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"readwrite"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActTrap },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &errno },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = nil },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 2 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 4 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 4 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpEqualTo },
		func(p *specs.LinuxSeccomp) { p.Syscalls = nil },
	}
	seen := map[[32]byte]int{}
	for i, change := range rows {
		key := digest(profile(change))
		if other, ok := seen[key]; ok {
			t.Errorf("profiles %d and %d have one name", other, i)
		}
		seen[key] = i
		if digest(profile(change)) != key {
			t.Errorf("profile %d has two names", i)
		}
	}
}

func TestFiltersCompilesOnce(t *testing.T) {
	var c Filters
	p := func(i int) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: uint64(i), Op: specs.OpEqualTo}}}}}
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got, err := c.Compile(p(i % 80))
			want, _ := seccomp.Compile(p(i % 80))
			if err != nil || !bytes.Equal(got, want) {
				t.Error(fmt.Errorf("profile %d: %w", i, err))
			}
		}()
	}
	wg.Wait()
	if len(c.filters) > maxFilters {
		t.Errorf("%d filters are kept", len(c.filters))
	}
	first, _ := c.Compile(p(1))
	second, _ := c.Compile(p(1))
	if &first[0] != &second[0] {
		t.Error("compiled again")
	}
	if _, err := c.Compile(&specs.LinuxSeccomp{DefaultAction: "x"}); err == nil {
		t.Error("a bad profile is taken")
	}
}
