package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// write puts a description into a directory of its own.
func write(t *testing.T, name, text string) Dirs {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Dirs{filepath.Join(dir, "none"), dir}
}

const cards = `
cdiVersion: "0.7.0"
kind: acme.com/card
containerEdits:
  env: [ACME=all]
devices:
- name: zero
  containerEdits:
    env: [CARD=zero]
    additionalGids: [7]
    deviceNodes: [{path: /dev/card0, hostPath: /dev/null, permissions: r}]
    mounts: [{hostPath: /usr/lib/acme, containerPath: /usr/lib/acme, options: [ro, rbind]}]
    hooks: [{hookName: createContainer, path: /usr/bin/acme-hook, args: [acme-hook, link]}]
- name: one
  containerEdits:
    env: [CARD=one]
`

func TestEdits(t *testing.T) {
	d := write(t, "acme.yaml", cards)
	names, warnings := d.Devices()
	if want := []string{"acme.com/card=one", "acme.com/card=zero"}; !slices.Equal(names, want) || len(warnings) > 0 {
		t.Errorf("devices %v, %v", names, warnings)
	}
	e, err := d.Edits([]string{"acme.com/card=zero"}, specs.User{UID: 101, GID: 102})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Env, []string{"ACME=all", "CARD=zero"}) || !slices.Equal(e.Groups, []uint32{7}) {
		t.Errorf("environment %v, groups %v", e.Env, e.Groups)
	}
	if len(e.Devices) != 1 || e.Devices[0].Path != "/dev/card0" || e.Devices[0].Major != 1 || e.Devices[0].Minor != 3 || *e.Devices[0].UID != 101 {
		t.Errorf("nodes %+v", e.Devices)
	}
	if len(e.Rules) != 1 || e.Rules[0].Access != "r" || *e.Rules[0].Minor != 3 {
		t.Errorf("rules %+v", e.Rules)
	}
	if len(e.Mounts) != 1 || e.Mounts[0].Source != "/usr/lib/acme" || e.Hooks == nil || len(e.Hooks.CreateContainer) != 1 {
		t.Errorf("mounts %+v, hooks %+v", e.Mounts, e.Hooks)
	}
	if none, err := (Dirs{}).Edits(nil, specs.User{}); err != nil || none.Env != nil {
		t.Errorf("nothing asked for: %+v, %v", none, err)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	broken := write(t, "broken.json", `{"cdiVersion": "0.6.0", "kind": "acme.com/card", "devices": [{}]}`)
	after := write(t, "after.yaml", "cdiVersion: 0.7.0\nkind: acme.com/card\ndevices:\n- name: zero\n  containerEdits: {hooks: [{hookName: poststop, path: /bin/tidy}]}\n")
	for _, row := range []struct {
		dirs Dirs
		name string
		want []string
	}{
		{write(t, "acme.yaml", cards), "acme.com/card=two", []string{"CDI device injection failed: unresolvable CDI devices acme.com/card=two", "there are acme.com/card=one"}},
		{Dirs{"/nowhere"}, "acme.com/card=two", []string{"no device is described in /nowhere"}},
		{Dirs{}, "acme.com/card=two", []string{"containers.cdi-spec-dirs"}},
		{Dirs{"/nowhere"}, "card", []string{"VENDOR.COM/CLASS=NAME"}},
		{broken, "acme.com/card=zero", []string{"broken.json is not whole"}},
		{after, "acme.com/card=zero", []string{"/bin/tidy", "poststop"}},
	} {
		_, err := row.dirs.Edits([]string{row.name}, specs.User{})
		for _, want := range row.want {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s in %v: %v, want %q", row.name, row.dirs, err, want)
			}
		}
	}
	if _, warnings := broken.Devices(); len(warnings) != 1 || !strings.Contains(warnings[0], "broken.json") {
		t.Errorf("a broken file: %v", warnings)
	}
}

func TestGPUs(t *testing.T) {
	amd := write(t, "amd.json", `{"cdiVersion": "0.6.0", "kind": "amd.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=B"]}}, {"name": "1", "containerEdits": {"env": ["A=C"]}}]}`)
	for _, row := range []struct {
		driver string
		count  int
		ids    []string
		want   []string
	}{
		{"", -1, nil, []string{"amd.com/gpu=all"}}, {"amd", 2, nil, []string{"amd.com/gpu=0", "amd.com/gpu=1"}}, {"", 0, []string{"3"}, []string{"amd.com/gpu=3"}},
	} {
		if got, err := amd.GPUs(row.driver, row.count, row.ids); err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%+v: %v, %v", row, got, err)
		}
	}
	if _, err := amd.GPUs("nvidia", -1, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"nvidia"`) {
		t.Errorf("another's: %v", err)
	}
	if _, err := amd.GPUs("", 1<<40, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no more than amd.com/gpu=0, amd.com/gpu=1") {
		t.Errorf("more than there are: %v", err)
	}
}

func FuzzDevices(f *testing.F) {
	f.Add([]byte(cards))
	f.Add([]byte(`{"cdiVersion": "1.1.0", "kind": "a.b/c", "devices": [{"name": "x", "containerEdits": {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d := write(t, "x.yaml", string(text))
		names, _ := d.Devices()
		_, _ = d.Edits(names, specs.User{})
	})
}
