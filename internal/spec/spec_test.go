package spec

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func input() Input {
	return Input{ID: "id", Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{}, Base: 1 << 20, Size: 65536, CgroupPath: "/wherry/id"}
}

func build(t *testing.T, change func(*Input)) *specs.Spec {
	t.Helper()
	in := input()
	if change != nil {
		change(&in)
	}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func namespaceKinds(s *specs.Spec) string {
	var out []string
	for _, n := range s.Linux.Namespaces {
		out = append(out, string(n.Type)+n.Path)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestNamespaces(t *testing.T) {
	rows := map[string]struct {
		change func(*Input)
		want   string
	}{
		"default":      {nil, "cgroup ipc mount network pid user uts"},
		"host users":   {func(in *Input) { in.Size = 0 }, "cgroup ipc mount network pid uts"},
		"host network": {func(in *Input) { in.HostConfig.NetworkMode = "host" }, "cgroup ipc mount pid user uts"},
		"host pid":     {func(in *Input) { in.HostConfig.PidMode = "host" }, "cgroup ipc mount network user uts"},
		"host ipc":     {func(in *Input) { in.HostConfig.IpcMode = "host" }, "cgroup mount network pid user uts"},
		"host uts":     {func(in *Input) { in.HostConfig.UTSMode = "host" }, "cgroup ipc mount network pid user"},
		"host cgroup":  {func(in *Input) { in.HostConfig.CgroupnsMode = "host" }, "ipc mount network pid user uts"},
		"joined": {func(in *Input) {
			in.Joined = map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "/proc/7/ns/net"}
		},
			"cgroup ipc mount network/proc/7/ns/net pid user uts"},
	}
	for name, row := range rows {
		if got := namespaceKinds(build(t, row.change)); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	s := build(t, nil)
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 20, Size: 65536}}
	if !reflect.DeepEqual(s.Linux.UIDMappings, want) || !reflect.DeepEqual(s.Linux.GIDMappings, want) {
		t.Errorf("%+v %+v", s.Linux.UIDMappings, s.Linux.GIDMappings)
	}
}

func TestCommand(t *testing.T) {
	yes := true
	rows := map[string]struct {
		entrypoint, cmd []string
		init            *bool
		want            []string
	}{
		"cmd":        {nil, []string{"a", "b"}, nil, []string{"a", "b"}},
		"entrypoint": {[]string{"e"}, []string{"a"}, nil, []string{"e", "a"}},
		"init":       {[]string{"e"}, nil, &yes, []string{InitPath, "init", "--", "e"}},
	}
	for name, row := range rows {
		s := build(t, func(in *Input) {
			in.Config.Entrypoint, in.Config.Cmd, in.HostConfig.Init, in.Oar = row.entrypoint, row.cmd, row.init, "/usr/bin/oar"
		})
		if !slices.Equal(s.Process.Args, row.want) {
			t.Errorf("%s: %q", name, s.Process.Args)
		}
		if shown := slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == InitPath && m.Source == "/usr/bin/oar" }); shown != (row.init != nil) {
			t.Errorf("%s: init is mounted: %v", name, shown)
		}
	}
	in := input()
	in.Config.Cmd = nil
	if _, err := Build(in); err == nil || !strings.Contains(err.Error(), "no command specified") {
		t.Errorf("no command: %v", err)
	}
	in.Config.Entrypoint = []string{"e"}
	if _, err := Build(in); err != nil || len(in.Config.Entrypoint) != 1 {
		t.Errorf("%v", err)
	}
}

func TestCapabilities(t *testing.T) {
	all := strings.Fields("CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE NET_RAW SYS_CHROOT SETFCAP")
	rows := map[string]struct {
		add, drop []string
		o         CapabilityOptions
		want      []string
	}{
		"default":         {want: all},
		"strict":          {o: CapabilityOptions{Strict: true}, want: strings.Fields("CHOWN DAC_OVERRIDE FOWNER KILL SETGID SETUID")},
		"added":           {add: []string{"sys_time", "CAP_NET_ADMIN"}, want: strings.Fields("CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE NET_ADMIN NET_RAW SYS_CHROOT SYS_TIME SETFCAP")},
		"dropped":         {drop: []string{"CHOWN", "cap_net_raw"}, want: strings.Fields("DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE SYS_CHROOT SETFCAP")},
		"all dropped":     {drop: []string{"ALL"}},
		"only one":        {drop: []string{"all"}, add: []string{"CHOWN"}, want: []string{"CHOWN"}},
		"all":             {add: []string{"ALL"}, want: capabilityNames},
		"all but one":     {add: []string{"ALL"}, drop: []string{"CHOWN"}, want: capabilityNames[1:]},
		"privileged":      {o: CapabilityOptions{Privileged: true}, want: capabilityNames},
		"privileged, few": {o: CapabilityOptions{Privileged: true}, drop: []string{"ALL"}},
	}
	for name, row := range rows {
		got, err := Capabilities(row.add, row.drop, row.o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "CAP_")
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, bad := range [][2][]string{{{"NETADMIN"}, nil}, {nil, {"CAP_"}}, {{"ALL"}, {"ALL"}}} {
		if _, err := Capabilities(bad[0], bad[1], CapabilityOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := Capabilities([]string{"NETADMIN"}, nil, CapabilityOptions{}); !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("not the nearest: %v", err)
	}
	for uid, want := range map[uint32]int{0: len(all), 1000: 0} {
		c := build(t, func(in *Input) { in.User.UID = uid }).Process.Capabilities
		if len(c.Bounding) != len(all) || len(c.Effective) != want || len(c.Permitted) != want || len(c.Inheritable)+len(c.Ambient) != 0 {
			t.Errorf("user %d: %+v", uid, c)
		}
	}
}

func TestSecurityOptions(t *testing.T) {
	good := map[string]Security{
		"no-new-privileges": {NoNewPrivileges: true}, "no-new-privileges=true": {NoNewPrivileges: true}, "no-new-privileges:true": {NoNewPrivileges: true},
		"no-new-privileges=false": {}, "seccomp=unconfined": {Seccomp: "unconfined"}, "seccomp=builtin": {}, "seccomp:unconfined": {Seccomp: "unconfined"},
		"wherry=strict": {Strict: true}, "systempaths=unconfined": {Unmasked: true}, "apparmor=unconfined": {}, "label=disable": {}, "label:type:x": {},
	}
	for opt, want := range good {
		if got, err := ParseSecurity([]string{opt}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", opt, got, err)
		}
	}
	for _, opt := range []string{"", "nonsense", "no-new-privileges=maybe", "wherry=loose", "systempaths=x", "apparmor", "seccmp=unconfined"} {
		if _, err := ParseSecurity([]string{opt}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", opt, err)
		}
	}
	if _, err := ParseSecurity([]string{"seccmp=x"}); !strings.Contains(err.Error(), "did you mean seccomp?") {
		t.Errorf("not the nearest: %v", err)
	}
}

func TestConfinement(t *testing.T) {
	s := build(t, nil)
	if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) != len(MaskedPaths()) || len(s.Linux.ReadonlyPaths) != len(ReadonlyPaths()) || s.Process.NoNewPrivileges {
		t.Errorf("default: %+v", s.Linux)
	}
	s = build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{"wherry=strict"} })
	if !s.Process.NoNewPrivileges || s.Annotations[rootNoSuid] != "true" || len(s.Process.Capabilities.Bounding) != 6 {
		t.Errorf("strict: %+v", s.Process)
	}
	for _, m := range s.Mounts {
		if !slices.Contains(m.Options, "nosuid") {
			t.Errorf("strict: %s is not nosuid", m.Destination)
		}
	}
	for _, sc := range s.Linux.Seccomp.Syscalls {
		if slices.Contains(sc.Names, "socketcall") {
			t.Error("strict: socketcall")
		}
	}
	s = build(t, func(in *Input) { in.HostConfig.Privileged, in.Size = true, 0 })
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) != 0 || len(s.Process.Capabilities.Bounding) != len(capabilityNames) {
		t.Errorf("privileged: %+v", s.Linux)
	}
	s = build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{"systempaths=unconfined", "seccomp=unconfined"} })
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) != 0 {
		t.Errorf("unconfined: %+v", s.Linux)
	}
	s = build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`} })
	if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActAllow {
		t.Errorf("own profile: %+v", s.Linux.Seccomp)
	}
	in := input()
	in.HostConfig.SecurityOpt = []string{"seccomp={"}
	if _, err := Build(in); !errdefs.IsInvalidArgument(err) {
		t.Errorf("broken profile: %v", err)
	}
}

func TestMounts(t *testing.T) {
	find := func(s *specs.Spec, at string) *specs.Mount {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == at {
				return &s.Mounts[i]
			}
		}
		return nil
	}
	s := build(t, func(in *Input) {
		in.Hosts, in.ResolvConf = "/state/hosts", "/state/resolv"
		in.HostConfig.ShmSize = 4096
		in.Mounts = []Mount{
			{Type: mount.TypeBind, Source: "/b/c", Destination: "/a/b/c"}, {Type: mount.TypeVolume, Name: "v", Source: "/b", Destination: "/a", ReadOnly: true},
			{Type: mount.TypeTmpfs, Destination: "/t", Options: []string{"exec", "size=1m"}}, {Type: mount.TypeBind, Source: "/mine", Destination: "/etc/hosts", NonRecursive: true},
			{Type: mount.TypeBind, Source: "/s", Destination: "/slave", Propagation: mount.PropagationRSlave, Unmapped: true},
		}
	})
	rows := map[string]struct{ kind, source, options string }{
		"/a":               {"bind", "/b", "rbind ro rro rprivate"},
		"/a/b/c":           {"bind", "/b/c", "rbind rprivate"},
		"/t":               {"tmpfs", "tmpfs", "nosuid nodev exec size=1m"},
		"/etc/hosts":       {"bind", "/mine", "bind rprivate"},
		"/etc/resolv.conf": {"bind", "/state/resolv", "bind rprivate"},
		"/slave":           {"bind", "/s", "rbind rslave"},
		"/dev/shm":         {"tmpfs", "shm", "nosuid noexec nodev mode=1777 size=4096"},
		"/sys":             {"sysfs", "sysfs", "nosuid noexec nodev ro"},
	}
	for at, want := range rows {
		m := find(s, at)
		if m == nil || m.Type != want.kind || m.Source != want.source || strings.Join(m.Options, " ") != want.options {
			t.Errorf("%s: %+v", at, m)
		}
	}
	init := true
	if m := find(build(t, func(in *Input) { in.HostConfig.Init, in.Oar = &init, "/oar" }), InitPath); m == nil || m.UIDMappings != nil {
		t.Errorf("the runtime's binary: %+v", m)
	}
	if len(find(s, "/a").UIDMappings) != 1 || find(s, "/slave").UIDMappings != nil {
		t.Error("ids of binds are not mapped as asked for")
	}
	index := func(at string) int {
		return slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == at })
	}
	if index("/a") > index("/a/b/c") {
		t.Error("an outer mount comes after the inner one and would hide it")
	}
	if s.Linux.RootfsPropagation != "rslave" {
		t.Errorf("propagation of the root: %q", s.Linux.RootfsPropagation)
	}
	s = build(t, func(in *Input) { in.Mounts = []Mount{{Type: mount.TypeBind, Source: "/dev", Destination: "/dev"}} })
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/dev/") || m.Destination == "/dev" && m.Type != "bind" {
			t.Errorf("beside the user's /dev: %+v", m)
		}
	}
	in := input()
	in.Mounts = []Mount{{Type: "npipe", Destination: "/x"}}
	if _, err := Build(in); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a pipe of Windows: %v", err)
	}
}

func TestTmpfsOptions(t *testing.T) {
	for options, want := range map[string]string{"": "", "size=64m,mode=1777": "size=64m mode=1777", "rw,noexec,rprivate": "rw noexec"} {
		if got, err := ParseTmpfs(options); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v", options, got, err)
		}
	}
	for options, want := range map[string]string{
		"size=zz": "size=64m", "size": "size=64m", "ro,size=10mb": "size=64m", "size=-1": "size=64m", "size=%": "size=64m", "mode=rwx": "mode=1777", "mode=99": "octal",
		"mode=77777": "octal", "uid=root": "uid=1000", "nr_inodes=lots": "nr_inodes=10k",
	} {
		if _, err := ParseTmpfs(options); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", options, err)
		}
	}
	for _, options := range []string{"size=50%", "size=1G", "size=0", "size=4096", "nr_inodes=0", "uid=0,gid=4294967294", "mode=0755"} {
		if _, err := ParseTmpfs(options); err != nil {
			t.Errorf("%q: %v", options, err)
		}
	}
	if _, err := ParseTmpfs("sise=3"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "size") {
		t.Errorf("%v", err)
	}
}

func TestEnvironment(t *testing.T) {
	got := MergeEnv([]string{"PATH=/bin", "HOME=/", "TERM=xterm"}, []string{"HOME=/root", "NEW=1", "TERM", "NEW=2", "MISSING"})
	if want := "PATH=/bin HOME=/root NEW=2"; strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}

func TestLimits(t *testing.T) {
	p := func(v int64) *int64 { return &v }
	r := Resources(&container.Resources{Memory: 100, NanoCPUs: 1_500_000_000, CPUShares: 512, CpusetCpus: "0-1"}, nil)
	if *r.Memory.Limit != 100 || *r.Memory.Swap != 200 || *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || *r.CPU.Shares != 512 || r.CPU.Cpus != "0-1" || *r.Pids.Limit != DefaultPids {
		t.Errorf("%+v %+v %+v", r.Memory, r.CPU, r.Pids)
	}
	for given, want := range map[int64]int64{0: -1, -1: -1, -9: -1, 7: 7} {
		if got := Resources(&container.Resources{PidsLimit: p(given)}, nil); *got.Pids.Limit != want {
			t.Errorf("processes limited to %d become %d", given, *got.Pids.Limit)
		}
	}
	if r := Changes(&container.Resources{PidsLimit: p(0)}, nil); *r.Pids.Limit != -1 {
		t.Errorf("an update to no limit: %+v", r.Pids)
	}
	if r := Changes(&container.Resources{Memory: 5, MemorySwap: -1}, nil); r.Pids != nil || r.CPU != nil || *r.Memory.Swap != -1 {
		t.Errorf("an update changes what it does not name: %+v", r)
	}
	s := build(t, func(in *Input) {
		in.HostConfig.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 1 << 20, Hard: 1 << 20}, {Name: "core", Soft: 1, Hard: 2}}
		in.MaxRlimits = map[string]uint64{"RLIMIT_NOFILE": 4096}
	})
	want := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 4096, Soft: 4096}, {Type: "RLIMIT_CORE", Hard: 2, Soft: 1}}
	if !reflect.DeepEqual(s.Process.Rlimits, want) {
		t.Errorf("%+v", s.Process.Rlimits)
	}
}

func TestDeviceRules(t *testing.T) {
	s := build(t, func(in *Input) { in.DeviceRules = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c"}} })
	rules := s.Linux.Resources.Devices
	if rules[0].Allow || rules[0].Type != "a" || !reflect.DeepEqual(rules[len(rules)-1], specs.LinuxDeviceCgroup{Allow: true, Type: "c"}) {
		t.Errorf("%+v", rules)
	}
	r, err := ParseDeviceRule("c 10:* rm")
	if err != nil || *r.Major != 10 || *r.Minor != -1 || r.Access != "rm" || !r.Allow {
		t.Errorf("%+v %v", r, err)
	}
	for _, bad := range []string{"", "c", "c 1 r", "d 1:2 r", "c 1:2 x", "c 1:-3 r", "c 1:2 r w", "c a:b r"} {
		if _, err := ParseDeviceRule(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestDestinations(t *testing.T) {
	for given, want := range map[string]string{"/a": "/a", "/a/../b/": "/b", "//x": "/x"} {
		if got, err := Clean(given); err != nil || got != want {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
	for _, bad := range []string{"", "/", "/..", "relative", "./x"} {
		if _, err := Clean(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBuildLeavesItsInputAlone(t *testing.T) {
	in := input()
	in.HostConfig.Annotations = map[string]string{"a": "b"}
	in.HostConfig.SecurityOpt = []string{"wherry=strict"}
	in.Config.Entrypoint = make([]string, 1, 8)
	in.Config.Entrypoint[0] = "e"
	if _, err := Build(in); err != nil {
		t.Fatal(err)
	}
	if len(in.HostConfig.Annotations) != 1 || in.Config.Entrypoint[:2][1] != "" {
		t.Error("the caller's values have changed")
	}
}

// TestFilesOfEtc: they lie upon a volume at /etc, and are read-only where the container is.
func TestFilesOfEtc(t *testing.T) {
	change := func(readOnly bool) []string {
		made := build(t, func(in *Input) {
			in.ResolvConf, in.HostConfig.ReadonlyRootfs = "/state/resolv", readOnly
			in.Mounts = []Mount{{Type: mount.TypeVolume, Source: "/volume", Destination: "/etc"}, {Type: mount.TypeBind, Source: "/x", Destination: "/etc/x/y"}}
		})
		var out []string
		for _, m := range made.Mounts {
			if strings.HasPrefix(m.Destination, "/etc") {
				out = append(out, m.Destination)
			}
			if m.Destination == "/etc/resolv.conf" && slices.Contains(m.Options, "ro") != readOnly {
				t.Errorf("read-only %v: %v", readOnly, m.Options)
			}
		}
		return out
	}
	want := []string{"/etc", "/etc/resolv.conf", "/etc/x/y"}
	if got := change(false); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	change(true)
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]int{"9": 9, "KILL": 9, "sigterm": 15, "SIGWINCH": 28, "RTMIN": 34, "RTMIN+2": 36, "SIGRTMAX-1": 63, "RTMAX": 64, "0": 0, "65": 0, "RTMIN+40": 0, "": 0, "RTMIN+x": 0} {
		if got, err := ParseSignal(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d %v, want %d", text, got, err, want)
		}
	}
}
