package container

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/settings"
)

// checked runs the checks of a creation on a configuration.
func checked(c container.Config, h container.HostConfig) error {
	if len(c.Cmd) == 0 {
		c.Cmd = []string{"true"}
	}
	v := validation{config: &c, host: withDefaults(&h), cpus: 2, nodes: 1}
	return v.check()
}

// TestVersionTwoDiscards: what only version 1 has is left out with a word on hosts without, and kept on hosts that have it.
func TestVersionTwoDiscards(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		swappiness, disable := int64(50), true
		r := container.Resources{Memory: 64 << 20, MemorySwappiness: &swappiness, OomKillDisable: &disable}
		v := validation{config: &container.Config{Cmd: []string{"true"}}, host: withDefaults(&container.HostConfig{Resources: r}), cpus: 2, nodes: 1, v2: v2}
		if err := v.check(); err != nil {
			t.Fatal(err)
		}
		kept := v.host.MemorySwappiness != nil && v.host.OomKillDisable != nil
		if kept == v2 || (len(v.warnings) == 2) != v2 {
			t.Errorf("version 2 alone: %v; kept %v, warnings %q", v2, kept, v.warnings)
		}
	}
}

// TestUnsaidSwappiness: the docker command sends -1 when nothing is said; inspect shows none then.
func TestUnsaidSwappiness(t *testing.T) {
	for sent, want := range map[int64]bool{-1: false, 0: true, 60: true} {
		h := withDefaults(&container.HostConfig{Resources: container.Resources{MemorySwappiness: &sent}})
		if (h.MemorySwappiness != nil) != want {
			t.Errorf("%d: %v", sent, h.MemorySwappiness)
		}
	}
}

// TestUnlabelled: Docker shows of what joins the host's processes that SELinux labels nothing of it, once, unless a label was asked for.
func TestUnlabelled(t *testing.T) {
	for _, row := range []struct {
		h    container.HostConfig
		want string
	}{
		{container.HostConfig{Privileged: true}, "label=disable"}, {container.HostConfig{PidMode: "host"}, "label=disable"}, {container.HostConfig{IpcMode: "host"}, "label=disable"},
		{container.HostConfig{NetworkMode: "host"}, ""}, {container.HostConfig{Privileged: true, SecurityOpt: []string{"label=type:x"}}, "label=type:x"},
		{container.HostConfig{Privileged: true, SecurityOpt: []string{"seccomp=unconfined"}}, "seccomp=unconfined label=disable"},
	} {
		h := withDefaults(withDefaults(&row.h))
		if got := strings.Join(h.SecurityOpt, " "); got != row.want {
			t.Errorf("%+v: %q, want %q", row.h, got, row.want)
		}
	}
}

// TestNoKillerNoLimit: a container that the kernel may not kill for want of memory, and that may take all of it, is worth a word.
func TestNoKillerNoLimit(t *testing.T) {
	disable := true
	for memory, want := range map[int64]int{0: 1, 64 << 20: 0} {
		h := container.HostConfig{Resources: container.Resources{Memory: memory, OomKillDisable: &disable}}
		v := validation{config: &container.Config{Cmd: []string{"true"}}, host: withDefaults(&h), cpus: 2, nodes: 1}
		if err := v.check(); err != nil || len(v.warnings) != want || v.host.OomKillDisable == nil {
			t.Errorf("a limit of %d: %q, %v", memory, v.warnings, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	limits := func(r container.Resources) container.HostConfig { return container.HostConfig{Resources: r} }
	low, twenty := int64(-1), int64(200)
	volumes := map[string]struct{}{}
	for i := range 2000 {
		volumes[fmt.Sprint("/", i)] = struct{}{}
	}
	labels := map[string]string{}
	for i := range 5000 {
		labels[fmt.Sprint(i)] = ""
	}
	zero := -5
	for want, row := range map[string]struct {
		c container.Config
		h container.HostConfig
	}{
		"needs to be an absolute path":                {c: container.Config{WorkingDir: "relative"}},
		"a name is needed before =":                   {c: container.Config{Env: []string{"=x"}}},
		"1024 are the most":                           {c: container.Config{Volumes: volumes}},
		"5000 labels of":                              {c: container.Config{Labels: labels}},
		"1 labels of 2097153 bytes":                   {c: container.Config{Labels: map[string]string{"x": strings.Repeat("x", 2<<20)}}},
		"block I/O is null":                           {h: limits(container.Resources{BlkioDeviceWriteIOps: []*blkiodev.ThrottleDevice{nil}})},
		"I/O is null: give the path":                  {h: limits(container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{nil}})},
		"argument with a zero byte":                   {c: container.Config{Cmd: []string{"a\x00b"}}},
		"has a zero byte":                             {c: container.Config{Env: []string{"A=\x00"}}},
		"did you mean TERM":                           {c: container.Config{StopSignal: "TERMM"}},
		"stop timeout -5":                             {c: container.Config{StopTimeout: &zero}},
		"63 is the most":                              {c: container.Config{Hostname: strings.Repeat("x", 64)}},
		"only letters, digits":                        {c: container.Config{Hostname: "a b"}},
		"Interval in Healthcheck":                     {c: container.Config{Healthcheck: &container.HealthConfig{Interval: time.Microsecond}}},
		"Retries in Healthcheck":                      {c: container.Config{Healthcheck: &container.HealthConfig{Retries: -1}}},
		"use CMD, CMD-SHELL or NONE":                  {c: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"RUN", "x"}}}},
		"invalid IPC mode":                            {h: container.HostConfig{IpcMode: "shared"}},
		"invalid PID mode":                            {h: container.HostConfig{PidMode: "mine"}},
		"invalid UTS mode":                            {h: container.HostConfig{UTSMode: "mine"}},
		"invalid userns mode":                         {h: container.HostConfig{UsernsMode: "mine"}},
		"invalid cgroup namespace mode":               {h: container.HostConfig{CgroupnsMode: "mine"}},
		"invalid container format container:<name":    {h: container.HostConfig{NetworkMode: "container"}},
		"port publishing and the container":           {h: container.HostConfig{NetworkMode: "container:x", PortBindings: network.PortMap{network.MustParsePort("80/tcp"): nil}}},
		"dns and the network mode":                    {h: container.HostConfig{NetworkMode: "container:x", DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1")}}},
		"--storage-opt is not supported":              {h: container.HostConfig{StorageOpt: map[string]string{"size": "1g"}}},
		"unknown or invalid runtime":                  {h: container.HostConfig{Runtime: "kata"}},
		"SHM size":                                    {h: container.HostConfig{ShmSize: -1}},
		"oom score adj":                               {h: container.HostConfig{OomScoreAdj: 1001}},
		"write NAME:ADDRESS":                          {h: container.HostConfig{ExtraHosts: []string{"name"}}},
		"--dns-option \"a\\nb\": it has a line break": {h: container.HostConfig{DNSOptions: []string{"a\nb"}}},
		"--dns-search \"a\\nb\": it has a line break": {h: container.HostConfig{DNSSearch: []string{"a\nb"}}},
		"--add-host \"a\\nb:1.1.1.1\": it has":        {h: container.HostConfig{ExtraHosts: []string{"a\nb:1.1.1.1"}}},
		"--domainname \"a\\nb\": it has a line break": {c: container.Config{Domainname: "a\nb"}},
		"could not select device driver \"nvidia\"":   {h: limits(container.Resources{DeviceRequests: []container.DeviceRequest{{Driver: "nvidia"}}})},
		"choose --rm or --restart":                    {h: container.HostConfig{AutoRemove: true, RestartPolicy: container.RestartPolicy{Name: "always"}}},
		"invalid restart policy":                      {h: container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "sometimes"}}},
		"did you mean nofile":                         {h: limits(container.Resources{Ulimits: []*units.Ulimit{{Name: "nofil"}}})},
		"less than or equal to the hard":              {h: limits(container.Resources{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}})},
		"not in a separate namespace":                 {h: container.HostConfig{Sysctls: map[string]string{"vm.swappiness": "1"}}},
		"host's network: it would":                    {h: container.HostConfig{NetworkMode: "host", Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}},
		"use --domainname or --hostname":              {h: container.HostConfig{Sysctls: map[string]string{"kernel.hostname": "x"}}},
		"NET_ADMIN":                                   {h: container.HostConfig{CapAdd: []string{"NET_ADMN"}}},
		"are the engine's own":                        {h: container.HostConfig{Annotations: map[string]string{"dev.wherry.root.nosuid": "false"}}},
		"did you mean seccomp":                        {h: container.HostConfig{SecurityOpt: []string{"secomp=unconfined"}}},
		"a host port is a number":                     {h: container.HostConfig{PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "99999"}}}}},
		"Minimum memory limit":                        {h: limits(container.Resources{Memory: 1024})},
		"set the Memory limit":                        {h: limits(container.Resources{MemorySwap: 1 << 30})},
		"larger than memory limit":                    {h: limits(container.Resources{Memory: 1 << 30, MemorySwap: 1 << 29})},
		"swappiness range":                            {h: limits(container.Resources{MemorySwappiness: &twenty})},
		"reservation allowed":                         {h: limits(container.Resources{MemoryReservation: 1})},
		"only 2 CPUs available":                       {h: limits(container.Resources{NanoCPUs: 3e9})},
		"CPU Period cannot both":                      {h: limits(container.Resources{NanoCPUs: 1e9, CPUPeriod: 1000})},
		"CPU Quota cannot both":                       {h: limits(container.Resources{NanoCPUs: 1e9, CPUQuota: 1000})},
		"period can not be less":                      {h: limits(container.Resources{CPUPeriod: 1})},
		"quota can not be less":                       {h: limits(container.Resources{CPUQuota: 1})},
		"CPU shares":                                  {h: limits(container.Resources{CPUShares: -1})},
		"blkio weight":                                {h: limits(container.Resources{BlkioWeight: 1})},
		"hold its limits":                             {h: container.HostConfig{SecurityOpt: []string{"writable-cgroups=true"}}},
		"writable-cgroups is true or false":           {h: container.HostConfig{SecurityOpt: []string{"writable-cgroups=1"}}},
		"write it as 0-2":                             {h: limits(container.Resources{CpusetCpus: "a-b"})},
		"Invalid value 0-99,, for cpuset cpus":        {h: limits(container.Resources{CpusetCpus: "0-99,,"})},
		"Requested CPUs are not available":            {h: limits(container.Resources{CpusetCpus: "0-9"})},
		"memory nodes are not available - requested 5, available: 0": {h: limits(container.Resources{CpusetMems: "5"})},
		"more than the limit of 10MiB":                               {h: limits(container.Resources{Memory: 10 << 20, MemoryReservation: 20 << 20})},
		"c 10:200 rwm":                                               {h: limits(container.Resources{DeviceCgroupRules: []string{"x"}})},
	} {
		err := checked(row.c, row.h)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := checked(container.Config{StopSignal: "SIGRTMIN+3", Hostname: "a.b"}, container.HostConfig{IpcMode: "host", Sysctls: map[string]string{"net.core.somaxconn": "5"},
		Resources: container.Resources{Memory: 1 << 30, MemorySwap: -1, NanoCPUs: 15e8, CpusetCpus: "0,1", PidsLimit: &low}}); err != nil {
		t.Error(err)
	}
}

func TestMerge(t *testing.T) {
	img := &dockerspec.DockerOCIImage{}
	img.Config.Entrypoint, img.Config.Cmd, img.Config.User, img.Config.WorkingDir, img.Config.StopSignal = []string{"entry"}, []string{"arg"}, "web", "/srv", "SIGINT"
	img.Config.Env, img.Config.Labels = []string{"A=image", "B=image", "C=image"}, map[string]string{"l": "image", "m": "image"}
	img.Config.ExposedPorts, img.Config.Volumes = map[string]struct{}{"80/tcp": {}, "53/udp": {}, "nonsense": {}}, map[string]struct{}{"/v": {}}
	img.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "image"}, Interval: time.Second, Retries: 7}
	for _, row := range []struct {
		entrypoint, cmd, want []string
	}{
		{nil, nil, []string{"entry", "arg"}},
		{nil, []string{"mine"}, []string{"entry", "mine"}},
		{[]string{"own"}, nil, []string{"own"}},
		{[]string{"own"}, []string{"mine"}, []string{"own", "mine"}},
		{[]string{""}, []string{"mine"}, []string{"mine"}},
		{[]string{""}, nil, nil},
	} {
		c := merge(&container.Config{Entrypoint: row.entrypoint, Cmd: row.cmd}, img)
		if got := slices.Concat([]string(c.Entrypoint), []string(c.Cmd)); !slices.Equal(got, row.want) {
			t.Errorf("%v %v: %v, want %v", row.entrypoint, row.cmd, got, row.want)
		}
	}
	c := merge(&container.Config{Env: []string{"B=user", "C", "D=user"}, Labels: map[string]string{"l": "user"}, User: "root", Healthcheck: &container.HealthConfig{Retries: 2},
		ExposedPorts: network.PortSet{network.MustParsePort("99/tcp"): {}}}, img)
	if want := []string{"B=user", "C", "D=user", "A=image"}; !slices.Equal(c.Env, want) {
		t.Errorf("env %v, want %v", c.Env, want)
	}
	if !reflect.DeepEqual(c.Labels, map[string]string{"l": "user", "m": "image"}) || c.User != "root" || c.WorkingDir != "/srv" || c.StopSignal != "SIGINT" || len(c.ExposedPorts) != 3 || len(c.Volumes) != 1 {
		t.Errorf("%+v", c)
	}
	if h := c.Healthcheck; h.Test[1] != "image" || h.Interval != time.Second || h.Retries != 2 {
		t.Errorf("%+v", h)
	}
	if h := merge(&container.Config{Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}}, img).Healthcheck; h.Test[0] != "NONE" || checkOf(&container.Config{Healthcheck: h}) != nil {
		t.Errorf("%+v", h)
	}
	if img.Config.Labels["l"] != "image" || len(img.Config.Env) != 3 {
		t.Error("the image's configuration was written to")
	}
}

// TestExposedPortsAreBounded: of a few lines in an image's configuration no millions of ports are made.
func TestExposedPortsAreBounded(t *testing.T) {
	all := map[string]struct{}{"1-65535/tcp": {}, "1-65535/udp": {}, "1-65535/SCTP": {}}
	if got := exposed(all, nil); len(got) != 3*65535 {
		t.Errorf("%d ports", len(got))
	}
	for i := range 1000 {
		all[fmt.Sprintf("1-65535/p%d", i)] = struct{}{}
	}
	if got := exposed(all, nil); len(got) != 3*65535 {
		t.Errorf("%d ports of made-up protocols, too", len(got)-3*65535)
	}
	all = map[string]struct{}{}
	for i := range 1000 {
		all[fmt.Sprintf("%d-65535", i+1)] = struct{}{}
	}
	if got := exposed(all, nil); len(got) > maxExposed {
		t.Errorf("%d ports", len(got))
	}
	counted := 0
	for range exposed(map[string]struct{}{"80": {}, "81-82/udp": {}, "80/icmp": {}}, network.PortSet{network.MustParsePort("80"): {}}) {
		counted++
	}
	if counted != 3 {
		t.Errorf("%d ports, not three", counted)
	}
}

func TestParseMounts(t *testing.T) {
	for text, want := range map[string]string{
		"vol:/a": "volume vol /a", "/host:/a:ro": "bind /host /a ro", "/host/../h:/a/../b": "bind /h /b", "vol:/a:nocopy": "volume vol /a", "/h:/a:rshared,ro": "bind /h /a ro",
		"/a": "-", "": "-", ":/a": "-", "vol:": "-", "vol:/": "-", "vol:rel": "-", "v!l:/a": "-", "/h:/a:rw:x": "-", "/h:/a:r0": "-", "vol:/a:rshared": "-", "/h:/a:nocopy": "-",
		"vol:/a:ro,rw": "-", "vol:/a:z,Z": "-", "/h:/a:rshared,rslave": "-", "/h:/a:,": "bind /h /a",
	} {
		m, err := parseBind(text)
		got := "-"
		if err == nil {
			got = string(m.Type) + " " + m.Name + m.Source + " " + m.Destination
			if m.ReadOnly {
				got += " ro"
			}
		}
		if got != want || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
	there := t.TempDir()
	for _, row := range []struct {
		q    mount.Mount
		want string // "": accepted
	}{
		{mount.Mount{Type: "bind", Source: there, Target: "/a", ReadOnly: true}, ""},
		{mount.Mount{Type: "bind", Source: there + "/nothing", Target: "/a"}, "does not exist"},
		{mount.Mount{Type: "bind", Source: there + "/nothing", Target: "/a", BindOptions: &mount.BindOptions{CreateMountpoint: true}}, ""},
		{mount.Mount{Type: "bind", Source: "relative", Target: "/a"}, "must be absolute"},
		{mount.Mount{Type: "bind", Target: "/a"}, "Source must not be empty"},
		{mount.Mount{Type: "bind", Source: there, Target: "/a", BindOptions: &mount.BindOptions{Propagation: "odd"}}, "propagation"},
		{mount.Mount{Type: "bind", Source: there, Target: "/a", VolumeOptions: &mount.VolumeOptions{}}, "field VolumeOptions must not be specified"},
		{mount.Mount{Type: "bind", Source: there, Target: "/a", TmpfsOptions: &mount.TmpfsOptions{}}, "field TmpfsOptions must not be specified"},
		{mount.Mount{Type: "bind", Source: there}, "Target must not be empty"},
		{mount.Mount{Type: "volume", Target: "/a"}, ""},
		{mount.Mount{Type: "volume", Source: "a/b", Target: "/a"}, "invalid characters"},
		{mount.Mount{Type: "volume", Target: "/a", VolumeOptions: &mount.VolumeOptions{Subpath: "x"}}, "anonymous"},
		{mount.Mount{Type: "tmpfs", Target: "/a", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o700, Options: [][]string{{"exec"}}}}, ""},
		{mount.Mount{Type: "tmpfs", Target: "/a", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: -1}}, "negative"},
		{mount.Mount{Type: "tmpfs", Target: "/a", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"sise", "1"}}}}, "did you mean size"},
		{mount.Mount{Type: "tmpfs", Source: "x", Target: "/a"}, "must not be specified"},
		{mount.Mount{Type: "cluster", Source: "x", Target: "/a"}, "mount type unknown"},
	} {
		_, err := parseMount(row.q)
		if row.want == "" && err != nil || row.want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%+v: %v, want %q", row.q, err, row.want)
		}
	}
}

func TestDevices(t *testing.T) {
	at := func(host, inside, access string) container.HostConfig {
		return container.HostConfig{Resources: container.Resources{Devices: []container.DeviceMapping{{PathOnHost: host, PathInContainer: inside, CgroupPermissions: access}}}}
	}
	h := at("/dev/null", "/dev/nothing", "r")
	devices, rules, err := devicesOf(&h)
	if err != nil || len(devices) != 1 || devices[0].Path != "/dev/nothing" || devices[0].Major != 1 || devices[0].Minor != 3 || rules[0].Access != "r" || !rules[0].Allow {
		t.Errorf("%+v %+v %v", devices, rules, err)
	}
	for want, h := range map[string]container.HostConfig{"letters of r, w and m": at("/dev/null", "", "x"), "gathering device": at("/dev/no-such", "", ""), "not a device node": at("/etc/passwd", "", ""), "nor a folder with devices": at("/etc", "", "")} {
		if _, _, err := devicesOf(&h); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	all, _, err := devicesOf(&container.HostConfig{Privileged: true})
	if err != nil || len(all) < 5 {
		t.Errorf("privileged: %d devices, %v", len(all), err)
	}
	for _, d := range all {
		if strings.HasPrefix(d.Path, "/dev/pts") || d.Path == "/dev/console" {
			t.Errorf("%s is the container's own", d.Path)
		}
	}
	var block string
	for _, d := range all {
		if d.Type == "b" {
			block = d.Path
		}
	}
	if block != "" {
		rate := []*blkiodev.ThrottleDevice{{Path: block, Rate: 5}}
		b, err := blockIO(&container.Resources{BlkioWeight: 100, BlkioDeviceReadBps: rate, BlkioDeviceWriteIOps: rate, BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: block, Weight: 20}}})
		if err != nil || *b.Weight != 100 || len(b.WeightDevice) != 1 || b.ThrottleReadBpsDevice[0].Rate != 5 || b.ThrottleWriteIOPSDevice[0].Major != b.WeightDevice[0].Major {
			t.Errorf("%+v %v", b, err)
		}
	}
	if _, err := blockIO(&container.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/dev/null", Rate: 1}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no block device: %v", err)
	}
	if b, err := blockIO(&container.Resources{}); b != nil || err != nil {
		t.Errorf("nothing asked: %+v %v", b, err)
	}
}

func TestUntil(t *testing.T) {
	for _, text := range []string{"24h", "2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05Z", "1136214245", "1136214245.5"} {
		if when, err := untilTime(text); err != nil || when.After(time.Now()) || when.Year() < 2006 {
			t.Errorf("%q: %s %v", text, when, err)
		}
	}
	if _, err := untilTime("yesterday"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("yesterday: %v", err)
	}
}

// FuzzRecord: whatever stands in a record's file, an engine starts, and what it takes is complete.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"ID":"x","Name":"n","Config":{},"HostConfig":{},"Status":"running"}`))
	f.Add([]byte(`{"ID":"x","Name":"n","Config":{},"HostConfig":{},"Status":"lost"}`))
	f.Add([]byte(`{"Image":{"Lower":[1]}}`))
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		root := t.TempDir()
		dir := filepath.Join(root, "x")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, recordFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		left, err := readRecords(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range left.records {
			if r.ID != "x" || r.Name == "" || r.Config == nil || r.HostConfig == nil || transitions[r.Status] == nil {
				t.Errorf("taken: %+v", r)
			}
		}
		if len(left.records) == 0 && len(left.damaged) == 0 {
			t.Error("it is neither taken nor named")
		}
	})
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"a:/b", "/a:/b:ro", "::", "/a:/../b:z,Z", "\x00:/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseBind(s)
		if err == nil && (!filepath.IsAbs(m.Destination) || m.Destination == "/" || m.Destination != filepath.Clean(m.Destination) || (m.Name == "") == (m.Source == "")) {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

// TestSettings: what the engine's settings say holds for containers that do not say it.
func TestSettings(t *testing.T) {
	set := settings.Containers{IpcMode: "shareable", CgroupnsMode: "host", ShmSize: "1g", Init: true, Ulimits: []string{"nofile=100:200", "core=0"}, NoNewPrivs: true,
		LogDriver: "local", LogOpts: []string{"max-size=1m", "max-file=2"}}
	plain := container.HostConfig{}
	fillIn(&plain, &set)
	if plain.IpcMode != "shareable" || plain.CgroupnsMode != "host" || plain.ShmSize != 1<<30 || plain.Init == nil || !*plain.Init || len(plain.Ulimits) != 2 || !slices.Equal(plain.SecurityOpt, []string{"no-new-privileges"}) ||
		plain.LogConfig.Type != "local" || plain.LogConfig.Config["max-size"] != "1m" {
		t.Errorf("nothing said: %+v", plain)
	}
	no := false
	own := container.HostConfig{IpcMode: "private", CgroupnsMode: "private", ShmSize: 1 << 20, Init: &no, LogConfig: container.LogConfig{Type: "json-file"}, SecurityOpt: []string{"no-new-privileges=false"},
		Resources: container.Resources{Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 5, Hard: 5}}}}
	fillIn(&own, &set)
	if own.IpcMode != "private" || own.CgroupnsMode != "private" || own.ShmSize != 1<<20 || *own.Init || own.LogConfig.Type != "json-file" || len(own.LogConfig.Config) != 0 || len(own.SecurityOpt) != 1 ||
		len(own.Ulimits) != 2 || own.Ulimits[0].Hard != 5 || own.Ulimits[1].Name != "core" {
		t.Errorf("all said: %+v", own)
	}
}
