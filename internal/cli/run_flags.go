package cli

import (
	"github.com/spf13/pflag"
)

// runFlags are the flags of run and create.
type runFlags struct {
	processFlags
	limitFlags
	storageFlags
	healthFlags
	securityFlags
	networkFlags
	lockFlags

	name, pull, platform, cidfile, runtime, isolation string
	rm, quiet, fresh, replace                         bool
	restart                                           string
	logDriver                                         string
	logOpts, annotations                              listFlag
	labels, labelFiles                                listFlag
}

type processFlags struct {
	attach               listFlag
	env                  envFlag
	envFiles             listFlag
	entrypoint, hostname string
	domain, workdir      string
	user, stopSignal     string
	interactive, tty     bool
	init                 bool
	stopTimeout          int
	groups               listFlag
}

type limitFlags struct {
	memory, reservation, shm, kernelMemory sizeFlag
	swap                                   sizeFlag
	swappiness, pids                       int64
	cpus                                   cpusFlag
	shares, period, quota                  int64
	rtPeriod, rtRuntime                    int64
	cpuset, mems, cgroupParent             string
	weight                                 uint16
	weights                                weightFlag
	readBps, writeBps, readOps, writeOps   throttleFlag
	ulimits                                ulimitFlag
	oomDisable                             bool
	oomScore                               int
}

type storageFlags struct {
	secrets                                  []secretUse
	volumes, volumesFrom, tmpfs, storageOpts listFlag
	mounts                                   mountFlag
	volumeDriver                             string
	readOnly                                 bool
	devices, deviceRules                     listFlag
	gpus                                     string
	apiSocket                                bool
}

type healthFlags struct {
	cmd                                  string
	interval, timeout, start, startEvery durationFlag
	retries                              int
	none                                 bool
	onUnhealthy                          string
}

type securityFlags struct {
	capAdd, capDrop, securityOpts, sysctls listFlag
	privileged, strict                     bool
	pid, ipc, uts, userns, cgroupns        string
}

type networkFlags struct {
	network                             networkFlag
	aliases, links, linkLocal           listFlag
	ip, ip6, mac                        string
	publish, expose                     listFlag
	publishAll                          bool
	hosts, dns, dnsOptions, dnsSearches listFlag
}

// addRunFlags registers everything that run and create have in common.
func addRunFlags(fs *pflag.FlagSet) *runFlags {
	f := &runFlags{}
	fs.SetInterspersed(false)
	fs.StringVar(&f.name, "name", "", "Name of the container")
	fs.StringVar(&f.pull, "pull", "missing", "When to pull the image: always, missing, never, or newer: as always, and content with the one that is here where no registry answers")
	fs.BoolVar(&f.replace, "replace", false, "Remove the container that has the name, even where it runs; its volumes stay")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Do not show how a pull goes on")
	fs.StringVar(&f.platform, "platform", "", "Platform of the image, such as linux/arm64")
	fs.StringVar(&f.cidfile, "cidfile", "", "File to write the container's ID to; it must not be there yet")
	fs.BoolVar(&f.rm, "rm", false, "Remove the container and its volumes without a name when it ends")
	fs.StringVar(&f.restart, "restart", "no", "When to start it again: no, always, unless-stopped or on-failure[:MOST]")
	fs.BoolVar(&f.fresh, "restart-fresh", false, "Let a restart begin with the image's files, not with those the last run left")
	fs.StringVar(&f.logDriver, "log-driver", "", "Where output is kept")
	fs.Var(&f.logOpts, "log-opt", "Option of the log, NAME=value")
	f.labels.check = checkLabel
	fs.VarP(&f.labels, "label", "l", "Label of the container, NAME=value")
	fs.Var(&f.labelFiles, "label-file", "File of labels, one a line")
	fs.Var(&f.annotations, "annotation", "Annotation that the runtime sees, NAME=value")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use")
	fs.StringVar(&f.isolation, "isolation", "", "Isolation technology (Windows; default is taken)")
	fs.Bool("disable-content-trust", true, "Taken and ignored")
	f.processFlags.add(fs)
	f.limitFlags.add(fs)
	f.storageFlags.add(fs)
	f.healthFlags.add(fs)
	f.securityFlags.add(fs)
	f.networkFlags.add(fs)
	f.lockFlags.add(fs)
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "net":
			name = "network"
		case "net-alias":
			name = "network-alias"
		case "dns-opt":
			name = "dns-option"
		}
		return pflag.NormalizedName(name)
	})
	return f
}

func (f *processFlags) add(fs *pflag.FlagSet) {
	f.attach.check = oneOf("stdin", "stdout", "stderr")
	fs.VarP(&f.attach, "attach", "a", "Attach to stdin, stdout or stderr")
	fs.VarP(&f.env, "env", "e", "Variable of the environment: NAME=value, or NAME to pass this one's on, or NAME* for all that begin so")
	fs.Var(&f.envFiles, "env-file", "File of variables, one a line")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Program to run in place of the image's")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Host name in the container")
	fs.StringVar(&f.domain, "domainname", "", "NIS domain name in the container")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory in the container")
	fs.StringVarP(&f.user, "user", "u", "", "User that the process runs as, NAME|UID[:GROUP|GID]")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep standard input open")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Give it a terminal")
	fs.BoolVar(&f.init, "init", false, "Run a small init that passes signals on and reaps processes")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal that asks it to stop")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Seconds that it has to stop before it is killed")
	fs.Var(&f.groups, "group-add", "Additional group of the user")
}

func (f *limitFlags) add(fs *pflag.FlagSet) {
	f.swap.unlimited = true
	fs.VarP(&f.memory, "memory", "m", "Most memory, such as 512m")
	fs.Var(&f.swap, "memory-swap", "Most memory and swap together, -1 for any amount of swap")
	fs.Var(&f.reservation, "memory-reservation", "Memory to leave it when memory is short")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "How readily its memory is swapped, 0 to 100")
	fs.Var(&f.kernelMemory, "kernel-memory", "Taken and ignored: kernels have no such limit any more")
	fs.Var(&f.shm, "shm-size", "Size of /dev/shm")
	fs.Int64Var(&f.pids, "pids-limit", 0, "Most processes and threads, -1 for any number")
	fs.Var(&f.cpus, "cpus", "Most processor time, in processors: 0.5 is half of one")
	fs.Int64VarP(&f.shares, "cpu-shares", "c", 0, "Weight against other containers when processors are short")
	fs.Int64Var(&f.period, "cpu-period", 0, "Period of the scheduler's quota in microseconds")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "Processor time in each period in microseconds")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Period of real-time scheduling in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Real-time run time in each period in microseconds")
	fs.StringVar(&f.cpuset, "cpuset-cpus", "", "Processors to run on, such as 0-3 or 0,2")
	fs.StringVar(&f.mems, "cpuset-mems", "", "Memory nodes to use, such as 0")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Control group above the container's")
	fs.Uint16Var(&f.weight, "blkio-weight", 0, "Weight of its disk input and output, 10 to 1000")
	fs.Var(&f.weights, "blkio-weight-device", "The same for one device, /dev/NODE:WEIGHT")
	f.readBps.bytes, f.writeBps.bytes = true, true
	fs.Var(&f.readBps, "device-read-bps", "Most bytes read each second, /dev/NODE:10mb")
	fs.Var(&f.writeBps, "device-write-bps", "Most bytes written each second, /dev/NODE:10mb")
	fs.Var(&f.readOps, "device-read-iops", "Most reads each second, /dev/NODE:1000")
	fs.Var(&f.writeOps, "device-write-iops", "Most writes each second, /dev/NODE:1000")
	fs.Var(&f.ulimits, "ulimit", "Limit of each process, NAME=SOFT[:HARD]")
	fs.BoolVar(&f.oomDisable, "oom-kill-disable", false, "Let it wait for memory, not be killed")
	fs.IntVar(&f.oomScore, "oom-score-adj", 0, "How readily it is killed when the host's memory is short, -1000 to 1000")
	for _, name := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		fs.Var(&windowsFlag{}, name, "Only engines on Windows have this limit")
		_ = fs.MarkHidden(name)
	}
}

func (f *storageFlags) add(fs *pflag.FlagSet) {
	fs.VarP(&f.volumes, "volume", "v", "Volume or directory of the host, SOURCE:TARGET[:OPTIONS]")
	fs.Var(&f.mounts, "mount", "Mount, type=bind|volume|tmpfs|image,source=…,target=…")
	fs.Var(&secretFlag{"secret", &f.secrets}, "secret", "Secret of the engine to see in /run/secrets, NAME[,target=PATH,uid=N,gid=N,mode=0400] or NAME,type=env[,target=VARIABLE]")
	fs.Var(&secretFlag{"config", &f.secrets}, "config", "Config of the engine to see as a file, NAME[,target=PATH,uid=N,gid=N,mode=0400]")
	fs.Var(&f.volumesFrom, "volumes-from", "Take the mounts of another container, NAME[:ro]")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Driver of volumes made for it")
	fs.Var(&f.tmpfs, "tmpfs", "Directory in memory, PATH[:OPTIONS]")
	fs.Var(&f.storageOpts, "storage-opt", "Option of the file system, NAME=value")
	fs.BoolVar(&f.readOnly, "read-only", false, "Make its root file system read-only")
	fs.Var(&f.devices, "device", "Device of the host, /dev/NODE[:/dev/NODE][:rwm], or VENDOR/CLASS=NAME")
	f.deviceRules.check = checkDeviceRule
	fs.Var(&f.deviceRules, "device-cgroup-rule", "Devices that it may use, 'TYPE MAJOR:MINOR rwm'")
	fs.StringVar(&f.gpus, "gpus", "", "Graphics processors, all, a number or device=N[,N]")
	fs.BoolVar(&f.apiSocket, "use-api-socket", false, "Not offered: mount the socket with -v")
}

func (f *healthFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.cmd, "health-cmd", "", "Command that tells whether it is well")
	fs.Var(&f.interval, "health-interval", "Time between checks")
	fs.Var(&f.timeout, "health-timeout", "Time that a check may take")
	fs.Var(&f.start, "health-start-period", "Time to get up, in which failures do not count")
	fs.Var(&f.startEvery, "health-start-interval", "Time between checks while it gets up")
	fs.IntVar(&f.retries, "health-retries", 0, "Failures one after another that make it unhealthy")
	fs.StringVar(&f.onUnhealthy, "on-unhealthy", "", "What to do when it is unhealthy: none, restart, stop or kill")
	fs.BoolVar(&f.none, "no-healthcheck", false, "Do not run the image's check")
}

func (f *securityFlags) add(fs *pflag.FlagSet) {
	fs.Var(&f.capAdd, "cap-add", "Capability to add, or ALL")
	fs.Var(&f.capDrop, "cap-drop", "Capability to take away, or ALL")
	fs.Var(&f.securityOpts, "security-opt", "no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined, …")
	fs.BoolVar(&f.strict, "strict", false, "Fewer capabilities, no set-user-ID programs, no new privileges")
	f.sysctls.check = checkSysctl
	fs.Var(&f.sysctls, "sysctl", "Kernel parameter in its namespaces, NAME=value")
	fs.BoolVar(&f.privileged, "privileged", false, "Give it the host's powers and devices")
	fs.StringVar(&f.pid, "pid", "", "PID namespace: host or container:NAME")
	fs.StringVar(&f.ipc, "ipc", "", "IPC namespace: none, private, shareable, host or container:NAME")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace: host")
	fs.StringVar(&f.userns, "userns", "", "User namespace: host")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Control group namespace: private or host")
}

func (f *networkFlags) add(fs *pflag.FlagSet) {
	fs.Var(&f.network, "network", "Network: bridge, none, host, container:NAME, NAME or name=NAME,ip=…")
	fs.Var(&f.aliases, "network-alias", "Further name in its network")
	fs.StringVar(&f.ip, "ip", "", "IPv4 address in its network")
	fs.StringVar(&f.ip6, "ip6", "", "IPv6 address in its network")
	fs.StringVar(&f.mac, "mac-address", "", "MAC address, such as 92:d0:c6:0a:29:33")
	fs.Var(&f.linkLocal, "link-local-ip", "Link-local address")
	fs.Var(&f.links, "link", "Know another container by a name, NAME[:ALIAS]")
	fs.VarP(&f.publish, "publish", "p", "Publish a port, [ADDRESS:][HOST:]CONTAINER[/udp]")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports at ports that are free")
	fs.Var(&f.expose, "expose", "Say that a port is served")
	f.hosts.check = checkHost
	fs.Var(&f.hosts, "add-host", "Line of /etc/hosts, NAME:ADDRESS")
	f.dns.check = checkDNS
	fs.Var(&f.dns, "dns", "Name server")
	fs.Var(&f.dnsOptions, "dns-option", "Option of the resolver")
	fs.Var(&f.dnsSearches, "dns-search", "Domain to search names in")
}
