package container

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/forward"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

const minMemory = 6 << 20

// validation checks a configuration before anything is made: one clear line for the first thing that is wrong.
type validation struct {
	config   *container.Config
	host     *container.HostConfig
	exposed  network.PortSet // asked for, without the image's
	cpus     int
	nodes    int  // of memory
	v2       bool // control groups of version 2 alone
	warnings []string
}

func (v *validation) check() error {
	for _, step := range []func() error{v.command, v.labels, v.names, v.modes, v.restart, v.health, v.unhealthy, v.mounts, v.ulimits, v.sysctls, v.security, v.ports} {
		if err := step(); err != nil {
			return plain(err)
		}
	}
	return v.resources(&v.host.Resources)
}

func (v *validation) command() error {
	c := v.config
	if len(c.Entrypoint)+len(c.Cmd) == 0 {
		return invalid("no command specified: the image says none, give one after the image's name")
	}
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	for _, arg := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(arg, 0) {
			return invalid("the command has an argument with a zero byte, which no program can be given: %.100q", arg)
		}
	}
	for _, kv := range c.Env {
		if name, _, _ := strings.Cut(kv, "="); name == "" {
			return invalid("invalid environment variable: %s: a name is needed before =", kv)
		}
		if strings.ContainsRune(kv, 0) {
			return invalid("invalid environment variable: %q has a zero byte", kv)
		}
	}
	if c.StopSignal != "" {
		if _, err := spec.ParseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return invalid("the stop timeout %d is negative: give seconds, or -1 to wait for ever", *c.StopTimeout)
	}
	return hostnameRule(c.Hostname)
}

// Labels are more than anybody writes, and few enough for each list and each event to have them.
const (
	maxLabels     = 4096
	maxLabelBytes = 2 << 20
)

func (v *validation) labels() error {
	size := 0
	for k, text := range v.config.Labels {
		size += len(k) + len(text)
	}
	if n := len(v.config.Labels); n > maxLabels || size > maxLabelBytes {
		return invalid("the container would have %d labels of %d bytes, which its image may have asked for: %d labels and %d bytes are the most", n, size, maxLabels, maxLabelBytes)
	}
	return nil
}

// names of hosts and domains are each on a line of the container's files in /etc.
func (v *validation) names() error {
	for option, values := range map[string][]string{"--domainname": {v.config.Domainname}, "--dns-search": v.host.DNSSearch, "--dns-option": v.host.DNSOptions, "--add-host": v.host.ExtraHosts} {
		for _, text := range values {
			if strings.ContainsFunc(text, unicode.IsControl) {
				return invalid("%s %q: it has a line break, or another character that no name has", option, text)
			}
		}
	}
	return nil
}

func hostnameRule(name string) error {
	if len(name) > 63 {
		return invalid("invalid hostname %q: it has %d characters, 63 is the most", name, len(name))
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '-' && c != '.' && c != '_' {
			return invalid("invalid hostname %q: only letters, digits, '-', '_' and '.' are allowed", name)
		}
	}
	return nil
}

func (v *validation) modes() error {
	h := v.host
	switch {
	case !h.IpcMode.Valid():
		return invalid("invalid IPC mode: %s: use private, shareable, none, host or container:NAME", h.IpcMode)
	case !h.PidMode.Valid():
		return invalid("invalid PID mode: %s: use host or container:NAME", h.PidMode)
	case !h.UTSMode.Valid():
		return invalid("invalid UTS mode: %s: use host or leave it out", h.UTSMode)
	case !h.UsernsMode.Valid():
		return invalid("invalid userns mode: %s: use host or leave it out", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %s: use private or host", h.CgroupnsMode)
	case h.Cgroup != "":
		return invalid("joining another container's control group (%s) is not supported", h.Cgroup)
	case strings.HasSuffix(h.CgroupParent, ".slice"):
		return invalid("--cgroup-parent %s: a slice is systemd's, and the engine's containers are in one scope: give the slice to wherryd (--cgroup-parent), or a path here", h.CgroupParent)
	case len(h.StorageOpt) > 0:
		return invalid("--storage-opt is not supported: a writable layer has no limit of its own: put what may grow into a volume (volume create -o type=tmpfs -o device=tmpfs -o o=size=1g) or on a tmpfs")
	case h.Runtime != "oar" && h.Runtime != "runc" && h.Runtime != "io.containerd.runc.v2":
		return invalid("unknown or invalid runtime name: %s: there is only oar (leave --runtime out)", h.Runtime)
	case !h.Isolation.IsDefault():
		return invalid("invalid isolation %q: Linux has only default", h.Isolation)
	case h.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	}
	for i := range h.DeviceRequests {
		if _, err := deviceDriver(&h.DeviceRequests[i]); err != nil {
			return err
		}
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000].", h.OomScoreAdj)
	}
	for _, e := range h.ExtraHosts {
		if name, address, ok := strings.Cut(e, ":"); !ok || name == "" || address == "" {
			return invalid("bad format for add-host: %q: write NAME:ADDRESS", e)
		}
	}
	return v.sharedNetwork()
}

// sharedNetwork refuses what is decided by whose network it is: the host's, or another container's.
func (v *validation) sharedNetwork() error {
	h, owner := v.host, ""
	switch {
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case !h.NetworkMode.IsContainer() && h.NetworkMode != "container":
		return nil
	case h.NetworkMode.ConnectedContainer() == "":
		return invalid("invalid network mode: invalid container format container:<name|id>")
	}
	owner = h.NetworkMode.ConnectedContainer()
	for _, row := range []struct {
		what string
		is   bool
	}{
		{"port publishing and the container type network mode", len(h.PortBindings) > 0 || h.PublishAllPorts},
		{"port exposing and the container type network mode", len(v.exposed) > 0},
		{"dns and the network mode", len(h.DNS) > 0},
		{"custom host-to-IP mapping and the network mode", len(h.ExtraHosts) > 0},
		{"container type network can't be used with links. This would result in undefined behavior", len(h.Links) > 0},
	} {
		if row.is {
			return invalid("conflicting options: %s: the network is container %s's, which may have it", row.what, owner)
		}
	}
	return nil
}

func (v *validation) restart() error {
	if err := container.ValidateRestartPolicy(v.host.RestartPolicy); err != nil {
		return invalid("%v", err)
	}
	if v.host.AutoRemove && !v.host.RestartPolicy.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy: choose --rm or --restart")
	}
	return nil
}

func (v *validation) health() error {
	h := v.config.Healthcheck
	if h == nil {
		return nil
	}
	for _, row := range []struct {
		name string
		d    time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if row.d != 0 && row.d < container.MinimumDuration {
			return invalid("%s in Healthcheck cannot be less than %s", row.name, container.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, h.Test[0]) {
		return invalid("the health check's test begins with %q: use CMD, CMD-SHELL or NONE", h.Test[0])
	}
	return nil
}

// maxMounts is more than what one start can mount, and few enough that neither a request nor an image's volumes keep the engine or the kernel busy for minutes.
const maxMounts = 1024

func (v *validation) mounts() error {
	if n := len(v.host.Binds) + len(v.host.Mounts) + len(v.host.Tmpfs) + len(v.config.Volumes); n > maxMounts {
		return invalid("the container would have %d mounts (%d of them volumes without a name, which the image may have asked for): %d are the most", n, len(v.config.Volumes), maxMounts)
	}
	return nil
}

func (v *validation) ulimits() error {
	names := make([]string, 0, len(rlimits))
	for n := range rlimits {
		names = append(names, strings.ToLower(strings.TrimPrefix(n, "RLIMIT_")))
	}
	slices.Sort(names)
	for _, u := range v.host.Ulimits {
		if u == nil || !slices.Contains(names, u.Name) {
			name := ""
			if u != nil {
				name = u.Name
			}
			return invalid("invalid ulimit type: %q: %s", name, spec.Suggest(name, names))
		}
		if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
			return invalid("ulimit %s: the soft limit %d must be less than or equal to the hard limit %d", u.Name, u.Soft, u.Hard)
		}
	}
	return nil
}

func (v *validation) sysctls() error {
	h := v.host
	for name := range h.Sysctls {
		if strings.ContainsAny(name, " \t\n\x00") || strings.Contains(name, "..") {
			return invalid("invalid sysctl name %q", name)
		}
		dotted := strings.ReplaceAll(name, "/", ".")
		switch {
		case strings.HasPrefix(dotted, "net."):
			if h.NetworkMode.IsHost() {
				return invalid("sysctl %q is not allowed with the host's network: it would change the host", name)
			}
		case strings.HasPrefix(dotted, "kernel.msg"), strings.HasPrefix(dotted, "kernel.shm"), strings.HasPrefix(dotted, "fs.mqueue."), dotted == "kernel.sem":
			if h.IpcMode.IsHost() {
				return invalid("sysctl %q is not allowed with the host's IPC: it would change the host", name)
			}
		case dotted == "kernel.domainname", dotted == "kernel.hostname":
			return invalid("sysctl %q: use --domainname or --hostname", name)
		default:
			return invalid("sysctl %q is not in a separate namespace: it would change the host; net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.* can be set", name)
		}
	}
	return nil
}

// reservedPrefix begins the annotations by which the engine speaks to its runtime.
const reservedPrefix = "dev.wherry."

func (v *validation) security() error {
	for key := range v.host.Annotations {
		if strings.HasPrefix(key, reservedPrefix) {
			return invalid("annotation %s: names that begin with %s are the engine's own: use another one, or --security-opt wherry=strict for what they do", key, reservedPrefix)
		}
	}
	o, err := spec.ParseSecurity(v.host.SecurityOpt)
	if err != nil {
		return err
	}
	if o.WritableCgroups && !v.host.Privileged {
		return invalid("--security-opt writable-cgroups: a container's control groups hold its limits and are the engine's: only those of a --privileged container can be written to")
	}
	_, err = spec.Capabilities(v.host.CapAdd, v.host.CapDrop, spec.CapabilityOptions{Privileged: v.host.Privileged, Strict: o.Strict})
	return err
}

func (v *validation) ports() error {
	for port, list := range v.host.PortBindings {
		if !port.IsValid() || port.Num() == 0 {
			return invalid("invalid container port %s: a port is a number from 1 to 65535", port)
		}
		for _, b := range list {
			if b.HostPort == "" {
				continue
			}
			first, last, isRange := strings.Cut(b.HostPort, "-")
			from, err1 := strconv.ParseUint(first, 10, 16)
			to, err2 := from, error(nil)
			if isRange {
				to, err2 = strconv.ParseUint(last, 10, 16)
			}
			if err1 != nil || err2 != nil || to < from {
				return invalid("invalid port specification: %q: a host port is a number from 0 to 65535, or a range", b.HostPort)
			}
		}
	}
	if mode := v.host.NetworkMode; (mode.IsHost() || mode.IsNone()) && (len(v.host.PortBindings) > 0 || v.host.PublishAllPorts) {
		v.warnings = append(v.warnings, "Published ports are discarded when using "+string(mode)+" network mode")
	}
	return nil
}

// resources checks limits, also those of an update.
func (v *validation) resources(r *container.Resources) error {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return invalid("Minimum memory limit allowed is 6MB: a limit of %s leaves no room for a process to start", units.BytesSize(float64(r.Memory)))
	case r.MemorySwap > 0 && r.Memory == 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage: it counts memory and swap together")
	case r.MemorySwap < -1:
		return invalid("the swap limit %d is not valid: give bytes, or -1 for no limit", r.MemorySwap)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return invalid("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage: a reservation of %s is more than the limit of %s", units.BytesSize(float64(r.MemoryReservation)), units.BytesSize(float64(r.Memory)))
	case r.NanoCPUs > 0 && r.NanoCPUs > int64(v.cpus)*1e9:
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", v.cpus, v.cpus)
	case r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return invalid("range of CPUs is from 0.01 to %d.00", v.cpus)
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return invalid("range of blkio weight is from 10 to 1000")
	}
	if err := cpuset("cpus", r.CpusetCpus, v.cpus); err != nil {
		return err
	}
	if err := cpuset("mems", r.CpusetMems, v.nodes); err != nil {
		return err
	}
	if slices.Contains(r.BlkioWeightDevice, nil) || slices.Contains(slices.Concat(r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps), nil) {
		return invalid("a limit of block I/O is null: give the path of a device, and a weight or rate")
	}
	v.discard(r)
	for _, rule := range r.DeviceCgroupRules {
		if _, err := spec.ParseDeviceRule(rule); err != nil {
			return invalid("%v", err)
		}
	}
	return nil
}

// discard takes out what control groups of version 2 do not have, with a warning in Docker's words: a compose file that runs on one machine
// runs on the next. Where they have it, its danger is told.
func (v *validation) discard(r *container.Resources) {
	if !v.v2 {
		if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
			v.warnings = append(v.warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
		return
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness != -1 {
		r.MemorySwappiness = nil
		v.warnings = append(v.warnings, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		r.OomKillDisable = nil
		v.warnings = append(v.warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
	}
}

// cpuset checks a list such as "0-2,4" of cpus or mems, of which there are n.
func cpuset(kind, list string, n int) error {
	if list == "" {
		return nil
	}
	most := uint64(0)
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if err1 != nil || err2 != nil || to < from {
			return invalid("Invalid value %s for cpuset %s: write it as 0-2 or 0,1", list, kind)
		}
		most = max(most, to)
	}
	if int(most) >= n {
		what := map[string]string{"cpus": "CPUs", "mems": "memory nodes"}[kind]
		return invalid("Requested %s are not available - requested %s, available: %s", what, list, countTo(n))
	}
	return nil
}

// countTo is a list of n numbers from 0 on, as control groups write it.
func countTo(n int) string {
	if n <= 1 {
		return "0"
	}
	return "0-" + strconv.Itoa(n-1)
}

// logOptions reads --log-driver and --log-opt. Output is always kept by the shim; "none" keeps little and shows none of it.
func logOptions(c container.LogConfig, dir string) (task.LogOptions, error) {
	o := task.LogOptions{Dir: dir}
	switch c.Type {
	case "", "json-file", "local", "none":
	default:
		if !forward.Is(c.Type) {
			return o, invalid("error looking up logging plugin %s: plugin %q not found: there are json-file, local, none, %s", c.Type, c.Type, strings.Join(forward.Kinds(), ", "))
		}
		if err := forward.Check(c.Type, c.Config); err != nil {
			return o, err
		}
	}
	limit, err := settings.LogLimits(c.Type, c.Config)
	if err != nil {
		return o, invalid("%v", err)
	}
	o.MaxSize, o.MaxFiles = limit.Size, limit.Files
	if c.Type == "none" {
		o.MaxSize, o.MaxFiles = 1<<20, 2
	}
	return o, nil
}
