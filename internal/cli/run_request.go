package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// request turns the flags and the words behind them into what the engine is asked for. Nobody is asked yet.
func (f *runFlags) request(fs *pflag.FlagSet, args []string) (container.CreateRequest, error) {
	var r container.CreateRequest
	if err := f.check(); err != nil {
		return r, err
	}
	config, err := f.config(fs, args)
	if err != nil {
		return r, err
	}
	host, err := f.hostConfig(fs)
	if err != nil {
		return r, err
	}
	p, err := parsePorts(f.publish.values, f.expose.values)
	if err != nil {
		return r, err
	}
	config.ExposedPorts, host.PortBindings = p.exposed, p.bindings
	v, err := parseVolumes(f.volumes.values)
	if err != nil {
		return r, err
	}
	config.Volumes, host.Binds = v.anonymous, v.binds
	mode, endpoints, err := f.resolve()
	if err != nil {
		return r, err
	}
	host.NetworkMode = mode
	r = container.CreateRequest{Config: config, HostConfig: host, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: endpoints}}
	return r, nil
}

// check looks at flags that do not go together and at words that can only be one of a few.
func (f *runFlags) check() error {
	if _, err := oneOf("always", "missing", "newer", "never")(f.pull); err != nil {
		return fmt.Errorf("--pull %s: %w", f.pull, err)
	}
	if _, err := parseRestart(f.restart); err != nil {
		return err
	}
	if err := f.checkLock(); err != nil {
		return err
	}
	if err := checkUnhealthy(f.onUnhealthy); err != nil {
		return err
	}
	switch {
	case f.apiSocket:
		return errors.New("--use-api-socket: mount the engine's socket yourself where it is wanted: -v /run/wherry/wherry.sock:/var/run/docker.sock")
	case f.replace && f.name == "":
		return errors.New("--replace needs --name: the container that has that name is replaced")
	case f.none && f.onUnhealthy != "" && f.onUnhealthy != "none":
		return fmt.Errorf("--no-healthcheck and --on-unhealthy %s contradict each other: nobody would see that it is unhealthy", f.onUnhealthy)
	case f.rm && f.restart != "" && f.restart != "no":
		return fmt.Errorf("--rm and --restart %s contradict each other: a removed container cannot start again", f.restart)
	case f.securityFlags.strict && f.privileged:
		return errors.New("--strict and --privileged contradict each other: keep one")
	case f.swappiness < -1 || f.swappiness > 100:
		return fmt.Errorf("--memory-swappiness %d: it goes from 0 to 100", f.swappiness)
	case f.weight > 0 && (f.weight < 10 || f.weight > 1000):
		return fmt.Errorf("--blkio-weight %d: a weight goes from 10 to 1000, 0 is none", f.weight)
	case f.logDriver == "none" && len(f.logOpts.values) > 0:
		return errors.New("--log-opt: the log driver none takes no options")
	}
	for _, s := range f.storageOpts.values {
		if !strings.Contains(s, "=") {
			return fmt.Errorf("--storage-opt %s: write NAME=value", s)
		}
	}
	for _, m := range []struct {
		flag, value, other string
		container          bool
	}{
		{"--pid", f.pid, "", true}, {"--uts", f.uts, "", false}, {"--userns", f.userns, "", false},
		{"--cgroupns", f.cgroupns, "private", false}, {"--ipc", f.ipc, "none private shareable", true},
	} {
		if err := checkMode(m.flag, m.value, strings.Fields(m.other), m.container); err != nil {
			return err
		}
	}
	return nil
}

// checkMode takes host, the other words, and container:NAME where that may be.
func checkMode(flag, value string, others []string, ofContainer bool) error {
	words := append([]string{"host"}, others...)
	name, isContainer := strings.CutPrefix(value, "container:")
	if value == "" || contains(words, value) || ofContainer && isContainer && name != "" {
		return nil
	}
	if ofContainer {
		words = append(words, "container:NAME")
	}
	return fmt.Errorf("%s %s: it can be %s", flag, value, strings.Join(words, ", "))
}

func (f *runFlags) config(fs *pflag.FlagSet, args []string) (*container.Config, error) {
	fromFiles, err := readEnvFiles(f.envFiles.values)
	if err != nil {
		return nil, err
	}
	labels, err := readLabelFiles(f.labelFiles.values)
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Hostname: f.hostname, Domainname: f.domain, User: f.user, WorkingDir: f.workdir,
		Tty: f.tty, OpenStdin: f.interactive, Image: args[0], StopSignal: f.stopSignal,
		Env: append(fromFiles, f.env.values...), Labels: pairs(append(labels, f.labels.values...)),
	}
	if len(args) > 1 {
		c.Cmd = args[1:]
	}
	if fs.Changed("entrypoint") {
		c.Entrypoint = []string{f.entrypoint}
	}
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	streams := f.attach.values
	if len(streams) == 0 {
		streams = []string{"stdout", "stderr"}
		if f.interactive {
			streams = append(streams, "stdin")
		}
	}
	c.AttachStdin, c.AttachStdout, c.AttachStderr = contains(streams, "stdin"), contains(streams, "stdout"), contains(streams, "stderr")
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	c.Healthcheck, err = f.health(fs)
	return c, err
}

// health is nil where no flag speaks of it: the image's check is run then.
func (f *healthFlags) health(fs *pflag.FlagSet) (*container.HealthConfig, error) {
	said := false
	for _, name := range []string{"health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval", "health-retries"} {
		said = said || fs.Changed(name)
	}
	switch {
	case f.none && said:
		return nil, errors.New("--no-healthcheck and --health-… contradict each other: keep one")
	case f.none:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case f.retries < 0:
		return nil, errors.New("--health-retries cannot be negative")
	case !said:
		return nil, nil
	}
	h := &container.HealthConfig{
		Interval: f.interval.Duration, Timeout: f.timeout.Duration, StartPeriod: f.start.Duration, StartInterval: f.startEvery.Duration,
		Retries: f.retries,
	}
	if f.cmd != "" {
		h.Test = []string{"CMD-SHELL", f.cmd}
	}
	return h, nil
}

func (f *runFlags) hostConfig(fs *pflag.FlagSet) (*container.HostConfig, error) {
	restart, err := parseRestart(f.restart)
	if err != nil {
		return nil, err
	}
	security, err := parseSecurityOptions(f.securityOpts.values, f.securityFlags.strict)
	if err != nil {
		return nil, err
	}
	resources, err := f.resources()
	if err != nil {
		return nil, err
	}
	dns, err := addresses(f.dns.values)
	if err != nil {
		return nil, err
	}
	h := &container.HostConfig{
		ContainerIDFile: f.cidfile, RestartPolicy: restart, AutoRemove: f.rm, VolumeDriver: f.volumeDriver, VolumesFrom: f.volumesFrom.values,
		LogConfig:    container.LogConfig{Type: f.logDriver, Config: pairs(f.logOpts.values)},
		Annotations:  pairs(f.annotations.values),
		CgroupnsMode: container.CgroupnsMode(f.cgroupns), IpcMode: container.IpcMode(f.ipc), PidMode: container.PidMode(f.pid),
		UTSMode: container.UTSMode(f.uts), UsernsMode: container.UsernsMode(f.userns), Isolation: container.Isolation(f.isolation),
		DNS: dns, DNSOptions: f.dnsOptions.values, DNSSearch: f.dnsSearches.values, ExtraHosts: f.hosts.values, Links: f.links.values,
		GroupAdd: f.groups.values, OomScoreAdj: f.oomScore, Privileged: f.privileged, PublishAllPorts: f.publishAll, ReadonlyRootfs: f.readOnly,
		SecurityOpt: security.list, StorageOpt: pairs(f.storageOpts.values), Sysctls: pairs(f.sysctls.values), ShmSize: f.shm.bytes,
		Runtime: f.runtime, Resources: resources, Mounts: f.mounts.mounts, Tmpfs: tmpfsMounts(f.tmpfs.values),
	}
	h.CapAdd, h.CapDrop = capabilityNames(f.capAdd.values), capabilityNames(f.capDrop.values)
	if security.unmasked {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	if fs.Changed("init") {
		h.Init = &f.processFlags.init
	}
	if f.fresh {
		put(&h.Annotations, "wherry.restart", "fresh")
	}
	if f.onUnhealthy != "" {
		put(&h.Annotations, onUnhealthy, f.onUnhealthy)
	}
	return h, nil
}

func tmpfsMounts(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range list {
		path, options, _ := strings.Cut(s, ":")
		m[path] = options
	}
	return m
}

func (f *runFlags) resources() (container.Resources, error) {
	d, err := parseDevices(f.devices.values)
	if err != nil {
		return container.Resources{}, err
	}
	if f.gpus != "" {
		q, err := parseGPUs(f.gpus)
		if err != nil {
			return container.Resources{}, fmt.Errorf("--gpus %s: %w", f.gpus, err)
		}
		d.requests = append(d.requests, q)
	}
	return container.Resources{
		Memory: f.memory.bytes, MemorySwap: f.swap.bytes, MemoryReservation: f.reservation.bytes, MemorySwappiness: &f.swappiness,
		NanoCPUs: f.cpus.nano, CPUShares: f.shares, CPUPeriod: f.period, CPUQuota: f.quota, CPURealtimePeriod: f.rtPeriod,
		CPURealtimeRuntime: f.rtRuntime, CpusetCpus: f.cpuset, CpusetMems: f.mems, CgroupParent: f.cgroupParent, PidsLimit: &f.pids,
		BlkioWeight: f.weight, BlkioWeightDevice: f.weights.list, BlkioDeviceReadBps: f.readBps.list, BlkioDeviceWriteBps: f.writeBps.list,
		BlkioDeviceReadIOps: f.readOps.list, BlkioDeviceWriteIOps: f.writeOps.list,
		Devices: d.nodes, DeviceRequests: d.requests, DeviceCgroupRules: f.deviceRules.values,
		OomKillDisable: &f.oomDisable, Ulimits: f.ulimits.list(),
	}, nil
}
