package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wherry.toml")
	text := `
# a file
store.keep-blobs = false
[clean-up]
high = "40GB"
low = "30 GB"
min-age = "7d"
measure = "store"
[registry]
insecure = ["registry.lan:5000", "10.0.0.0/8"]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Store.KeepBlobs = false
	want.CleanUp.High, want.CleanUp.Low, want.CleanUp.MinAge, want.CleanUp.Measure = Bytes(40e9), Bytes(30e9), 7*Day, "store"
	want.Registry.Insecure = []string{"registry.lan:5000", "10.0.0.0/8"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
	if _, err := Read(path + ".no"); err == nil || !strings.Contains(err.Error(), path+".no") {
		t.Errorf("a named file that is not there: %v", err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	rows := []struct{ text, want string }{
		{"[store]\nkeep-bobs = true", "w.toml:2: store.keep-bobs: there is no such setting; store has "},
		{"\n[stores]\nx = 1", "w.toml:2: stores: there is no such setting; groups are engine, tls, audit, metrics, traces, store, "},
		{"[store]\n\nkeep-blobs = \"no\"", "w.toml:3: store.keep-blobs: "},
		{"[store]\nkeep-blobs = 1", "w.toml:2: store.keep-blobs: it is true or false, without quotes"},
		{"[clean-up]\nenabled = \"yes\"", "w.toml:2: clean-up.enabled: it is true or false, without quotes"},
		{"[engine]\nhosts = \"unix:///s\"", "w.toml:2: engine.hosts: it is a list"},
		{"[engine]\nroot = 1", "w.toml:2: engine.root: it is a text, in quotes"},
		{"[registry]\ninsecure = \"a\"", "w.toml:2: registry.insecure: "},
		{"[registry]\ninsecure = [1]", "w.toml:2: registry.insecure"},
		{"[clean-up]\nhigh = \"lots\"", `w.toml:2: clean-up.high: "lots" is neither a percentage`},
		{"[clean-up]\nhigh = 85", "w.toml:2: clean-up.high: write its value in quotes"},
		{"clean-up = { min-age = 30 }", "w.toml:1: clean-up.min-age: write its"},
		{"[engine]\nlog-level = 4", "w.toml:2: engine.log-level: "},
		{"[network]\nbridge = [\"10.5.0.1\"]", `w.toml:2: network.bridge: "10.5.0.1" is no address with the size`},
		{"[network]\nbridge = [\"10.5.0.1/24\", \"10.6.0.1/24\"]", "w.toml:2: network.bridge: 10.6.0.1/24 is the second of its family"},
		{"[network]\nrange = [\"10.5.0.0/25\"]", `w.toml:2: network.range: "10.5.0.0/25" is no part of a subnet`},
		{"[network]\nbridge = [\"10.5.0.1/24\"]\nrange = [\"10.5.0.0/23\"]", `w.toml:3: network.range: "10.5.0.0/23" is no part`},
		{"[network]\nbridge = [\"10.5.0.1/24\"]\nrange = [\"10.5.0.0/25\", \"10.5.0.128/25\"]", "w.toml:3: network.range: 10.5.0.128/25 is the second"},
		{"[network]\noptions = [\"mtu=1450\"]", `w.toml:2: network.options: "mtu=1450" is no option`},
		{"[network]\ndns = [\"ns.example\"]", `w.toml:2: network.dns: "ns.example" is no address`},
		{"[clean-up]\nhigh = \"85\"", `w.toml:2: clean-up.high: "85" is neither`},
		{"[clean-up]\nhigh = \"120%\"", `w.toml:2: clean-up.high: "120%" is no percentage`},
		{"[clean-up]\nevery = \"often\"", `w.toml:2: clean-up.every: "often" is no time span`},
		{"[clean-up]\nmeasure = \"disk\"", `w.toml:2: clean-up.measure: "disk" is none of file-system, store`},
		{"[clean-up]\nlow = \"90%\"", "w.toml:2: clean-up.low: 90% is more than clean-up.high, 85%"},
		{"[clean-up]\nlow = \"90GB\"", "w.toml: clean-up.high: it is 85%, and clean-up.low is 90GB: give both in percent, or both in bytes"},
		{"[clean-up]\nevery = \"1s\"", "w.toml:2: clean-up.every: 1s: a minute is the least"},
		{"[builds]\nentitlements = [\"security.secure\"]", `w.toml:2: builds.entitlements: "security.secure" is none of network.host, device, security.insecure`},
		{"[containers]\nshm-size = \"lots\"", `w.toml:2: containers.shm-size: "lots" is no size`},
		{"[containers]\nulimits = [\"nofile\"]", `w.toml:2: containers.ulimits: "nofile"`},
		{"[containers]\nlog-opts = [\"max-size\"]", `w.toml:2: containers.log-opts: "max-size": write`},
		{"[containers]\nlog-opts = [\"max-size=lots\"]", `w.toml:2: containers.log-opts: invalid log opt max-size=lots: write a size`},
		{"[containers]\nlog-opts = [\"max-file=0\"]", `w.toml:2: containers.log-opts: invalid log opt max-file=0: a number from 1`},
		{"[containers]\nlog-opts = [\"mode=fast\"]", `w.toml:2: containers.log-opts: invalid log opt mode=fast: it is blocking or`},
		{"[containers]\nlog-opts = [\"mode=non-blocking\", \"max-buffer-size=lots\"]", `invalid log opt max-buffer-size=lots: write a size`},
		{"[containers]\nlog-opts = [\"max-buffer-size=4m\"]", `w.toml:2: containers.log-opts: invalid log opt max-buffer-size=4m: it is only for`},
		{"[containers]\nlog-opts = [\"max-sice=1m\"]", `w.toml:2: containers.log-opts: unknown log opt 'max-sice' for json-file`},
		{"[network]\npools = [\"10.0.0.0/8\"]", `w.toml:2: network.pools: "10.0.0.0/8" is no range of addresses: it has to look like base=`},
		{"[registry]\ninsecure = [\"http://registry.lan\"]", `w.toml:2: registry.insecure: "http://registry.lan" is neither a host nor a network`},
		{"[registry]\ninsecure = [\"10.0.0.0/33\"]", `w.toml:2: registry.insecure: "10.0.0.0/33" is neither`},
		{"[containers]\ncdi-spec-dirs = [\"etc\"]", `w.toml:2: containers.cdi-spec-dirs: "etc" is no absolute path`},
		{"clean-up.every = \"1s\"", "w.toml:1: clean-up.every: "},
		{"[engine]\nlog-level = \"loud\"", "w.toml:2: engine.log-level: "},
		{"store = 3", "w.toml:1: store"},
		{"[store", "w.toml:1: "},
		{"[store]\nkeep-blobs = true\nkeep-blobs = true", "w.toml:3: "},
		{"[store]\nfirst = 1\n[registry]\nsecond = 2", "w.toml:4: registry.second"},
	}
	for _, row := range rows {
		_, err := Parse("w.toml", []byte(row.text))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.text, err, row.want)
		}
	}
}

// TestWrittenSettingsAreRead: what --check-config prints is a settings file.
func TestWrittenSettingsAreRead(t *testing.T) {
	s := Default()
	s.CleanUp.High, s.CleanUp.Low, s.CleanUp.MinAge = Bytes(1500e6), Bytes(1e9), 90*Minute
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := Parse("written", b.Bytes())
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%v\n%s\n%+v", err, &b, got)
	}
}

// TestEverySettingIsDocumented: a new one needs a comment here and its line in the documentation.
func TestEverySettingIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys() {
		if !bytes.Contains(page, []byte("`"+key+"`")) {
			t.Errorf("docs/settings.md does not speak of `%s`", key)
		}
	}
	for _, group := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		for _, f := range reflect.VisibleFields(group.Type) {
			if f.Tag.Get("comment") == "" || f.Tag.Get("toml") == "" {
				t.Errorf("%s.%s has no name or no comment", group.Name, f.Name)
			}
		}
	}
}

func TestAmounts(t *testing.T) {
	var a Amount
	for text, want := range map[string]int64{"85%": 850, "40GB": 40e9, "1KiB": 1024, "2GiB": 2 << 30} {
		if err := a.UnmarshalText([]byte(text)); err != nil || a.Of(1000) != want {
			t.Errorf("%s: %d %v", text, a.Of(1000), err)
		}
	}
}

func TestTimeSpans(t *testing.T) {
	var d Duration
	for text, want := range map[string]Duration{"7d": 7 * Day, "24h": Day, "106751d": 106751 * Day} {
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want {
			t.Errorf("%s: %s %v", text, d, err)
		}
	}
	for _, text := range []string{"106752d", "2147483647d", "-1d", "1.5d"} {
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s is taken for %s", text, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[store]\nkeep-blobs = false"))
	f.Add([]byte("clean-up.high = \"9%\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("f", text)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := s.Write(&b); err != nil {
			t.Fatal(err)
		}
	})
}
