package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/link"
)

// Drivers of networks.
const (
	driverBridge  = "bridge"
	driverMacvlan = link.Macvlan
	driverIpvlan  = link.Ipvlan
	driverHost    = "host"
	driverNull    = "null" // also of networks that are only a configuration for others
)

// Drivers of addresses: those that the engine gives, or none at all, for networks where others give them.
const (
	ipamDefault = "default"
	ipamNull    = "null"
)

// definition is what is kept of a network on disk. It never changes, but for addresses that the engine chose.
type definition struct {
	network.Network
	Bridge  string       `json:",omitempty"` // the link's name: the bridge, or the parent of macvlan and ipvlan
	Chosen  bool         `json:",omitempty"` // the engine chose the subnet of IPv4
	Adopted bool         `json:",omitempty"` // the link was there before the network and stays when it goes
	Unasked []netip.Addr `json:",omitempty"` // the gateways that the engine chose in subnets that somebody asked for
	Owner   string       `json:",omitempty"` // who made it, as access.Caller.ID names them
	Fixed   bool         `json:",omitempty"` // of the default network: its addresses are those of the setting network.bridge
}

func (d *definition) predefined() bool {
	return d.Name == network.NetworkBridge || d.Name == network.NetworkHost || d.Name == network.NetworkNone
}

// option is one of Docker's options of the bridge driver.
func (d *definition) option(name string) string { return d.Options["com.docker.network."+name] }

func (d *definition) flag(name string, fallback bool) bool {
	switch d.option(name) {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	return fallback
}

// write puts the definition on the disk: when write returns it is there, whole.
func (d *definition) write(dir string) error {
	b, err := json.MarshalIndent(d, "", " ")
	if err == nil {
		err = writeFile(filepath.Join(dir, d.ID+".json"), b, true)
	}
	if err != nil {
		return fmt.Errorf("write the definition of network %s: %w", d.Name, err)
	}
	return nil
}

// writeFile replaces a file by write and rename; a durable one is on the disk when it returns.
func writeFile(path string, b []byte, durable bool) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readFolder hands each .json file of a folder to decode; one that decode refuses is renamed aside and named in damaged.
func readFolder(dir string, decode func(name string, b []byte) error) (damaged []error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !e.Type().IsRegular() {
			if strings.HasSuffix(e.Name(), ".json.new") { // a write that was cut short
				os.Remove(path)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err == nil {
			err = decode(name, b)
		}
		if err == nil {
			continue
		}
		aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
		damaged = append(damaged, fmt.Errorf("%s is set aside as %s: %w", path, filepath.Base(aside), err))
		if err := os.Rename(path, aside); err != nil {
			damaged = append(damaged, err)
		}
	}
	return damaged, nil
}

// decodeDefinition reads a definition and checks that the engine can live with it.
func decodeDefinition(name string, b []byte) (*definition, error) {
	var d definition
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	switch {
	case d.ID != name || !isID(d.ID):
		return nil, fmt.Errorf("it defines %q", d.ID)
	case !validName(d.Name):
		return nil, fmt.Errorf("%q is no name of a network", d.Name)
	case d.Driver == driverHost || d.Driver == driverNull:
		return &d, nil
	case !d.plumbed():
		return nil, fmt.Errorf("there is no driver %q", d.Driver)
	case d.Bridge == "" || len(d.Bridge) > 15:
		return nil, fmt.Errorf("%q is no name of a link", d.Bridge)
	}
	if _, _, err := poolsOf(&d, nil); err != nil {
		return nil, err
	}
	return &d, nil
}

func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// load reads the definitions and adds the networks that always are.
func (s *Service) load() error {
	seen := map[string]bool{}
	damaged, err := readFolder(s.o.definitions(), func(name string, b []byte) error {
		d, err := decodeDefinition(name, b)
		if err != nil {
			return err
		}
		if seen[d.Name] {
			return fmt.Errorf("there is another network %s", d.Name)
		}
		seen[d.Name] = true
		n, err := newLan(d, neighbours(&s.state, d))
		if err == nil {
			n.built = true
			list(&s.state, n)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the networks: %w", err)
	}
	for _, err := range damaged {
		s.log(fmt.Errorf("a network's definition is damaged: %w", err))
	}
	for _, row := range []struct{ name, driver string }{{network.NetworkBridge, driverBridge}, {network.NetworkHost, driverHost}, {network.NetworkNone, driverNull}} {
		if seen[row.name] {
			continue
		}
		if err := s.addPredefined(row.name, row.driver); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) addPredefined(name, driver string) error {
	d := &definition{Network: network.Network{
		Name: name, ID: newID(), Created: time.Now(), Scope: "local", Driver: driver, EnableIPv4: true,
		IPAM: network.IPAM{Driver: ipamDefault}, Options: map[string]string{}, Labels: map[string]string{},
	}}
	if driver == driverBridge {
		d.Bridge = s.names.bridge
		var err error
		if d, err = tuned(&s.state, d); err != nil {
			return err
		}
	}
	n, err := newLan(d, neighbours(&s.state, d))
	if err != nil {
		return err
	}
	if err := d.write(s.o.definitions()); err != nil {
		return err
	}
	n.built = true
	s.networks[d.ID] = n
	return nil
}

// lan is a network in memory.
type lan struct {
	*definition
	v4, v6    *pool                // nil: the network has no such addresses
	endpoints map[string]*endpoint // by container
	removing  bool
	built     bool                   // it is whole, on the disk too
	index     int                    // the bridge's number
	annexes   map[int]int            // the numbers of its annexes' bridges
	named     map[string][]*endpoint // by name and alias, in lower case
}

func newLan(d *definition, beside besides) (*lan, error) {
	n := &lan{definition: d, endpoints: map[string]*endpoint{}, named: map[string][]*endpoint{}, annexes: map[int]int{}}
	if d.ConfigOnly {
		return n, nil
	}
	var err error
	n.v4, n.v6, err = poolsOf(d, beside)
	return n, err
}

// pools are all of the network's subnets.
func (n *lan) pools() iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		for _, first := range []*pool{n.v4, n.v6} {
			for p := range first.all() {
				if !yield(p) {
					return
				}
			}
		}
	}
}

func (n *lan) gateway() netip.Addr {
	if n.v4 != nil {
		return n.v4.gateway
	}
	return netip.Addr{}
}
