package docker

// What requests and answers look like to clients of each API version stands in the files shapes*.go and nowhere else. The services speak the
// newest types. A client that names no version gets the newest answers, with what newer versions took away beside it.
//
// Fields that are newer than the client's version are sent where nobody can take them for something else, as Docker's engine does.

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"golang.org/x/net/websocket"

	containers "wherry.dev/wherry/internal/container"
)

// multiplexedOrRaw is the content type of logs, attach and exec: clients before 1.42 only knew one.
func multiplexedOrRaw(v apiVersion, terminal bool) string {
	if terminal || v < 1042 {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// webSocketFrames is the kind of frames that carry output: text until 1.28, which broke what was no UTF-8.
func webSocketFrames(v apiVersion) byte {
	if v < 1028 {
		return websocket.TextFrame
	}
	return websocket.BinaryFrame
}

// createBody is a create request as clients of all versions write it: commands may be one string, and the MAC address stood in the
// container's configuration until 1.44. The fields here win over the embedded ones of the same name.
type createBody struct {
	container.CreateRequest
	Cmd        words
	Entrypoint words
	MacAddress network.HardwareAddr
	Wherry     wherrysOwn
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

func (b *createBody) request(v apiVersion) container.CreateRequest {
	r := b.CreateRequest
	if r.NetworkingConfig != nil {
		for _, e := range r.NetworkingConfig.EndpointsConfig {
			olderEndpoint(v, e)
		}
	}
	if r.Config == nil {
		return r
	}
	r.Config.Cmd, r.Config.Entrypoint = b.Cmd, b.Entrypoint
	if len(b.MacAddress) == 0 {
		return r
	}
	if r.HostConfig == nil {
		r.HostConfig = &container.HostConfig{}
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
	if e == nil && r.HostConfig.NetworkMode.IsUserDefined() && len(r.NetworkingConfig.EndpointsConfig) == 1 {
		for _, e = range r.NetworkingConfig.EndpointsConfig { // one of the two is the network's id, and the other its name
		}
	}
	if e == nil {
		e = &network.EndpointSettings{}
		r.NetworkingConfig.EndpointsConfig[name] = e
	}
	if len(e.MacAddress) == 0 {
		e.MacAddress = b.MacAddress
	}
	return r
}

// olderEndpoint leaves out the hardware address, which was not read until 1.44: who makes a container anew of what inspect says, as Watchtower
// does, sends the one that the old container got.
func olderEndpoint(v apiVersion, e *network.EndpointSettings) {
	if e != nil && v < 1044 {
		e.MacAddress = nil
	}
}

// containerInspect has GraphDriver and the top-level address of the default network, which 1.52 took out of NetworkSettings.
type containerInspect struct {
	containers.Inspection
	GraphDriver     *graphDriver     `json:",omitempty"`
	NetworkSettings *networkSettings `json:",omitempty"`
	Config          *inspectConfig   `json:",omitempty"`
}

// inspectConfig has what was there until 1.52: the hardware address that the container asks for, which is with its networks since 1.44, and
// OnBuild without a value.
type inspectConfig struct {
	*container.Config
	MacAddress string    `json:",omitempty"`
	OnBuild    *[]string `json:",omitempty"`
}

type graphDriver struct {
	Data map[string]string
	Name string
}

type networkSettings struct {
	*container.NetworkSettings
	*defaultNetwork
}

type defaultNetwork struct {
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
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
}

func shapeContainer(v apiVersion, c containers.Inspection) containerInspect {
	out := containerInspect{Inspection: c}
	if v < 1048 {
		out.ImageManifestDescriptor = nil
	}
	if c.Config != nil {
		out.Config = &inspectConfig{Config: c.Config}
		if !v.without(1052) {
			out.Config.MacAddress, out.Config.OnBuild = c.AskedMAC.String(), &c.Config.OnBuild
		}
	}
	if v.without(1052) {
		out.Inspection.GraphDriver = nil
	} else {
		out.GraphDriver = graphOf(c.Driver, c.GraphDriver)
	}
	if c.State != nil && c.State.Health != nil && c.State.Health.Log == nil {
		state, health := *c.State, *c.State.Health
		health.Log = []*container.HealthcheckResult{}
		state.Health, out.State = &health, &state
	}
	if c.NetworkSettings == nil {
		return out
	}
	n := &networkSettings{NetworkSettings: c.NetworkSettings}
	if !v.without(1052) {
		n.defaultNetwork = onBridge(c.NetworkSettings.Networks[network.NetworkBridge])
	}
	if v < 1045 {
		settings := *c.NetworkSettings
		settings.Networks = withShortID(c)
		n.NetworkSettings = &settings
	}
	out.NetworkSettings = n
	return out
}

// graphOf is what a driver says of itself.
func graphOf(name string, d *storage.DriverData) *graphDriver {
	out := &graphDriver{Name: name, Data: map[string]string{}}
	if d != nil {
		out.Name = d.Name
		maps.Copy(out.Data, d.Data)
	}
	return out
}

func onBridge(e *network.EndpointSettings) *defaultNetwork {
	if e == nil {
		return &defaultNetwork{}
	}
	return &defaultNetwork{
		EndpointID: e.EndpointID, IPPrefixLen: e.IPPrefixLen, GlobalIPv6PrefixLen: e.GlobalIPv6PrefixLen, MacAddress: e.MacAddress.String(),
		IPAddress: addressText(e.IPAddress), Gateway: addressText(e.Gateway),
		GlobalIPv6Address: addressText(e.GlobalIPv6Address), IPv6Gateway: addressText(e.IPv6Gateway),
	}
}

// withShortID puts the container's short id among its aliases, where clients before 1.45 look for it; DNSNames has it since. What
// is not on the network yet has none: docker-compose 1.29 connects it anew then, a one-off without its service's name.
func withShortID(c containers.Inspection) map[string]*network.EndpointSettings {
	out := maps.Clone(c.NetworkSettings.Networks)
	for name, e := range out {
		if e == nil || e.EndpointID == "" || !container.NetworkMode(name).IsUserDefined() {
			continue
		}
		changed := *e
		changed.Aliases = slices.Clone(e.Aliases)
		if short := c.ID[:min(12, len(c.ID))]; !slices.Contains(changed.Aliases, short) {
			changed.Aliases = append(changed.Aliases, short)
		}
		out[name] = &changed
	}
	return out
}

// listedContainer says beside Docker's fields what a reference was that means another image by now: Image is an id then, as in Docker.
type listedContainer struct {
	container.Summary
	Wherry *listedExtras `json:",omitempty"`
}

// listedExtras are what Docker's list has no field for.
type listedExtras struct {
	*containers.Move
	Health string `json:",omitempty"` // what the last probe printed, its first line, where it failed
}

func shapeContainers(v apiVersion, list []container.Summary, moved map[string]containers.Move, health map[string]string) []listedContainer {
	out := make([]listedContainer, len(list))
	for i, s := range list {
		if v < 1046 {
			s.HostConfig.Annotations = nil
		}
		if v < 1048 {
			s.ImageManifestDescriptor = nil
		}
		if v < 1052 {
			s.Health = nil
		}
		out[i].Summary = s
		m, hasMoved := moved[s.ID]
		if hasMoved || health[s.ID] != "" {
			out[i].Wherry = &listedExtras{Health: health[s.ID]}
		}
		if hasMoved {
			out[i].Wherry.Move = &m
		}
	}
	return out
}

// listedNetwork has an empty list of containers, which 1.52 took away: only inspect lists them.
type listedNetwork struct {
	network.Network
	Containers *struct{} `json:",omitempty"`
}

func shapeNetworks(v apiVersion, list []network.Inspect) []listedNetwork {
	out := make([]listedNetwork, len(list))
	for i, one := range list {
		out[i].Network = one.Network
		if !v.without(1052) {
			out[i].Containers = &struct{}{}
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

// orEmpty makes JSON's [] of nil.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
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
