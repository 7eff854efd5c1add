package cli

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerRow is a line of `ps`.
type containerRow struct {
	Command      string
	CreatedAt    string
	HealthOutput string `json:"-" head:"HEALTH OUTPUT"` // Docker's JSON has no such field
	ID           string `head:"CONTAINER ID"`
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     *platformText
	Ports        string
	RunningFor   string `head:"CREATED"`
	Size         string
	State        string
	Status       string
	labels       map[string]string
}

// Label is the value of one label.
func (r containerRow) Label(name string) string { return r.labels[name] }

// platformText is a platform that prints as linux/arm64/v8.
type platformText struct{ ocispec.Platform }

func (p platformText) String() string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// containerLayout prints containers as `ps` does, with a column for sizes if they are asked for.
func containerLayout(sizes bool) layout {
	l := layout{
		table: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`,
		raw: `container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\n` +
			`status: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n`,
		quietFirst: true,
	}
	if sizes {
		l.table += `\t{{.Size}}`
		l.raw += `size: {{.Size}}\n`
	}
	return l
}

// newContainerRow writes a container down for people; short cuts ids, commands and names of mounts to what fits a line.
func newContainerRow(c container.Summary, short bool, now time.Time) containerRow {
	created := time.Unix(c.Created, 0)
	row := containerRow{
		ID: c.ID, Image: containerImage(c, short), Command: c.Command, CreatedAt: created.String(), RunningFor: ago(now, created),
		Ports: portText(c.Ports), State: string(c.State), Status: c.Status, Size: humanSize(c.SizeRw), Labels: labelText(c.Labels),
		labels: c.Labels,
	}
	if short {
		row.ID, row.Command = shortID(c.ID), ellipsis(c.Command, 20)
	}
	row.Command = strconv.Quote(row.Command)
	if d := c.ImageManifestDescriptor; d != nil && d.Platform != nil {
		row.Platform = &platformText{*d.Platform}
	}
	if c.SizeRootFs > 0 {
		row.Size = fmt.Sprintf("%s (virtual %s)", row.Size, humanSize(c.SizeRootFs))
	}
	var names []string
	for _, name := range c.Names {
		name = strings.TrimPrefix(name, "/")
		if short && strings.Contains(name, "/") {
			continue
		}
		names = append(names, name)
	}
	row.Names = strings.Join(names, ",")
	row.Mounts, row.LocalVolumes = mountText(c.Mounts, short)
	if c.NetworkSettings != nil {
		row.Networks = strings.Join(slices.Sorted(maps.Keys(c.NetworkSettings.Networks)), ",")
	}
	return row
}

// mountText lists what is mounted, and counts the volumes among it.
func mountText(mounts []container.MountPoint, short bool) (names, volumes string) {
	var list []string
	local := 0
	for _, m := range mounts {
		name := cmp.Or(m.Name, m.Source)
		if short {
			name = ellipsis(name, 15)
		}
		list = append(list, name)
		if m.Driver == "local" {
			local++
		}
	}
	return strings.Join(list, ","), strconv.Itoa(local)
}

// containerImage is the image's name as people write it: without Docker Hub's address and, if short, without a digest.
func containerImage(c container.Summary, short bool) string {
	switch {
	case c.Image == "":
		return "<no image>"
	case !short:
		return c.Image
	case shortID(c.ImageID) == shortID(c.Image):
		return shortID(c.Image)
	}
	name, _, _ := strings.Cut(c.Image, "@")
	return familiarName(name)
}

// listedContainer is a container as the engine lists it. Wherry is nil where its reference means what it was made of.
type listedContainer struct {
	container.Summary
	Wherry *struct{ Reference, Now, Health string }
}

// reference is what stands in the table: the reference that the container was made of also when it means another image by now, which is
// said then. Docker shows an id there, and so do formats.
func (c listedContainer) reference(otherwise string) string {
	switch {
	case c.Wherry == nil || c.Wherry.Reference == "":
		return otherwise
	case c.Wherry.Now == "":
		return familiarName(c.Wherry.Reference) + " (gone)"
	}
	return familiarName(c.Wherry.Reference) + " (moved)"
}

// portText lists ports, runs of neighbours as a range: "0.0.0.0:8080->80/tcp, 443/tcp".
func portText(ports []container.PortSummary) string {
	type run struct {
		host, protocol string
		first, last    uint16
	}
	text := func(r run) string {
		ports := strconv.Itoa(int(r.first))
		if r.last != r.first {
			ports += "-" + strconv.Itoa(int(r.last))
		}
		if r.host != "" {
			ports = net.JoinHostPort(r.host, ports) + "->" + ports
		}
		return ports + "/" + r.protocol
	}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	var done, moved []string
	var open []run // one for each address and protocol, in the order in which they came
	for _, p := range ports {
		host := ""
		if p.IP.IsValid() {
			host = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				moved = append(moved, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(host, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
		}
		i := slices.IndexFunc(open, func(r run) bool { return r.host == host && r.protocol == p.Type })
		switch {
		case i < 0:
			open = append(open, run{host: host, protocol: p.Type, first: p.PrivatePort, last: p.PrivatePort})
		case p.PrivatePort == open[i].last+1:
			open[i].last = p.PrivatePort
		default:
			done = append(done, text(open[i]))
			open[i].first, open[i].last = p.PrivatePort, p.PrivatePort
		}
	}
	for _, r := range open {
		done = append(done, text(r))
	}
	return strings.Join(append(done, moved...), ", ")
}
