// Package settings reads the engine's settings file.
//
// The file is TOML, /etc/wherry/wherry.toml unless the engine is told of another. A key is one field of the structures here, with its default in
// Default: what is not written in the file has its default, and what no field knows is an error that names file, line and key. The comment of a field
// is what `wherryd --check-config` prints above it; a tag `of` holds the words that it may be. Nothing is kept: a Settings is a value.
package settings

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Path is where the file is looked for; nothing need be there.
const Path = "/etc/wherry/wherry.toml"

// Settings is the whole file.
type Settings struct {
	Engine     Engine     `toml:"engine"`
	TLS        TLS        `toml:"tls"`
	Audit      Audit      `toml:"audit"`
	Metrics    Metrics    `toml:"metrics"`
	Traces     Traces     `toml:"traces"`
	Store      Store      `toml:"store"`
	CleanUp    CleanUp    `toml:"clean-up"`
	Registry   Registry   `toml:"registry"`
	Network    Network    `toml:"network"`
	Containers Containers `toml:"containers"`
	Builds     Builds     `toml:"builds"`
}

// Engine is what the engine's flags say; a flag wins over the file.
type Engine struct {
	Root         string     `toml:"root" comment:"directory of everything that lasts"`
	State        string     `toml:"state" comment:"directory of what ends with the boot"`
	Hosts        []string   `toml:"hosts" comment:"addresses to listen on, unix:///path, or tcp://address:port with the settings of tls; none: unix://STATE/wherry.sock"`
	Group        string     `toml:"group" comment:"group whose members may use the sockets, and so are as good as root unless the rules of access say otherwise; none: root only"`
	Access       string     `toml:"access" comment:"file that says who may do what; none: /etc/wherry/access.toml, where there is one"`
	Oar          string     `toml:"oar" comment:"path of the runtime; none: beside wherryd, then in PATH"`
	Policy       string     `toml:"policy" comment:"file that says which images may be pulled and run; none: /etc/wherry/policy.toml, or else /etc/containers/policy.json, where there is one"`
	Verify       string     `toml:"verify" comment:"path of wherry-verify, which judges signatures; none: beside wherryd, then in PATH"`
	CgroupParent string     `toml:"cgroup-parent" comment:"control group above all containers, or a slice of systemd's; none: a scope of systemd's, or /wherry"`
	LogLevel     slog.Level `toml:"log-level" comment:"DEBUG, INFO, WARN or ERROR"`
}

// TLS is what listening on TCP needs: clients show a certificate, as the engine does.
type TLS struct {
	CA   string `toml:"ca" comment:"file of the authorities whose clients are let in"`
	Cert string `toml:"cert" comment:"file of the engine's certificate"`
	Key  string `toml:"key" comment:"file of its private key"`
}

// Audit is what is written down of requests.
type Audit struct {
	Enabled bool   `toml:"enabled" comment:"write down who does what through the engine, in a log in which changes show"`
	Reads   bool   `toml:"reads" comment:"also requests that change nothing"`
	Sync    string `toml:"sync" of:"second always never" comment:"when records are on the disk: within a second; before the answer, which makes requests wait for the disk; or when the kernel likes. The engine's death loses none in any case"`
	MaxSize Amount `toml:"max-size" comment:"most that the log takes; the oldest records go first"`
}

// Metrics is where Prometheus asks, beside GET /metrics on the engine's own addresses.
type Metrics struct {
	Address  string `toml:"address" comment:"an address of the loopback, 127.0.0.1:9323, that answers GET /metrics to everybody on this machine; none: there is none"`
	Anywhere bool   `toml:"anywhere" comment:"the address may be one that other machines reach"`
}

// Traces is where spans of requests and starts go.
type Traces struct {
	Endpoint string `toml:"endpoint" comment:"an OpenTelemetry collector, http://HOST:4318; none: what OTEL_EXPORTER_OTLP_ENDPOINT says, and nothing without it"`
}

// Store is how images are kept.
type Store struct {
	Layers    string `toml:"layers" of:"auto erofs overlay" comment:"what layers become: erofs, a file each, which Linux 6.12 and later mount; overlay, a directory each; auto, files where the kernel can"`
	KeepBlobs bool   `toml:"keep-blobs" comment:"keep layers as they came, besides unpacked; false takes a third less disk, and what needs them fetches them again"`
}

// CleanUp is when images that nobody uses are removed without being asked.
type CleanUp struct {
	Enabled    bool     `toml:"enabled" comment:"remove images that were not used for longest when the disk fills up"`
	Measure    string   `toml:"measure" of:"file-system store" comment:"what high and low are about: file-system, all that is used on the one of root, or store, what images take"`
	High       Amount   `toml:"high" comment:"begin above it: percent of the file system, or bytes"`
	Low        Amount   `toml:"low" comment:"end below it"`
	MinAge     Duration `toml:"min-age" comment:"images that were used, pulled or made more recently stay"`
	Every      Duration `toml:"every" comment:"how often is looked; also after each pull"`
	OnFullDisk bool     `toml:"on-full-disk" comment:"also when a pull finds the disk full, which is then tried once more"`
	Keep       []string `toml:"keep" comment:"names of images that always stay, with * for anything: \"registry.example/base/*\"; beside those of wherry image pin"`
}

// Registry is how registries are spoken to.
type Registry struct {
	Insecure []string `toml:"insecure" comment:"host[:port] or networks (CIDR) that may be spoken to without TLS or with any certificate"`
}

// Network is how containers are connected.
type Network struct {
	Pools   []string `toml:"pools" comment:"ranges from which networks get their addresses, each \"base=10.200.0.0/16,size=24\"; none: 172.17.0.0/12 in parts of 65,536 addresses, then 192.168.0.0/16 in parts of 4,096; of IPv6 a part of fd00::/8"`
	Publish string   `toml:"publish" of:"all loopback" comment:"where a published port is reached that names no address (-p 8080:80): all of the host's addresses, or loopback, 127.0.0.1, only; an address in -p always wins"`
	IPv6    bool     `toml:"ipv6" comment:"the default network bridge, and networks that do not say (--ipv6), have IPv6 beside IPv4"`
	Bridge  []string `toml:"bridge" comment:"the host's address on the default network bridge, with the size of its subnet, \"10.5.0.1/24\", one of each family; none: a part of pools"`
	Range   []string `toml:"range" comment:"the part of bridge's subnet from which containers on it get addresses, \"10.5.0.128/25\", one of each family; none: all of it"`
	Options []string `toml:"options" comment:"options of the default network bridge and of bridge networks that do not name them: \"com.docker.network.driver.mtu=1450\""`

	DNS        []string `toml:"dns" comment:"--dns of containers that do not say: servers that are asked for names; none: the host's"`
	DNSSearch  []string `toml:"dns-search" comment:"--dns-search; none: the host's"`
	DNSOptions []string `toml:"dns-options" comment:"--dns-option; none: the host's"`
}

// Containers is what holds for containers that do not say otherwise.
type Containers struct {
	IpcMode      string   `toml:"ipc-mode" of:"private shareable" comment:"--ipc: private, an IPC namespace and /dev/shm that nobody else joins, or shareable, which --ipc container:NAME joins"`
	CgroupnsMode string   `toml:"cgroupns-mode" of:"private host" comment:"--cgroupns: what a container sees of control groups, its own or the host's"`
	ShmSize      string   `toml:"shm-size" comment:"--shm-size: how large /dev/shm may get, with k, m or g of 1024"`
	Init         bool     `toml:"init" comment:"--init: a small first process that reaps others and hands signals on"`
	Ulimits      []string `toml:"ulimits" comment:"--ulimit, NAME=SOFT[:HARD] each; one that a container has of the same name takes its place"`
	NoNewPrivs   bool     `toml:"no-new-privileges" comment:"--security-opt no-new-privileges: no program gains rights by set-user-ID bits or capabilities of its file"`
	LogDriver    string   `toml:"log-driver" of:"json-file local none fluentd gelf journald syslog" comment:"--log-driver"`
	LogOpts      []string `toml:"log-opts" comment:"--log-opt, NAME=VALUE each, for containers that name no log driver of their own: \"max-size=10m\""`
	CDISpecDirs  []string `toml:"cdi-spec-dirs" comment:"where vendors describe the devices that --device VENDOR.COM/CLASS=NAME gives; none: there are none"`
}

// Builds is how images are built.
type Builds struct {
	Dates    string   `toml:"dates" of:"fixed kept" comment:"of files that a build makes or copies: fixed, all the same, so that the same sources make the same image whenever they are built; kept, as they are"`
	CacheMax Amount   `toml:"cache-max" comment:"most that the build cache takes: percent of the file system, or bytes"`
	CacheAge Duration `toml:"cache-age" comment:"what builds have not used for so long goes from the cache"`

	Entitlements []string `toml:"entitlements" comment:"what a build may have that its client allows it (--allow): network.host, the host's network; device, devices that cdi-spec-dirs describe; security.insecure, steps with all rights, which are as good as root's on the host"`
	Frontends    string   `toml:"frontends" of:"own all" comment:"which a # syntax= line may name: own, docker/dockerfile only, which is linked in; all, also programs of images, which run as sandboxed steps and write the build"`
}

// Entitlements are what builds.entitlements can name.
func Entitlements() []string { return []string{"network.host", "device", "security.insecure"} }

// Default is what holds without a file.
func Default() Settings {
	return Settings{
		Engine:   Engine{Root: "/var/lib/wherry", State: "/run/wherry", Hosts: []string{}, LogLevel: slog.LevelInfo},
		Audit:    Audit{Enabled: true, Sync: "second", MaxSize: Bytes(128e6)},
		Store:    Store{Layers: "auto", KeepBlobs: true},
		CleanUp:  CleanUp{Measure: "file-system", High: Percent(85), Low: Percent(70), MinAge: Day, Every: Hour / 4, OnFullDisk: true, Keep: []string{}},
		Registry: Registry{Insecure: []string{}},
		Network:  Network{Pools: []string{}, Publish: "all", Bridge: []string{}, Range: []string{}, Options: []string{}, DNS: []string{}, DNSSearch: []string{}, DNSOptions: []string{}},
		Containers: Containers{IpcMode: "private", CgroupnsMode: "private", ShmSize: "64m", Ulimits: []string{}, LogDriver: "json-file", LogOpts: []string{},
			CDISpecDirs: []string{"/etc/cdi", "/var/run/cdi"}},
		Builds: Builds{Dates: "fixed", CacheMax: Percent(10), CacheAge: 30 * Day, Entitlements: []string{"network.host", "device"}, Frontends: "own"},
	}
}

// Read reads the file at path; "" means the one at Path, if there is one.
func Read(path string) (Settings, error) {
	named := path != ""
	if !named {
		path = Path
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !named {
		return Default(), nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read settings: %w", err)
	}
	return Parse(path, b)
}

// Parse reads a file's text. Its error has a line for each mistake, with the file's name, the line, and the key.
func Parse(name string, text []byte) (Settings, error) {
	if err := unquoted(name, text); err != nil {
		return Settings{}, err
	}
	s := Default()
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Settings{}, explain(name, err)
	}
	if key, wrong := s.check(); wrong != "" {
		return Settings{}, fmt.Errorf("%s%s: %s: %s", name, line(text, key), key, wrong)
	}
	return s, nil
}

// check holds settings against the words that they may be, and against each other.
func (s *Settings) check() (key, wrong string) {
	v := reflect.ValueOf(s).Elem()
	for _, group := range reflect.VisibleFields(v.Type()) {
		for _, f := range reflect.VisibleFields(group.Type) {
			words := strings.Fields(f.Tag.Get("of"))
			if word := v.FieldByIndex(group.Index).FieldByIndex(f.Index).String(); len(words) > 0 && !slices.Contains(words, word) {
				return group.Tag.Get("toml") + "." + f.Tag.Get("toml"), fmt.Sprintf("%q is none of %s", word, strings.Join(words, ", "))
			}
		}
	}
	c := s.CleanUp
	switch {
	case c.High.percent != c.Low.percent:
		return "clean-up.high", fmt.Sprintf("it is %s, and clean-up.low is %s: give both in percent, or both in bytes", c.High, c.Low)
	case c.High.n < c.Low.n:
		return "clean-up.low", fmt.Sprintf("%s is more than clean-up.high, %s: cleaning begins above that one and ends below this", c.Low, c.High)
	case s.Audit.MaxSize.percent || s.Audit.MaxSize.n < 1e6:
		return "audit.max-size", fmt.Sprintf("it is %s: give bytes, a megabyte at least", s.Audit.MaxSize)
	case c.Every < Minute:
		return "clean-up.every", fmt.Sprintf("%s: a minute is the least", c.Every)
	}
	for _, check := range []func() (key, wrong string){s.Containers.check, s.Network.check, s.Registry.check} {
		if key, wrong := check(); wrong != "" {
			return key, wrong
		}
	}
	for _, word := range s.Builds.Entitlements {
		if words := Entitlements(); !slices.Contains(words, word) {
			return "builds.entitlements", fmt.Sprintf("%q is none of %s", word, strings.Join(words, ", "))
		}
	}
	return "", ""
}

// line finds where a key, group.key, is set. "" where it has its default.
func line(text []byte, key string) (at string) {
	walk(text, func(k string, n int, _ unstable.Kind) {
		if k == key {
			at = fmt.Sprintf(":%d", n)
		}
	})
	return at
}

// walk goes through the settings of a text, as far as it is TOML.
func walk(text []byte, each func(key string, line int, kind unstable.Kind)) {
	var p unstable.Parser
	p.Reset(text)
	var visit func(group []string, e *unstable.Node) []string
	visit = func(group []string, e *unstable.Node) []string {
		path, at := slices.Clone(group), -1
		for k := e.Key(); k.Next(); path = append(path, string(k.Node().Data)) {
			if at < 0 {
				at = int(k.Node().Raw.Offset)
			}
		}
		if e.Kind != unstable.KeyValue {
			return path
		}
		if e.Value().Kind == unstable.InlineTable {
			for c := e.Value().Children(); c.Next(); {
				visit(path, c.Node())
			}
		}
		each(strings.Join(path, "."), 1+bytes.Count(text[:at], []byte("\n")), e.Value().Kind)
		return group
	}
	var group []string
	for p.NextExpression() {
		if e := p.Expression(); e.Kind == unstable.KeyValue {
			visit(group, e)
		} else {
			group = visit(nil, e)
		}
	}
}

// unquoted finds a number where a value is written with a unit, as text: the decoder would take 30 for 30 nanoseconds.
func unquoted(name string, text []byte) (err error) {
	words := map[string]bool{}
	for _, group := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		for _, f := range reflect.VisibleFields(group.Type) {
			words[group.Tag.Get("toml")+"."+f.Tag.Get("toml")] = reflect.PointerTo(f.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		}
	}
	walk(text, func(key string, line int, kind unstable.Kind) {
		if words[key] && kind != unstable.String {
			err = errors.Join(err, fmt.Errorf("%s:%d: %s: write its value in quotes, with its unit", name, line, key))
		}
	})
	return err
}

func explain(name string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: %s: there is no such setting; %s", name, line, dotted(e.Key()), known(e.Key())))
		}
		return errors.Join(all...)
	}
	var wrong *toml.DecodeError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", name, err)
	}
	line, _ := wrong.Position()
	text := strings.TrimPrefix(strings.TrimPrefix(wrong.Error(), "toml: "), "cannot decode TOML ")
	if len(wrong.Key()) > 0 {
		if kind := kindOf(wrong.Key()); kind != "" && strings.Contains(text, "into struct field") {
			text = kind
		}
		text = dotted(wrong.Key()) + ": " + text
	}
	return fmt.Errorf("%s:%d: %s", name, line, text)
}

func dotted(key toml.Key) string { return strings.Join(key, ".") }

// kindOf says what value a setting has, "" for none that is known.
func kindOf(key toml.Key) string {
	t := reflect.TypeFor[Settings]()
	for _, part := range key {
		if t.Kind() != reflect.Struct {
			return ""
		}
		i := slices.IndexFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("toml") == part })
		if i < 0 {
			return ""
		}
		t = reflect.VisibleFields(t)[i].Type
	}
	switch t.Kind() {
	case reflect.Bool:
		return "it is true or false, without quotes"
	case reflect.String:
		return `it is a text, in quotes`
	case reflect.Slice:
		return `it is a list, such as ["one", "two"]`
	case reflect.Struct:
		return "it is a group of settings: write [" + dotted(key) + "] on a line of its own, and its settings below"
	}
	return ""
}

// known lists the keys that stand where an unknown one was written.
func known(key toml.Key) string {
	t, group := reflect.TypeFor[Settings](), ""
	if len(key) > 1 {
		for _, f := range reflect.VisibleFields(t) {
			if f.Tag.Get("toml") == key[0] {
				t, group = f.Type, key[0]
			}
		}
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		names = append(names, f.Tag.Get("toml"))
	}
	if group == "" {
		return "groups are " + strings.Join(names, ", ")
	}
	return group + " has " + strings.Join(names, ", ")
}

// Keys are all settings, as group.key.
func Keys() (all []string) {
	for _, group := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		for _, f := range reflect.VisibleFields(group.Type) {
			all = append(all, group.Tag.Get("toml")+"."+f.Tag.Get("toml"))
		}
	}
	return all
}

// Write writes settings as a file that has all of them.
func (s Settings) Write(w io.Writer) error {
	b, err := toml.Marshal(s)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}
