package resctrl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// layout makes a directory that looks like the kernel's, with classes that exist.
func layout(t *testing.T, classes ...string) (Root, string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/info", 0o755))
	must(t, os.WriteFile(dir+"/info/last_cmd_status", []byte("ok\n"), 0o644))
	for _, c := range append([]string{"."}, classes...) {
		must(t, os.MkdirAll(filepath.Join(dir, c, "mon_groups"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, c, "schemata"), []byte("    MB:0=100;1=100\n    L3:0=7ff;1=0ff\n"), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, c, "tasks"), nil, 0o644))
	}
	return At(dir), dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(b)
}

// clear empties a directory of files, as they count for nothing in the kernel's.
func clear(t *testing.T, dir string) {
	t.Helper()
	for _, f := range []string{"schemata", "tasks"} {
		must(t, os.RemoveAll(filepath.Join(dir, f)))
	}
}

// TestOwnClass is named as the container and goes with it.
func TestOwnClass(t *testing.T) {
	r, dir := layout(t)
	c := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20", Schemata: []string{"L2:0=1", "L3:0=1f"}}
	k, err := r.Prepare("box", c)
	must(t, err)
	must(t, k.Add(42))
	if got := read(t, dir+"/box/schemata"); got != "L3:0=f\nMB:0=20\nL2:0=1\nL3:0=1f\n" {
		t.Errorf("written in the order %q", got)
	}
	if got := read(t, dir+"/box/tasks"); got != "42\n" {
		t.Errorf("tasks: %q", got)
	}
	must(t, r.Update("box", &specs.LinuxIntelRdt{MemBwSchema: "MB:0=30"}))
	if got := read(t, dir+"/box/schemata"); !strings.HasSuffix(got, "MB:0=30\n") {
		t.Errorf("after an update: %q", got)
	}
	clear(t, dir+"/box")
	must(t, r.Remove("box", c))
	if _, err := os.Stat(dir + "/box"); err == nil {
		t.Error("the class is left")
	}
	must(t, r.Remove("box", c)) // again
	if read(t, dir+"/tasks") != "" || !strings.Contains(read(t, dir+"/schemata"), "7ff") {
		t.Error("the default class was written to")
	}
}

// TestNamedClass stays, whoever made it.
func TestNamedClass(t *testing.T) {
	r, dir := layout(t, "there")
	for name, c := range map[string]*specs.LinuxIntelRdt{"as it is": {ClosID: "there"}, "the same": {ClosID: "there", L3CacheSchema: "L3:1=FF;0=7ff", MemBwSchema: "MB:1=100"},
		"measured": {ClosID: "there", EnableMonitoring: true}} {
		k, err := r.Prepare("box", c)
		must(t, err)
		must(t, k.Add(7))
		if c.EnableMonitoring {
			if got := read(t, dir+"/there/mon_groups/box/tasks"); got != "7\n" {
				t.Errorf("%s: %q", name, got)
			}
			clear(t, dir+"/there/mon_groups/box")
		}
		must(t, r.Remove("box", c))
		if _, err := os.Stat(dir + "/there/mon_groups/box"); err == nil {
			t.Errorf("%s: its group is left", name)
		}
	}
	if got := read(t, dir+"/there/schemata"); got != "    MB:0=100;1=100\n    L3:0=7ff;1=0ff\n" {
		t.Errorf("shares that nobody asked to change: %q", got)
	}
	if got := read(t, dir+"/there/tasks"); got != "7\n7\n7\n" {
		t.Errorf("tasks: %q", got)
	}
	k, err := r.Prepare("box", &specs.LinuxIntelRdt{ClosID: "there", Schemata: []string{"L3:0=1"}})
	must(t, err)
	must(t, k.Undo())
	if got := read(t, dir+"/there/schemata"); !strings.HasSuffix(got, "L3:0=1\n") {
		t.Errorf("schemata is written to a class that exists, too: %q", got)
	}
	made := &specs.LinuxIntelRdt{ClosID: "made", L3CacheSchema: "L3:0=3"}
	_, err = r.Prepare("box", made)
	must(t, err)
	must(t, r.Remove("box", made))
	if got := read(t, dir+"/made/schemata"); got != "L3:0=3\n" {
		t.Errorf("a named class that was made: %q", got)
	}
	k, err = r.Prepare("box", &specs.LinuxIntelRdt{ClosID: "/"})
	must(t, err)
	must(t, k.Add(9))
	if got := read(t, dir+"/tasks"); got != "9\n" {
		t.Errorf("the default class: %q", got)
	}
}

func TestRefused(t *testing.T) {
	r, dir := layout(t, "there")
	for want, c := range map[string]*specs.LinuxIntelRdt{
		"does not exist":        {ClosID: "nowhere"},
		"L3:0 is \"7ff\"":       {ClosID: "there", L3CacheSchema: "L3:0=7fe"},
		"MB:2 is \"\"":          {ClosID: "there", MemBwSchema: "MB:2=100"},
		"\"../x\" is no name":   {ClosID: "../x"},
		"\"info\" is no name":   {ClosID: "info", L3CacheSchema: "L3:0=1"},
		"more than one line":    {Schemata: []string{"L3:0=1\nMB:0=10"}},
		"begin with MB:":        {MemBwSchema: "L3:0=1"},
		"to be measured: mkdir": {ClosID: "there", EnableMonitoring: true},
	} {
		must(t, os.MkdirAll(dir+"/there/mon_groups/box", 0o755))
		if _, err := r.Prepare("box", c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, id := range []string{"..", "there"} { // leads elsewhere; is somebody else's
		if _, err := r.Prepare(id, &specs.LinuxIntelRdt{}); err == nil {
			t.Errorf("a class %q", id)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 { // info mon_groups schemata tasks there
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestKernelsReason is told: what a write was refused for stands in a file.
func TestKernelsReason(t *testing.T) {
	r, dir := layout(t)
	must(t, os.WriteFile(dir+"/info/last_cmd_status", []byte("Unknown schema L9\n"), 0o644))
	must(t, os.Mkdir(dir+"/box", 0o755))
	must(t, os.Mkdir(dir+"/box/schemata", 0o755)) // nothing can be written to it
	if _, err := r.Prepare("x", &specs.LinuxIntelRdt{ClosID: "box", Schemata: []string{"L9:0=1"}}); err == nil || !strings.Contains(err.Error(), "Unknown schema L9") {
		t.Error(err)
	}
}

func FuzzShares(f *testing.F) {
	for _, s := range []string{"L3:0=ff;1=0f", "MB:0=100", "", ":", "L3:", "L3:=;=", "a:b:c=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for key := range shares(line) {
			if !strings.Contains(key, ":") {
				t.Errorf("%q: %q", line, key)
			}
		}
	})
}

// TestJoin: another process goes where the kernel says that the first one is.
func TestJoin(t *testing.T) {
	r, dir := layout(t, "gold")
	must(t, os.MkdirAll(dir+"/gold/mon_groups/box", 0o755))
	must(t, os.WriteFile(dir+"/gold/mon_groups/box/tasks", nil, 0o644))
	for text, want := range map[string][]string{"res:gold\nmon:\n": {"/gold/tasks"}, "res:gold\nmon:box\n": {"/gold/tasks", "/gold/mon_groups/box/tasks"}, "res:/\nmon:\n": {"/tasks"}} {
		k, err := r.joined(text)
		must(t, err)
		must(t, k.Add(77))
		for _, f := range want {
			if got := read(t, dir+f); !strings.HasSuffix(got, "77\n") {
				t.Errorf("%q: %s has %q", text, f, got)
			}
			must(t, os.WriteFile(dir+f, nil, 0o644))
		}
	}
	for _, text := range []string{"", "mon:x\n", "res:a/../b\n"} {
		if k, err := r.joined(text); err == nil {
			t.Errorf("%q is taken for %+v", text, k)
		}
	}
}
