package docker

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cdi"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/disk"
	"wherry.dev/wherry/internal/forward"
	images "wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/version"
)

// systemRoutes are about the engine itself.
type systemRoutes struct {
	Services
	about  About
	server *Server
}

func (s *systemRoutes) add(add adder) {
	add("GET /_ping", s.ping) // HEAD too
	add("GET /version", s.version)
	add("GET /info", s.info)
	add("GET /events", s.server.lasting(s.events))
	add("GET /system/df", s.diskUsage)
	add("GET /wherry/state", s.state)
}

func (s *systemRoutes) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func kernelRelease() (release, machine string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown", runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
}

// newestFor is the newest version of the API that a client is told of. docker-compose 1.x speaks whatever version it hears, also one that
// came long after it and took away what it reads; so it hears the newest of its own day.
func newestFor(userAgent string) string {
	if strings.HasPrefix(userAgent, "docker-compose/1.") {
		return "1.41"
	}
	return version.API
}

func (s *systemRoutes) version(w http.ResponseWriter, r *http.Request) error {
	release, _ := kernelRelease()
	newest := newestFor(r.UserAgent())
	details := map[string]string{
		"ApiVersion": newest, "MinAPIVersion": version.MinAPI, "Arch": runtime.GOARCH, "Os": runtime.GOOS,
		"GitCommit": version.Version, "GoVersion": runtime.Version(), "KernelVersion": release, "Experimental": "true",
	}
	return writeJSON(w, http.StatusOK, system.VersionResponse{
		Platform:   system.PlatformInfo{Name: "Wherry"},
		Components: []system.ComponentVersion{{Name: "Engine", Version: version.Version, Details: details}},
		Version:    version.Version, GitCommit: version.Version, APIVersion: newest, MinAPIVersion: version.MinAPI,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GoVersion: runtime.Version(), KernelVersion: release,
	})
}

func (s *systemRoutes) info(w http.ResponseWriter, r *http.Request) error {
	release, machine := kernelRelease()
	info := system.Info{
		ID: s.about.ID, Driver: "overlayfs", DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: s.Volumes.Drivers(r.Context()), Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: slices.Sorted(slices.Values(append(forward.Kinds(), "json-file", "local"))),
		},
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		IPv4Forwarding: true, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(), NEventsListener: s.Events.Subscribers(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: cmp.Or(s.about.Containers.LogDriver, "json-file"), CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(),
		KernelVersion: release, OSType: runtime.GOOS, Architecture: machine, NCPU: runtime.NumCPU(), MemTotal: memoryTotal(),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: s.registries(), GenericResources: []swarm.GenericResource{},
		DockerRootDir: s.about.Root, HTTPProxy: withoutPassword(os.Getenv("HTTP_PROXY")), HTTPSProxy: withoutPassword(os.Getenv("HTTPS_PROXY")),
		NoProxy: os.Getenv("NO_PROXY"), Labels: []string{}, ServerVersion: version.Version,
		Runtimes: map[string]system.RuntimeWithStatus{"oar": {Runtime: system.Runtime{Path: "oar"}}}, DefaultRuntime: "oar", Debug: s.about.Debug,
		Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, LiveRestoreEnabled: true,
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=userns", "name=cgroupns"}, ExperimentalBuild: true, // checkpoints
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"}, CDISpecDirs: orEmpty(s.about.Containers.CDISpecDirs), Warnings: []string{},
	}
	s.devices(&info)
	info.Name, _ = os.Hostname()
	info.OperatingSystem, info.OSVersion = operatingSystem()
	if err := s.count(r.Context(), &info); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, shapeInfo(clientVersion(r.Context()), info))
}

// devices fills in what descriptions of vendors are found.
func (s *systemRoutes) devices(info *system.Info) {
	names, warnings := cdi.Dirs(s.about.Containers.CDISpecDirs).Devices()
	for _, name := range names {
		info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
	}
	info.Warnings = append(info.Warnings, warnings...)
}

// count fills in how many containers and images there are.
func (s *systemRoutes) count(ctx context.Context, info *system.Info) error {
	n := containers.Count(ctx, s.Containers)
	info.Containers = n.Running + n.Paused + n.Stopped
	info.ContainersRunning, info.ContainersPaused, info.ContainersStopped = n.Running, n.Paused, n.Stopped
	all, err := s.Images.List(ctx, images.ListOptions{})
	info.Images = len(all)
	return err
}

func (s *systemRoutes) registries() *registry.ServiceConfig {
	out := &registry.ServiceConfig{
		InsecureRegistryCIDRs: loopbackPrefixes(),
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               []string{},
	}
	for _, name := range s.about.Insecure {
		if p, err := netip.ParsePrefix(name); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, p)
			continue
		}
		out.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
	}
	return out
}

func (s *systemRoutes) diskUsage(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	v := clientVersion(r.Context())
	want := map[string]bool{}
	if v < 1042 {
		q.Del("type")
	}
	for _, t := range q.Values["type"] {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
			want[t] = true
		default:
			return invalid("unknown object type: %s", t)
		}
	}
	if len(want) == 0 && v != unversioned { // what Docker has no place for is not measured for its clients
		for _, t := range []system.DiskUsageObject{system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject} {
			want[string(t)] = true
		}
	}
	u, err := s.Disk.Usage(r.Context(), disk.Wanted{Images: want[string(system.ImageObject)], Containers: want[string(system.ContainerObject)],
		Volumes: want[string(system.VolumeObject)], Cache: want[string(system.BuildCacheObject)]})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, shapeDiskUsage(v, u, q.yes("verbose")))
}

// withoutPassword hides what stands before the @ of a proxy's address.
func withoutPassword(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if _, host, at := strings.Cut(rest, "@"); ok && at {
		return scheme + "://xxxxx@" + host
	}
	return address
}
