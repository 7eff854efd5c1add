// Package spec turns a container's configuration into the OCI runtime configuration that starts it.
//
// Build is a pure function: what has to be looked up on the host (the user's ids, device numbers, where volumes lie) is looked up by the
// caller and stands in Input. The shapes are those of the runtime specification 1.3 and the defaults those that Docker documents.
package spec

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// InitPath is where the small first process of --init is shown inside.
const InitPath = "/sbin/docker-init"

// MarkerPath is an empty file by which programs see that they are in a container; it is there when the writable layer is made.
const MarkerPath = "/.dockerenv"

// What this package asks of the runtime: ociruntime.NoSuidAnnotation and ociruntime.LowPortsAnnotation.
const (
	rootNoSuid = "dev.wherry.root.nosuid"
	lowPorts   = "dev.wherry.net.low-ports"
)

// Input is all that a runtime configuration is made of. Config and HostConfig are merged with the image's and complete.
type Input struct {
	ID         string
	Config     *container.Config
	HostConfig *container.HostConfig

	User      specs.User
	Env       []string // what Config.Env lacks: HOME, PATH, TERM, HOSTNAME
	Hostname  string
	Mounts    []Mount // the user's, with sources resolved
	Secrets   []SecretMount
	SecretEnv []string // wins over both environments

	// Base and Size are the container's id range; Size 0: the host's user namespace.
	Base, Size uint32
	// Joined are namespaces of other containers, by path.
	Joined map[specs.LinuxNamespaceType]string

	Hosts, HostnameFile, ResolvConf string // files to bind into /etc; "" is left out
	Shm                             string // a shared /dev/shm to bind; "": an own tmpfs
	Oar                             string // the program of --init
	CgroupPath                      string

	Devices     []specs.LinuxDevice // besides the default ones
	DeviceRules []specs.LinuxDeviceCgroup
	BlockIO     *specs.LinuxBlockIO
	Edits       Edits // of devices that vendors describe
	// MaxRlimits are the engine's own hard limits: what lies above cannot be given.
	MaxRlimits map[string]uint64
}

// Build makes the runtime configuration.
func Build(in Input) (*specs.Spec, error) {
	opts, err := ParseSecurity(in.HostConfig.SecurityOpt)
	if err != nil {
		return nil, err
	}
	b := &builder{in: in, h: in.HostConfig, opts: opts}
	s := &specs.Spec{Version: "1.2.0", Hostname: in.Hostname, Domainname: in.Config.Domainname, Linux: &specs.Linux{}}
	s.Root = &specs.Root{Path: "rootfs", Readonly: b.h.ReadonlyRootfs}
	if s.Process, err = b.process(); err != nil {
		return nil, err
	}
	if b.h.UTSMode.IsHost() {
		s.Hostname, s.Domainname = "", ""
	}
	s.Annotations = b.annotations(s.Process.Capabilities.Bounding)
	if s.Mounts, err = b.mounts(); err != nil {
		return nil, err
	}
	b.namespaces(s.Linux)
	s.Linux.CgroupsPath = in.CgroupPath
	s.Linux.Resources = Resources(&b.h.Resources, in.BlockIO)
	s.Linux.Resources.Devices = b.deviceRules()
	s.Linux.Devices = slices.Clone(in.Devices)
	s.Linux.Sysctl = maps.Clone(b.h.Sysctls)
	b.in.Edits.edit(s)
	b.masks(s.Linux)
	s.Linux.RootfsPropagation = b.rootPropagation()
	if s.Linux.Seccomp, err = b.seccomp(s); err != nil {
		return nil, err
	}
	return s, nil
}

// annotations are the user's, and what asks the runtime for more than the specification has words for.
func (b *builder) annotations(capabilities []string) map[string]string {
	out := maps.Clone(b.h.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	if b.opts.Strict {
		out[rootNoSuid] = "true"
	}
	if b.h.NetworkMode.IsHost() && b.in.Size > 0 && slices.Contains(capabilities, "CAP_NET_BIND_SERVICE") {
		out[lowPorts] = "true"
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

type builder struct {
	in   Input
	h    *container.HostConfig
	opts Security
}

// privileged containers, and only they, get everything.
func (b *builder) privileged() bool { return b.h.Privileged }

func (b *builder) process() (*specs.Process, error) {
	args := append(slices.Clone([]string(b.in.Config.Entrypoint)), b.in.Config.Cmd...)
	if len(args) == 0 {
		return nil, errors.New("no command specified: the image has none, give one")
	}
	if b.h.Init != nil && *b.h.Init {
		args = append([]string{InitPath, "init", "--"}, args...)
	}
	caps, err := Capabilities(b.h.CapAdd, b.h.CapDrop, CapabilityOptions{Privileged: b.privileged(), Strict: b.opts.Strict})
	if err != nil {
		return nil, err
	}
	adj := b.h.OomScoreAdj
	p := &specs.Process{
		Terminal: b.in.Config.Tty, User: b.in.User, Args: args, Cwd: Cwd(b.in.Config.WorkingDir),
		Env:             MergeEnv(MergeEnv(b.in.Env, b.in.Config.Env), slices.Concat(b.in.Edits.Env, b.in.SecretEnv)),
		Capabilities:    CapabilitySets(caps, b.in.User.UID),
		NoNewPrivileges: b.opts.NoNewPrivileges || b.opts.Strict,
		Rlimits:         b.rlimits(),
	}
	if adj != 0 {
		p.OOMScoreAdj = &adj
	}
	if b.h.Umask != nil {
		p.User.Umask = b.h.Umask
	}
	if p.Terminal && b.h.ConsoleSize != [2]uint{} {
		p.ConsoleSize = &specs.Box{Height: b.h.ConsoleSize[0], Width: b.h.ConsoleSize[1]}
	}
	return p, nil
}

// Cwd is an absolute, clean working directory; "" is the root.
func Cwd(dir string) string { return path.Clean("/" + dir) }

// CapabilitySets gives a process its capabilities: the inheritable and ambient sets stay empty, and a user other than root starts with
// none in effect but may gain them by a set-user-ID program.
func CapabilitySets(names []string, uid uint32) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{Bounding: names}
	if uid == 0 {
		sets.Effective, sets.Permitted = names, names
	}
	return sets
}

// MergeEnv lays one environment over another; the order of the first appearance stays. An entry without "=" removes the variable.
func MergeEnv(base, over []string) []string {
	out := make([]string, 0, len(base)+len(over))
	at := map[string]int{}
	for _, kv := range slices.Concat(base, over) {
		key, _, has := strings.Cut(kv, "=")
		i, seen := at[key]
		switch {
		case !has && seen:
			out[i] = ""
			delete(at, key)
		case !has:
		case seen:
			out[i] = kv
		default:
			at[key] = len(out)
			out = append(out, kv)
		}
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
}

func (b *builder) rlimits() []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, u := range b.h.Ulimits {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		r := specs.POSIXRlimit{Type: name, Hard: uint64(u.Hard), Soft: uint64(u.Soft)}
		if most, ok := b.in.MaxRlimits[name]; ok {
			r.Hard, r.Soft = min(r.Hard, most), min(r.Soft, most)
		}
		out = append(out, r)
	}
	return out
}

func (b *builder) namespaces(l *specs.Linux) {
	add := func(kind specs.LinuxNamespaceType) {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind, Path: b.in.Joined[kind]})
	}
	add(specs.MountNamespace)
	if b.in.Size > 0 {
		add(specs.UserNamespace)
		m := b.idMapping()
		l.UIDMappings, l.GIDMappings = m, m
	}
	host := map[specs.LinuxNamespaceType]bool{
		specs.NetworkNamespace: b.h.NetworkMode.IsHost(), specs.PIDNamespace: b.h.PidMode.IsHost(), specs.IPCNamespace: b.h.IpcMode.IsHost(),
		specs.UTSNamespace: b.h.UTSMode.IsHost(), specs.CgroupNamespace: b.h.CgroupnsMode.IsHost(),
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		if !host[kind] {
			add(kind)
		}
	}
}

func (b *builder) idMapping() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: b.in.Base, Size: b.in.Size}}
}

// MaskedPaths and ReadonlyPaths are Docker's defaults: what of /proc and /sys a container neither sees nor changes.
func MaskedPaths() []string {
	return []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
}

// ReadonlyPaths are shown but cannot be written.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func (b *builder) masks(l *specs.Linux) {
	if b.privileged() || b.opts.Unmasked {
		return
	}
	l.MaskedPaths, l.ReadonlyPaths = b.h.MaskedPaths, b.h.ReadonlyPaths
	if l.MaskedPaths == nil {
		l.MaskedPaths = MaskedPaths()
	}
	if l.ReadonlyPaths == nil {
		l.ReadonlyPaths = ReadonlyPaths()
	}
}

// deviceRules: everything is denied, then the default devices and the asked ones are allowed. Making nodes is allowed as in Docker; the
// container lacks CAP_MKNOD. Of Docker's list the console (5:1) is missing: a container's own is a terminal of devpts, and a node of that number that an
// image brings is the machine's, to read what is typed there and to write on its screen.
func (b *builder) deviceRules() []specs.LinuxDeviceCgroup {
	if b.privileged() {
		return []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Access: "rwm"}}
	allow := func(kind string, major, minor int64, access string) {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access, Major: &major, Minor: &minor}
		rules = append(rules, r)
	}
	allow("c", -1, -1, "m")
	allow("b", -1, -1, "m")
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}} {
		allow("c", d[0], d[1], "rwm")
	}
	return slices.Concat(rules, b.in.DeviceRules, b.in.Edits.Rules)
}

// ParseDeviceRule reads "c 1:3 rwm".
func ParseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	bad := fmt.Errorf("invalid device cgroup format: %q: write it as 'TYPE MAJOR:MINOR ACCESS', for example 'c 10:200 rwm'", text)
	f := strings.Fields(text)
	if len(f) != 3 || !slices.Contains([]string{"a", "b", "c"}, f[0]) || strings.Trim(f[2], "rwm") != "" || f[2] == "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	a, err1 := deviceNumber(major)
	c, err2 := deviceNumber(minor)
	if !ok || err1 != nil || err2 != nil {
		return specs.LinuxDeviceCgroup{}, bad
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Major: &a, Minor: &c, Access: f[2]}, nil
}
