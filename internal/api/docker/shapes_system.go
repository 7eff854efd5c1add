package docker

import (
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/disk"
)

// eventMessage has the fields of container events that clients before 1.52 read.
type eventMessage struct {
	events.Message
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
}

func shapeEvent(v apiVersion, m events.Message) eventMessage {
	out := eventMessage{Message: m}
	if !v.without(1052) && (m.Type == events.ContainerEventType || m.Type == events.ImageEventType) {
		out.Status, out.ID, out.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	}
	return out
}

// eventStream is how events follow each other: since 1.52 as the client says it takes them.
func eventStream(v apiVersion, accept []string) (contentType string, before string) {
	if v < 1052 {
		return "application/json", ""
	}
	for _, list := range accept {
		for _, one := range strings.Split(list, ",") {
			kind, _, _ := strings.Cut(strings.TrimSpace(one), ";")
			switch kind {
			case "application/json-seq":
				return kind, "\x1e" // RFC 7464
			case "application/jsonl", "application/x-ndjson":
				return kind, ""
			}
		}
	}
	return "application/x-ndjson", ""
}

// diskUsage is the flat form of 1.52 and before, the summed form since 1.52, and what is neither.
type diskUsage struct {
	*flatUsage
	BuilderSize *int64 `json:",omitempty"` // until 1.42
	system.DiskUsage
	Other *disk.Other `json:",omitempty"`
}

type flatUsage struct {
	LayersSize int64
	Images     []imageSummary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}

// shapeDiskUsage lists each thing in the summed form where that is asked for, and for clients without a version.
func shapeDiskUsage(v apiVersion, d disk.Usage, verbose bool) diskUsage {
	out := diskUsage{}
	if v == unversioned {
		out.Other = d.Other
	}
	if v < 1052 || v == 1052 && !verbose || v == unversioned {
		out.flatUsage = flatten(v, d)
	}
	if v < 1042 {
		out.BuilderSize = new(int64)
	}
	if v < 1052 {
		return out
	}
	out.DiskUsage = d.DiskUsage
	if !verbose && v != unversioned {
		out.DiskUsage = withoutItems(d.DiskUsage)
	}
	return out
}

func flatten(v apiVersion, d disk.Usage) *flatUsage {
	out := &flatUsage{BuildCache: []build.CacheRecord{}, Images: []imageSummary{}, Containers: []container.Summary{}, Volumes: []volume.Volume{}}
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

// withoutItems is the sums alone; what d points to stays as it is.
func withoutItems(d system.DiskUsage) system.DiskUsage {
	if d.ImageUsage != nil {
		u := *d.ImageUsage
		u.Items, d.ImageUsage = nil, &u
	}
	if d.ContainerUsage != nil {
		u := *d.ContainerUsage
		u.Items, d.ContainerUsage = nil, &u
	}
	if d.VolumeUsage != nil {
		u := *d.VolumeUsage
		u.Items, d.VolumeUsage = nil, &u
	}
	if d.BuildCacheUsage != nil {
		u := *d.BuildCacheUsage
		u.Items, d.BuildCacheUsage = nil, &u
	}
	return d
}

// infoResponse has what clients before 1.50 warn about when it is missing, and what 1.24 had.
type infoResponse struct {
	system.Info
	BridgeNfIptables  *bool  `json:"BridgeNfIptables,omitempty"`
	BridgeNfIP6tables *bool  `json:"BridgeNfIp6tables,omitempty"`
	ExecutionDriver   string `json:",omitempty"`
}

func shapeInfo(v apiVersion, i system.Info) infoResponse {
	out := infoResponse{Info: i}
	if v < 1025 { // names alone
		out.ExecutionDriver = "<not supported>"
		out.SecurityOptions = nil
		for _, o := range i.SecurityOptions {
			name, _, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
			out.SecurityOptions = append(out.SecurityOptions, name)
		}
	}
	if v < 1049 {
		out.FirewallBackend = nil
	}
	if v < 1050 {
		yes := true
		out.BridgeNfIptables, out.BridgeNfIP6tables = &yes, &yes
	}
	return out
}
