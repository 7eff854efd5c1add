package container

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
)

// ListOptions of List; the zero value lists what runs. Filters have Docker's names.
type ListOptions struct {
	All     bool
	Limit   int // the newest so many, whatever their state; 0: all
	Filters map[string]map[string]bool
}

// listing is what a service lists by.
type listing struct{ *Service }

// List describes containers, newest first. Sizes are left to package files.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	f, err := listing{s}.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	out := []container.Summary{}
	images := map[string]string{}
	scope := access.ScopeOf(ctx)
	all := s.index.all()
	links := linkNames(all)
	for _, c := range all {
		r := c.record()
		if !scope.Sees(r.Owner) {
			continue
		}
		running := r.Status.Alive() || r.Status == Restarting
		if !running && !o.All && !f.all && o.Limit <= 0 || !f.matches(candidate{c: c, r: r, health: c.healthState()}) {
			continue
		}
		row := listing{s}.summary(ctx, c, r, images)
		row.Names = append(row.Names, links[r.ID]...)
		out = append(out, row)
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

// Counts are how many containers there are, by what `info` tells apart.
type Counts struct{ Running, Paused, Stopped int }

// Count looks at records only: nothing is put together that a list would show.
func Count(ctx context.Context, s *Service) (n Counts) {
	scope := access.ScopeOf(ctx)
	for _, c := range s.index.all() {
		r := c.record()
		switch {
		case !scope.Sees(r.Owner):
		case r.Status == Paused:
			n.Paused++
		case r.Status.Alive(), r.Status == Restarting:
			n.Running++
		default:
			n.Stopped++
		}
	}
	return n
}

// summary is one row. images holds what references were found to mean in this list.
func (s listing) summary(ctx context.Context, c *Container, r *Record, images map[string]string) container.Summary {
	manifest := r.Image.Manifest
	out := container.Summary{ID: r.ID, Names: []string{"/" + r.Name}, Image: s.imageName(ctx, r, images), ImageID: r.Image.ID.String(),
		ImageManifestDescriptor: &manifest, Command: commandText(r.command()), Created: r.Created.Unix(), Labels: r.Config.Labels,
		State: r.Status.API(), Mounts: r.shown()}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.HostConfig.NetworkMode, out.HostConfig.Annotations = string(r.HostConfig.NetworkMode), r.HostConfig.Annotations
	health := c.healthState()
	out.Status = statusText(r, health)
	out.Health = &container.HealthSummary{Status: container.NoHealthcheck}
	if health != nil {
		out.Health = &container.HealthSummary{Status: health.Status, FailingStreak: health.FailingStreak}
	}
	var ports network.PortMap
	out.NetworkSettings = &container.NetworkSettingsSummary{}
	out.NetworkSettings.Networks, ports = s.connections(r)
	out.Ports = portList(ports)
	return out
}

// imageName is the reference that the container was made of, or the image's id where the reference means another one by now.
func (s listing) imageName(ctx context.Context, r *Record, known map[string]string) string {
	if strings.HasSuffix(r.Config.Image, "@"+r.Image.ID.String()) {
		return r.Config.Image // it can mean nothing else
	}
	id, ok := known[r.Config.Image]
	if !ok {
		if means, err := s.o.Images.Means(ctx, r.Config.Image); err == nil {
			id = means.String()
		}
		known[r.Config.Image] = id
	}
	if id != r.Image.ID.String() {
		return r.Image.ID.String()
	}
	return r.Config.Image
}

// commandText is a command on one line; arguments with spaces are quoted.
func commandText(command []string) string {
	words := slices.Clone(command)
	for i, w := range words {
		if i > 0 && strings.Contains(w, " ") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

// statusText is the state for people, in Docker's words; a clean layer of --restart-fresh is named.
func statusText(r *Record, health *container.Health) string {
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) }
	switch r.Status {
	case Created:
		return "Created"
	case Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	case Exited:
		if r.StartedAt.IsZero() {
			return "Created"
		}
		return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	case Removing:
		return "Removal In Progress"
	case Dead:
		return "Dead"
	}
	text := "Up " + ago(r.StartedAt)
	if r.Restarted == "fresh" {
		text += ", restarted fresh"
	}
	switch {
	case r.Status == Paused:
		text += " (Paused)"
	case health == nil:
	case health.Status == container.Starting:
		text += " (health: starting)"
	default:
		text += " (" + string(health.Status) + ")"
	}
	return text
}

// portList lists published ports, and exposed ones that are not published.
func portList(ports network.PortMap) []container.PortSummary {
	out := []container.PortSummary{}
	for p, bindings := range ports {
		one := container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())}
		if len(bindings) == 0 {
			out = append(out, one)
		}
		for _, b := range bindings {
			published := one
			published.IP = b.HostIP
			_, _ = fmt.Sscanf(b.HostPort, "%d", &published.PublicPort)
			out = append(out, published)
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		return strings.Compare(a.Type+a.IP.String(), b.Type+b.IP.String())
	})
	return out
}
