package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// ipamFlags are the addresses of a new network as they were written.
type ipamFlags struct {
	subnets, ranges, gateways []string
	aux, options              []string
	driver                    string
}

func networkCreateCommand(app *App) *cobra.Command {
	var r network.CreateRequest
	var ipam ipamFlags
	var labels, options []string
	var ipv4, ipv6 bool
	var from string
	c := &cobra.Command{Use: "create [OPTIONS] NETWORK", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		r.Name, r.Labels, r.Options = args[0], pairs(labels), pairs(options)
		if cmd.Flags().Changed("ipv4") {
			r.EnableIPv4 = &ipv4
		}
		if cmd.Flags().Changed("ipv6") {
			r.EnableIPv6 = &ipv6
		}
		if from != "" {
			r.ConfigFrom = &network.ConfigReference{Network: from}
		}
		var err error
		if r.IPAM, err = ipam.parse(); err != nil {
			return fmt.Errorf("network create %s: %w", args[0], err)
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var answer network.CreateResponse
		if err := cl.Post(cmd.Context(), "/networks/create", nil, r, &answer); err != nil {
			return err
		}
		if answer.Warning != "" {
			_ = say(app.Err, "warning:", answer.Warning)
		}
		return say(app.Out, answer.ID)
	}}
	f := c.Flags()
	f.StringVarP(&r.Driver, "driver", "d", "bridge", "Driver")
	f.StringArrayVarP(&options, "opt", "o", nil, "Option of the driver k=v; may be given often")
	f.StringArrayVar(&labels, "label", nil, "Label k=v; may be given often")
	f.BoolVar(&r.Internal, "internal", false, "No way out of it")
	f.BoolVar(&r.Attachable, "attachable", false, "Let containers be connected by hand (they always may)")
	f.BoolVar(&r.Ingress, "ingress", false, "Make it a swarm's routing mesh")
	f.BoolVar(&r.ConfigOnly, "config-only", false, "Only keep the configuration, for --config-from")
	f.StringVar(&from, "config-from", "", "Take the configuration of another network")
	f.StringVar(&r.Scope, "scope", "", "Scope")
	f.BoolVar(&ipv4, "ipv4", true, "Give IPv4 addresses")
	f.BoolVar(&ipv6, "ipv6", false, "Give IPv6 addresses")
	ipam.add(c)
	return c
}

func (i *ipamFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&i.subnets, "subnet", nil, "Addresses of the network, such as 10.9.0.0/24; may be given often")
	f.StringSliceVar(&i.ranges, "ip-range", nil, "Part of a subnet that containers get addresses from")
	f.StringSliceVar(&i.gateways, "gateway", nil, "Address of the gateway in a subnet")
	f.StringArrayVar(&i.aux, "aux-address", nil, "Address that no container gets, as name=address; may be given often")
	f.StringVar(&i.driver, "ipam-driver", "default", "Who gives addresses")
	f.StringArrayVar(&i.options, "ipam-opt", nil, "Option of who gives addresses k=v; may be given often")
}

// parse sorts ranges, gateways and reserved addresses under the subnets that they belong to.
func (i *ipamFlags) parse() (*network.IPAM, error) {
	out := &network.IPAM{Driver: i.driver, Options: pairs(i.options), Config: []network.IPAMConfig{}}
	for _, s := range i.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--subnet %s: write it as address/bits, such as 10.9.0.0/24", s)
		}
		for _, other := range out.Config {
			if other.Subnet.Overlaps(p) {
				return nil, fmt.Errorf("--subnet %s overlaps with --subnet %s", s, other.Subnet)
			}
		}
		out.Config = append(out.Config, network.IPAMConfig{Subnet: p})
	}
	for _, s := range i.ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--ip-range %s: write it as address/bits, such as 10.9.0.128/25", s)
		}
		c, err := subnetOf(out.Config, p.Addr(), "--ip-range "+s)
		if err != nil {
			return nil, err
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("--ip-range %s: %s has a range already (%s)", s, c.Subnet, c.IPRange)
		}
		c.IPRange = p
	}
	for _, s := range i.gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--gateway %s is no address", s)
		}
		c, err := subnetOf(out.Config, a, "--gateway "+s)
		if err != nil {
			return nil, err
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("--gateway %s: %s has a gateway already (%s)", s, c.Subnet, c.Gateway)
		}
		c.Gateway = a
	}
	return out, i.reserve(out.Config)
}

func (i *ipamFlags) reserve(list []network.IPAMConfig) error {
	for _, s := range i.aux {
		name, text, _ := strings.Cut(s, "=")
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--aux-address %s: write it as name=address", s)
		}
		c, err := subnetOf(list, a, "--aux-address "+s)
		if err != nil {
			return err
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = a
	}
	return nil
}

func subnetOf(list []network.IPAMConfig, a netip.Addr, flag string) (*network.IPAMConfig, error) {
	for i := range list {
		if list[i].Subnet.Contains(a) {
			return &list[i], nil
		}
	}
	return nil, fmt.Errorf("%s is in none of the subnets: give its --subnet, too", flag)
}

func networkConnectCommand(app *App) *cobra.Command {
	var e network.EndpointSettings
	var ip, ip6 string
	var linkLocal, options []string
	c := &cobra.Command{Use: "connect [OPTIONS] NETWORK CONTAINER", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		var err error
		if e.IPAMConfig, err = endpointAddresses(ip, ip6, linkLocal); err != nil {
			return err
		}
		if len(options) > 0 {
			e.DriverOpts = pairs(options)
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return cl.Post(cmd.Context(), networkPath(args[0], "/connect"), nil, network.ConnectRequest{Container: args[1], EndpointConfig: &e}, nil)
	}}
	f := c.Flags()
	f.StringVar(&ip, "ip", "", "IPv4 address")
	f.StringVar(&ip6, "ip6", "", "IPv6 address")
	f.StringSliceVar(&e.Aliases, "alias", nil, "Other name of the container on the network; may be given often")
	f.StringArrayVar(&e.Links, "link", nil, "Name of another container, as container:alias; may be given often")
	f.StringSliceVar(&linkLocal, "link-local-ip", nil, "Further address of the link")
	f.StringSliceVar(&options, "driver-opt", nil, "Option of the driver k=v; may be given often")
	f.IntVar(&e.GwPriority, "gw-priority", 0, "The network with the highest gives the default gateway")
	return c
}

// endpointAddresses are those that a container asks for; nil without any.
func endpointAddresses(ip, ip6 string, linkLocal []string) (*network.EndpointIPAMConfig, error) {
	if ip == "" && ip6 == "" && len(linkLocal) == 0 {
		return nil, nil
	}
	var out network.EndpointIPAMConfig
	if ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("--ip %s is no IPv4 address", ip)
		}
		out.IPv4Address = a
	}
	if ip6 != "" {
		a, err := netip.ParseAddr(ip6)
		if err != nil || !a.Is6() {
			return nil, fmt.Errorf("--ip6 %s is no IPv6 address", ip6)
		}
		out.IPv6Address = a
	}
	for _, s := range linkLocal {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--link-local-ip %s is no address", s)
		}
		out.LinkLocalIPs = append(out.LinkLocalIPs, a)
	}
	return &out, nil
}
