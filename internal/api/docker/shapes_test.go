package docker

import (
	"encoding/json"
	"net/netip"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/net/websocket"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/disk"
	"wherry.dev/wherry/internal/version"
)

// asMap is how a client that knows no types sees an answer.
func asMap(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func imageMap(t *testing.T, v apiVersion, i image.InspectResponse, manifests bool) map[string]any {
	t.Helper()
	out, err := shapeImage(v, i, manifests)
	if err != nil {
		t.Fatal(err)
	}
	return asMap(t, out)
}

func TestContainerShape(t *testing.T) {
	in := container.InspectResponse{ID: "x", Driver: "overlayfs", NetworkSettings: &container.NetworkSettings{
		SandboxKey: "key",
		Networks: map[string]*network.EndpointSettings{"bridge": {
			IPAddress: netip.MustParseAddr("172.17.0.2"), Gateway: netip.MustParseAddr("172.17.0.1"), IPPrefixLen: 16,
			MacAddress: network.HardwareAddr{2, 0x42, 0, 0, 0, 1},
		}},
	}}
	out := asMap(t, shapeContainer(1051, containers.Inspection{InspectResponse: in}))
	n := out["NetworkSettings"].(map[string]any)
	if n["IPAddress"] != "172.17.0.2" || n["Gateway"] != "172.17.0.1" || n["MacAddress"] != "02:42:00:00:00:01" || n["SandboxKey"] != "key" {
		t.Errorf("network settings %v", n)
	}
	if n["Networks"].(map[string]any)["bridge"] == nil || out["Id"] != "x" {
		t.Errorf("the new form is lost: %v", out)
	}
	if g := out["GraphDriver"].(map[string]any); g["Name"] != "overlayfs" {
		t.Errorf("graph driver %v", g)
	}
	asked := containers.Inspection{InspectResponse: in, AskedMAC: network.HardwareAddr{2, 0, 0, 0, 0, 9}}
	asked.InspectResponse.Config = &container.Config{Image: "busybox"}
	for v, want := range map[apiVersion]any{1043: "02:00:00:00:00:09", 1051: "02:00:00:00:00:09", 1052: nil} {
		if c := asMap(t, shapeContainer(v, asked))["Config"].(map[string]any); c["MacAddress"] != want || c["Image"] != "busybox" {
			t.Errorf("%v: configuration %v", v, c)
		}
	}
	if out := asMap(t, shapeContainer(1051, containers.Inspection{})); out["NetworkSettings"] != nil {
		t.Errorf("no settings: %v", out["NetworkSettings"])
	}
}

func TestImageShapes(t *testing.T) {
	in := image.InspectResponse{ID: "sha256:x", Size: 5, Manifests: []image.ManifestSummary{{ID: "m"}}}
	for _, row := range []struct {
		v                  apiVersion
		ask                bool
		virtual, manifests bool
	}{{1024, true, true, false}, {1043, false, true, false}, {1044, false, false, false}, {1048, true, false, true}, {1048, false, false, false}} {
		out := imageMap(t, row.v, in, row.ask)
		if (out["VirtualSize"] != nil) != row.virtual || (out["Manifests"] != nil) != row.manifests {
			t.Errorf("%+v: %v", row, out)
		}
		list := asMap(t, shapeImages(row.v, []image.Summary{{ID: "x", Size: 5}})[0])
		if (list["VirtualSize"] != nil) != row.virtual {
			t.Errorf("list, %+v: %v", row, list)
		}
	}
	if b, _ := json.Marshal(shapeImages(1051, nil)); string(b) != "[]" {
		t.Errorf("no images are %s", b)
	}
}

func TestEventShape(t *testing.T) {
	out := asMap(t, shapeEvent(1051, events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "x", Attributes: map[string]string{"image": "busybox"}}}))
	if out["status"] != "start" || out["id"] != "x" || out["from"] != "busybox" || out["Action"] != "start" {
		t.Errorf("%v", out)
	}
	out = asMap(t, shapeEvent(1051, events.Message{Type: "network", Action: "create"}))
	if out["status"] != nil {
		t.Errorf("a network's event has the containers' old fields: %v", out)
	}
}

func TestDiskUsageShape(t *testing.T) {
	in := disk.Usage{Other: &disk.Other{}, DiskUsage: system.DiskUsage{
		ImageUsage: &image.DiskUsage{TotalSize: 9, Items: []image.Summary{{ID: "x"}}}, ContainerUsage: &container.DiskUsage{},
	}}
	for _, row := range []struct {
		v                           apiVersion
		verbose                     bool
		flat, sums, items, builders bool
	}{
		{v: 1041, flat: true, builders: true}, {v: 1051, flat: true}, {v: 1052, flat: true, sums: true}, {v: 1052, verbose: true, sums: true, items: true},
		{v: 1053, sums: true}, {v: 1056, verbose: true, sums: true, items: true}, {v: unversioned, flat: true, sums: true, items: true},
	} {
		out := asMap(t, shapeDiskUsage(row.v, in, row.verbose))
		images, _ := out["ImageUsage"].(map[string]any)
		if (out["LayersSize"] == 9.0) != row.flat || (images != nil) != row.sums || (images["Items"] != nil) != row.items || (out["BuilderSize"] != nil) != row.builders {
			t.Errorf("%+v: %v", row, out)
		}
	}
	if in.ImageUsage.Items == nil {
		t.Error("the service's own answer was changed")
	}
}

func TestEventFilters(t *testing.T) {
	m := events.Message{Type: "container", Action: "health_status: healthy", Actor: events.Actor{
		ID: "0123456789abcdef", Attributes: map[string]string{"name": "web", "image": "nginx:1", "tier": "front"}}}
	rows := map[string]bool{
		`{}`: true, `{"type":["container"]}`: true, `{"type":["image","container"]}`: true, `{"type":["image"]}`: false,
		`{"event":["health_status"]}`: true, `{"event":["health_status: healthy"]}`: true, `{"event":["start"]}`: false,
		`{"container":["web"]}`: true, `{"container":["012345"]}`: true, `{"container":["0"]}`: true, `{"container":["w"]}`: true, `{"container":["eb"]}`: false, `{"container":["b","01"]}`: true,
		`{"container":["api"]}`: false,
		`{"image":["nginx"]}`:   true, `{"image":["nginx:1"]}`: true, `{"image":["redis"]}`: false,
		`{"label":["tier"]}`: true, `{"label":["tier=front","name=web"]}`: true, `{"label":["tier=back"]}`: false,
		`{"type":["container"],"container":["api"]}`: false, `{"scope":["local"]}`: true, `{"network":["bridge"]}`: false, `{"network":["w"]}`: false,
	}
	for s, want := range rows {
		f, err := parseFilters(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := eventMatches(f, m); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	if err := checkEventFilters(map[string]map[string]bool{"nmae": {}}); err == nil {
		t.Error("an unknown filter passes")
	}
}

// TestNewestForOldCompose: docker-compose 1.x is told of the newest version of its day, and finds the volumes of images where it looks.
func TestNewestForOldCompose(t *testing.T) {
	for agent, want := range map[string]string{
		"docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1": "1.41",
		"compose/v2.40.0":         version.API,
		"docker-sdk-python/7.1.0": version.API,
		"":                        version.API,
	} {
		if got := newestFor(agent); got != want {
			t.Errorf("%q is told of %s, not %s", agent, got, want)
		}
	}
	in := image.InspectResponse{Config: &dockerspec.DockerOCIImageConfig{}}
	in.Config.Volumes = map[string]struct{}{"/data": {}}
	volumes := func(v apiVersion) any {
		c, _ := imageMap(t, v, in, false)["ContainerConfig"].(map[string]any)
		return c["Volumes"]
	}
	if got, _ := volumes(1041).(map[string]any); len(got) != 1 {
		t.Errorf("volumes %v", got)
	}
	if got := volumes(1045); got != nil {
		t.Errorf("1.45 has a container's configuration: %v", got)
	}
}

func TestWebSocketFrames(t *testing.T) {
	for v, want := range map[apiVersion]byte{1024: websocket.TextFrame, 1027: websocket.TextFrame, 1028: websocket.BinaryFrame, unversioned: websocket.BinaryFrame} {
		if got := webSocketFrames(v); got != want {
			t.Errorf("%v: %d", v, got)
		}
	}
}
