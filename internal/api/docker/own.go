package docker

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
)

// What a caller with the right `own` asks of a new container is checked after it was decoded, on the very values that the service gets: no other
// reading of the body can differ. What is not known to stay inside a container is refused, so that a field of tomorrow is.

// harmless are the fields of a host configuration that reach nothing outside of the container. Those that it depends on are in reaching.
const harmless = ` Binds ContainerIDFile NetworkMode PortBindings RestartPolicy AutoRemove VolumesFrom ConsoleSize CapDrop DNS DNSOptions DNSSearch ExtraHosts
 GroupAdd Links PublishAllPorts ReadonlyRootfs Tmpfs ShmSize Sysctls Isolation CPUShares Memory NanoCPUs CPUPeriod CPUQuota CpusetCpus CpusetMems
 MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Mounts Init BlkioWeight CPUCount CPUPercent IOMaximumIOps IOMaximumBandwidth Resources `

// ownCaps are the capabilities that Docker gives every container; inside the container's own user namespace they reach nothing else.
const ownCaps = " AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT "

// limits are those of a caller; nil: there are none.
type limits struct {
	v *visit
	s *containers.Service
}

func limitsOf(ctx context.Context, s *containers.Service) *limits {
	if v := visitOf(ctx); v != nil && v.may < access.All {
		return &limits{v, s}
	}
	return nil
}

// no is the refusal of something, with the rule that it comes from.
func (v *visit) no(format string, args ...any) error {
	return classed(errdefs.ErrPermissionDenied, "%s may not do this: %s (%s)", v.caller.ID(), fmt.Sprintf(format, args...), v.why)
}

// own finds a container that belongs to the caller.
func (l *limits) own(ref string) (containers.Named, error) {
	c, err := containers.NameOf(l.s, ref)
	if err == nil && (c.Owner == "" || c.Owner != l.v.caller.ID()) {
		return c, l.v.no("container %s belongs to somebody else", c.Name)
	}
	return c, err
}

// create checks a request, and puts ids in the place of names of other containers: a name may be somebody else's tomorrow.
func (l *limits) create(r *container.CreateRequest) error {
	if l == nil {
		return nil
	}
	h := r.HostConfig
	if err := l.host(h); err != nil {
		return err
	}
	for name := range r.Config.Labels {
		if strings.HasPrefix(name, "wherry.") && name != "wherry.restart" {
			return l.v.no("label %s is one of the engine's own", name)
		}
	}
	if r.NetworkingConfig != nil {
		for name, e := range r.NetworkingConfig.EndpointsConfig {
			if err := l.endpoint(name, e); err != nil {
				return err
			}
		}
	}
	return l.others(h)
}

// name refuses one that reads as an id. Another's, be it there or gone, is typed by people, and held by containers that share its namespaces.
func (l *limits) name(name string) error {
	if l != nil && len(name) >= 12 && strings.Trim(name, "0123456789abcdef") == "" {
		return l.v.no("the name %s reads as an id, and whoever gives that would mean what has this name", name)
	}
	return nil
}

// host checks what a host configuration says of the host.
func (l *limits) host(h *container.HostConfig) error {
	if h.Privileged {
		return l.v.no("a privileged container is root on the host")
	}
	modes := map[string]string{"--pid": string(h.PidMode), "--ipc": string(h.IpcMode), "--uts": string(h.UTSMode), "--userns": string(h.UsernsMode),
		"--cgroupns": string(h.CgroupnsMode), "--network": string(h.NetworkMode)}
	for flag, mode := range modes {
		if mode == "host" {
			return l.v.no("%s host joins the host's namespace", flag)
		}
	}
	if err := l.fields(h); err != nil {
		return err
	}
	for _, b := range h.Binds {
		if source, _, two := strings.Cut(b, ":"); two && !volumeName(source) {
			return l.v.no("-v %s mounts a path of the host", b)
		}
	}
	for _, m := range h.Mounts {
		if err := l.mount(m); err != nil {
			return err
		}
	}
	return nil
}

// fields refuses each field that is set and not known to be harmless.
func (l *limits) fields(h *container.HostConfig) error {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[container.HostConfig]()) {
		value := reflect.ValueOf(h).Elem().FieldByIndex(f.Index)
		if f.Anonymous || strings.Contains(harmless, " "+f.Name+" ") || blank(value) {
			continue
		}
		if !reaching(f.Name, h) {
			return l.v.no("HostConfig.%s=%v reaches out of the container", f.Name, value.Interface())
		}
	}
	return nil
}

func blank(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map: // [] says nothing, but for those that replace a default
		return v.IsNil() || v.Len() == 0 && v.Type() != reflect.TypeFor[[]string]()
	}
	return v.IsZero()
}

// reaching says of the fields whose value decides that this one does no harm.
func reaching(name string, h *container.HostConfig) bool {
	all := func(list []string, ok func(string) bool) bool {
		return !slices.ContainsFunc(list, func(s string) bool { return !ok(s) })
	}
	switch name {
	case "LogConfig":
		return slices.Contains([]string{"", "json-file", "local", "none"}, h.LogConfig.Type)
	case "VolumeDriver":
		return h.VolumeDriver == "local"
	case "Annotations":
		for key := range h.Annotations {
			if strings.HasPrefix(key, "wherry.") && key != "wherry.restart" {
				return false
			}
		}
		return true
	case "CapAdd":
		return all(h.CapAdd, func(c string) bool {
			return strings.Contains(ownCaps, " "+strings.TrimPrefix(strings.ToUpper(c), "CAP_")+" ")
		})
	case "SecurityOpt":
		return all(h.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") || o == "wherry=strict" })
	case "CgroupnsMode":
		return h.CgroupnsMode.IsPrivate()
	case "IpcMode":
		return h.IpcMode.IsPrivate() || h.IpcMode.IsShareable() || h.IpcMode.IsNone() || h.IpcMode.IsContainer()
	case "PidMode":
		return h.PidMode.IsContainer()
	case "OomScoreAdj":
		return h.OomScoreAdj >= 0
	case "Ulimits": // a program of the highest priority leaves the host's none of a processor's time, whatever shares of it there are
		return !slices.ContainsFunc(h.Ulimits, func(u *container.Ulimit) bool { return u != nil && u.Name == "rtprio" && (u.Soft != 0 || u.Hard != 0) })
	case "DeviceCgroupRules":
		return len(h.DeviceCgroupRules) == 0
	}
	return false
}

// volumeName says that a source is no path.
func volumeName(s string) bool {
	return s != "" && !strings.ContainsAny(s, `/\~`) && s[0] != '.'
}

func (l *limits) mount(m mount.Mount) error {
	switch {
	case m.Type == mount.TypeTmpfs, m.Type == mount.TypeImage:
		return nil
	case m.Type != mount.TypeVolume:
		return l.v.no("--mount type=%s,source=%s mounts a path of the host", m.Type, m.Source)
	case m.Source != "" && !volumeName(m.Source):
		return l.v.no("%s is a path of the host", m.Source)
	case m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil && (len(m.VolumeOptions.DriverConfig.Options) > 0 || !localDriver(m.VolumeOptions.DriverConfig.Name)):
		return l.v.no("a volume with options can be any path of the host")
	}
	return nil
}

func localDriver(name string) bool { return name == "" || name == "local" }

// endpoint checks what is wanted of a network. That the network is the caller's, the networks see to.
func (l *limits) endpoint(name string, e *network.EndpointSettings) error {
	if e != nil && (len(e.Links) > 0 || len(e.DriverOpts) > 0) {
		return l.v.no("links and driver options on network %s reach others", name)
	}
	return nil
}

// others checks the containers that a new one joins, by any of the ways that there are.
func (l *limits) others(h *container.HostConfig) error {
	join := func(flag, mode string) (string, error) {
		name, is := strings.CutPrefix(mode, "container:")
		if !is {
			return mode, nil
		}
		c, err := l.own(name)
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", flag, mode, err)
		}
		return "container:" + c.ID, nil
	}
	var err error
	for _, m := range []struct {
		flag string
		mode *string
	}{
		{"--network", (*string)(&h.NetworkMode)}, {"--pid", (*string)(&h.PidMode)}, {"--ipc", (*string)(&h.IpcMode)},
	} {
		if *m.mode, err = join(m.flag, *m.mode); err != nil {
			return err
		}
	}
	for i, text := range h.VolumesFrom {
		name, mode, _ := strings.Cut(text, ":")
		c, err := l.own(name)
		if err != nil {
			return fmt.Errorf("--volumes-from %s: %w", text, err)
		}
		h.VolumesFrom[i] = strings.TrimSuffix(c.ID+":"+mode, ":")
	}
	for i, text := range h.Links {
		name, alias, _ := strings.Cut(text, ":")
		c, err := l.own(strings.TrimPrefix(name, "/"))
		if err != nil {
			return fmt.Errorf("--link %s: %w", text, err)
		}
		h.Links[i] = c.ID + ":" + cmp.Or(alias, c.Name)
	}
	return nil
}

func (l *limits) exec(r *container.ExecCreateRequest) error {
	if l != nil && r.Privileged {
		return l.v.no("a privileged exec has more than its container")
	}
	return nil
}

// update checks new limits as those of a new container.
func (l *limits) update(u *container.UpdateConfig) error {
	if l == nil {
		return nil
	}
	return l.fields(&container.HostConfig{Resources: u.Resources, RestartPolicy: u.RestartPolicy})
}

// network checks a new network: options of drivers take over links of the host.
func (l *limits) network(r *network.CreateRequest) error {
	const fine = " com.docker.network.bridge.enable_icc com.docker.network.bridge.enable_ip_masquerade com.docker.network.driver.mtu com.docker.network.enable_ipv4 com.docker.network.enable_ipv6 "
	if l == nil {
		return nil
	}
	if err := l.name(r.Name); err != nil {
		return err
	}
	if r.Driver != "" && r.Driver != "bridge" && r.Driver != "default" {
		return l.v.no("networks of driver %s are on links of the host", r.Driver)
	}
	for name := range r.Options {
		if !strings.Contains(fine, " "+name+" ") {
			return l.v.no("network option %s reaches the host", name)
		}
	}
	if r.IPAM != nil && (len(r.IPAM.Options) > 0 || r.IPAM.Driver != "" && r.IPAM.Driver != "default") {
		return l.v.no("options of address management reach the host")
	}
	return nil
}

func (l *limits) volume(driver string, options map[string]string) error {
	if l != nil && (len(options) > 0 || !localDriver(driver)) {
		return l.v.no("a volume with options can be any path of the host")
	}
	return nil
}
