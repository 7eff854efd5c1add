package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func nullOnly() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rw"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(8)), Access: "r"},
	}
}

const tryDevices = `
echo x >/dev/null && echo null-written
head -c1 /dev/zero >/dev/null && echo zero-read
head -c1 /dev/random >/dev/null && echo random-read
{ echo x >/dev/random; } 2>/dev/null && echo random-written
`

func checkDevices(t *testing.T, g *Group) {
	t.Helper()
	cmd := start(t, g, tryDevices)
	_ = cmd.Wait()
	got := output(cmd)
	for text, want := range map[string]bool{"null-written": true, "zero-read": false, "random-read": true, "random-written": false} {
		if strings.Contains(got, text) != want {
			t.Errorf("%s should be %v: %q", text, want, got)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	checkDevices(t, group(t, &specs.LinuxResources{Devices: nullOnly()}))
}

// The cgroup2 tree takes a device program whether or not it has controllers.
func TestDeviceProgram(t *testing.T) {
	g := group(t, nil)
	dir, ok := g.Dir()
	if !ok {
		t.Skip("no cgroup2 tree is mounted here")
	}
	v2 := &Group{path: g.path, dirs: map[string]string{unified: dir}}
	if err := v2.Update(&specs.LinuxResources{Devices: nullOnly()}); err != nil {
		t.Fatal(err)
	}
	checkDevices(t, v2)
	// A second set of rules takes the first one's place.
	all := []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	if err := v2.Update(&specs.LinuxResources{Devices: all}); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, v2, tryDevices)
	_ = cmd.Wait()
	if !strings.Contains(output(cmd), "zero-read") {
		t.Errorf("the first rules still hold: %q", output(cmd))
	}
}

// Each kind of access is decided by the last rule about it: permissions that were given one by one hold together, and one that was taken
// leaves the others. Version 1 does the same with rules written one after another.
func TestDeviceRulesAddUp(t *testing.T) {
	rule := func(allow bool, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: ptr(int64(1)), Minor: ptr(minor), Access: access}
	}
	rules := []specs.LinuxDeviceCgroup{{Access: "rwm"}, rule(true, 3, "r"), rule(true, 3, "w"), rule(true, 5, "rw"), rule(false, 5, "w"), rule(true, 8, "w")}
	script := `
		{ : <>/dev/null; } 2>/dev/null && echo null-both
		{ : </dev/zero; } 2>/dev/null && echo zero-read
		{ : >/dev/zero; } 2>/dev/null && echo zero-written
		{ : <>/dev/zero; } 2>/dev/null && echo zero-both
		{ : <>/dev/random; } 2>/dev/null && echo random-both
		true`
	check := func(g *Group, name string) {
		t.Helper()
		cmd := start(t, g, script)
		_ = cmd.Wait()
		if got, want := strings.Join(strings.Fields(output(cmd)), " "), "null-both zero-read"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	g := group(t, &specs.LinuxResources{Devices: rules})
	check(g, "this host's own way")
	if dir, ok := g.Dir(); ok && !g.pure() {
		v2 := group2(t, dir, g.path)
		if err := v2.Update(&specs.LinuxResources{Devices: rules}); err != nil {
			t.Fatal(err)
		}
		check(v2, "version 2")
	}
}

// group2 is a group's part in the cgroup2 tree, beside the v1 controllers that hold the other limits.
func group2(t *testing.T, dir, path string) *Group {
	t.Helper()
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	return &Group{path: path + "/inner", dirs: map[string]string{unified: inner}}
}

// Lowest, default and highest are the same in both versions; 2000 is what runc's issue 4896 has.
func TestWeights(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 512: 59, 1024: 100, 2000: 170, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares are weight %d, want %d", shares, got, want)
		}
	}
	for weight, want := range map[uint16]uint64{1: 1, 10: 1, 500: 4950, 1000: 10000} {
		if got := IOWeight(weight); got != want {
			t.Errorf("the I/O weight %d is %d, want %d", weight, got, want)
		}
	}
}
