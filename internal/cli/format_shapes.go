package cli

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// The shapes below stand in for parts of the API's types in which addresses and ports are values of their own: templates know them as
// texts, which may be empty and may be keys ({{index .NetworkSettings.Ports "80/tcp"}}).

type portTexts map[string][]struct{ HostIp, HostPort string }

// inspectedContainer is a container for templates.
type inspectedContainer struct {
	container.InspectResponse
	HostConfig *struct {
		container.HostConfig
		Dns          []string
		PortBindings portTexts
	}
	NetworkSettings *struct {
		SandboxID, SandboxKey string
		Ports                 portTexts
		Networks              map[string]*endpointTexts
		addressTexts
		Bridge                 string
		HairpinMode            bool
		LinkLocalIPv6Address   string
		LinkLocalIPv6PrefixLen int
	}
}

type addressTexts struct {
	EndpointID, Gateway, IPAddress, MacAddress string
	IPPrefixLen                                int
	IPv6Gateway, GlobalIPv6Address             string
	GlobalIPv6PrefixLen                        int
}

type endpointTexts struct {
	IPAMConfig *struct {
		IPv4Address, IPv6Address string   `json:",omitempty"`
		LinkLocalIPs             []string `json:",omitempty"`
	}
	Links, Aliases []string
	DriverOpts     map[string]string
	GwPriority     int
	NetworkID      string
	addressTexts
	DNSNames []string
}

// inspectedNetwork is a network for templates.
type inspectedNetwork struct {
	network.Inspect
	IPAM struct {
		Driver  string
		Options map[string]string
		Config  []struct {
			Subnet, IPRange, Gateway string            `json:",omitempty"`
			AuxiliaryAddresses       map[string]string `json:",omitempty"`
		}
	}
	Containers map[string]struct{ Name, EndpointID, MacAddress, IPv4Address, IPv6Address string }
	Peers      []struct{ Name, IP string } `json:",omitempty"`
}
