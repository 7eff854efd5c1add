package docker

// What an answer looks like to clients of each API version stands here and nowhere else. The services speak the newest types (1.52 and
// later); the engine's newest version is 1.51, so every client gets what 1.52 took away.

import (
	"encoding/json"
	"net/netip"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/disk"
)

// multiplexedOrRaw is the content type of logs, attach and exec: clients before 1.42 only knew one.
func multiplexedOrRaw(v apiVersion, terminal bool) string {
	if terminal || v < 1042 {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// createBody is a create request as clients of all versions write it: commands may be one string, and the MAC address stood in the
// container's configuration until 1.44. The fields here win over the embedded ones of the same name.
type createBody struct {
	container.CreateRequest
	Cmd        words
	Entrypoint words
	MacAddress network.HardwareAddr
}

// words is a list of strings that may be written as one string.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*w = words{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(w))
}

func (b *createBody) request() container.CreateRequest {
	r := b.CreateRequest
	if r.Config == nil {
		return r
	}
	r.Config.Cmd, r.Config.Entrypoint = b.Cmd, b.Entrypoint
	if len(b.MacAddress) == 0 || r.HostConfig == nil {
		return r
	}
	name := string(r.HostConfig.NetworkMode)
	if name == "" || name == network.NetworkDefault {
		name = network.NetworkBridge
	}
	if r.NetworkingConfig == nil {
		r.NetworkingConfig = &network.NetworkingConfig{}
	}
	if r.NetworkingConfig.EndpointsConfig == nil {
		r.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	e := r.NetworkingConfig.EndpointsConfig[name]
	if e == nil {
		e = &network.EndpointSettings{}
		r.NetworkingConfig.EndpointsConfig[name] = e
	}
	if len(e.MacAddress) == 0 {
		e.MacAddress = b.MacAddress
	}
	return r
}

// containerInspect has the top-level address of the default network, which 1.52 took out of NetworkSettings, and GraphDriver.
type containerInspect struct {
	containers.Inspection
	GraphDriver     graphDriver
	NetworkSettings *networkSettings
}

type graphDriver struct {
	Data map[string]string
	Name string
}

type networkSettings struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

func shapeContainer(c containers.Inspection) containerInspect {
	out := containerInspect{Inspection: c, GraphDriver: graphDriver{Name: c.Driver}}
	if c.GraphDriver != nil {
		out.GraphDriver = graphDriver{Name: c.GraphDriver.Name, Data: c.GraphDriver.Data}
	}
	if c.NetworkSettings == nil {
		return out
	}
	n := &networkSettings{NetworkSettings: c.NetworkSettings}
	if e := c.NetworkSettings.Networks[network.NetworkBridge]; e != nil {
		n.EndpointID = e.EndpointID
		n.IPPrefixLen, n.GlobalIPv6PrefixLen = e.IPPrefixLen, e.GlobalIPv6PrefixLen
		n.MacAddress = e.MacAddress.String()
		n.IPAddress, n.Gateway = addressText(e.IPAddress), addressText(e.Gateway)
		n.GlobalIPv6Address, n.IPv6Gateway = addressText(e.GlobalIPv6Address), addressText(e.IPv6Gateway)
	}
	out.NetworkSettings = n
	return out
}

// listedContainer says beside Docker's fields what a reference was that means another image by now: Image is an id then, as in Docker.
type listedContainer struct {
	container.Summary
	Wherry *containers.Move `json:",omitempty"`
}

func shapeContainers(list []container.Summary, moved map[string]containers.Move) []listedContainer {
	out := make([]listedContainer, len(list))
	for i, s := range list {
		out[i].Summary = s
		if m, ok := moved[s.ID]; ok {
			out[i].Wherry = &m
		}
	}
	return out
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// imageInspect has what was always there until 1.52 (GraphDriver), 1.50 (Parent and the like) and 1.44 (VirtualSize).
type imageInspect struct {
	image.InspectResponse
	Parent        string
	DockerVersion string
	GraphDriver   graphDriver
	VirtualSize   *int64 `json:",omitempty"`
}

func shapeImage(v apiVersion, i image.InspectResponse, manifests bool) imageInspect {
	out := imageInspect{InspectResponse: i, GraphDriver: graphDriver{Name: "overlayfs"}}
	if i.GraphDriver != nil {
		out.GraphDriver = graphDriver{Name: i.GraphDriver.Name, Data: i.GraphDriver.Data}
	}
	if v < 1048 || !manifests {
		out.Manifests = nil
	}
	if v < 1044 {
		out.VirtualSize = &i.Size
	}
	return out
}

type imageSummary struct {
	image.Summary
	VirtualSize *int64 `json:",omitempty"`
}

func shapeImages(v apiVersion, list []image.Summary) []imageSummary {
	out := make([]imageSummary, 0, len(list))
	for _, s := range list {
		one := imageSummary{Summary: s}
		if v < 1044 {
			size := s.Size
			one.VirtualSize = &size
		}
		if v < 1047 {
			one.Manifests = nil
		}
		if v < 1048 {
			one.Descriptor = nil
		}
		out = append(out, one)
	}
	return out
}

// eventMessage has the fields of container events that clients before 1.52 read.
type eventMessage struct {
	events.Message
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
}

func shapeEvent(m events.Message) eventMessage {
	out := eventMessage{Message: m}
	if m.Type == events.ContainerEventType || m.Type == events.ImageEventType {
		out.Status, out.ID, out.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	}
	return out
}

// diskUsage is the flat form until 1.51 with the summed form of 1.52 beside it, and what is neither.
type diskUsage struct {
	LayersSize int64
	Images     []imageSummary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
	disk.Usage
}

func shapeDiskUsage(v apiVersion, d disk.Usage) diskUsage {
	out := diskUsage{BuildCache: []build.CacheRecord{}, Usage: d}
	if d.BuildCacheUsage != nil {
		out.BuildCache = orEmpty(d.BuildCacheUsage.Items)
	}
	if d.ImageUsage != nil {
		out.LayersSize = d.ImageUsage.TotalSize
		out.Images = shapeImages(v, d.ImageUsage.Items)
	}
	if d.ContainerUsage != nil {
		out.Containers = orEmpty(d.ContainerUsage.Items)
	}
	if d.VolumeUsage != nil {
		out.Volumes = orEmpty(d.VolumeUsage.Items)
	}
	return out
}

// orEmpty makes JSON's [] of nil.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// infoResponse has switches that clients before 1.50 warn about when they are missing.
type infoResponse struct {
	system.Info
	BridgeNfIptables  bool `json:"BridgeNfIptables"`
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
}

func shapeInfo(v apiVersion, i system.Info) any {
	if v < 1050 {
		return infoResponse{Info: i, BridgeNfIptables: true, BridgeNfIP6tables: true}
	}
	return i
}

func rawJSON(v any) *json.RawMessage {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	m := json.RawMessage(b)
	return &m
}
