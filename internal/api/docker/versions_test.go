package docker_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestClientsOfEachVersion: the main answers have what clients of a version read, and lack what it does not know or has lost. That nothing in
// them is of another type than their version's specification says is the recorder's to find.
func TestClientsOfEachVersion(t *testing.T) {
	e := start(t)
	e.want(t, 201, "POST", "/networks/create", `{"Name":"versions"}`, nil)
	t.Cleanup(func() { e.call(t, "DELETE", "/networks/versions", "") })
	e.want(t, 201, "POST", "/networks/create", `{"Name":"asked","IPAM":{"Config":[{"Subnet":"10.9.0.0/24"}]}}`, nil)
	t.Cleanup(func() { e.call(t, "DELETE", "/networks/asked", "") })
	begin := time.Now().Unix()
	id := e.create(t, `"Cmd":["sleep","100"],"HostConfig":{"NetworkMode":"versions","Annotations":{"a":"b"}},"NetworkingConfig":{"EndpointsConfig":{"versions":{"Aliases":["other"]}}}`)
	var made any
	e.want(t, 200, "GET", "/v1.44/containers/"+id+"/json", "", &made)
	if aliases := fmt.Sprint(find(made, "NetworkSettings.Networks.versions.Aliases")); aliases != "[other]" {
		t.Errorf("before the start: aliases are %s", aliases)
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	events := fmt.Sprintf("/events?since=%d&until=%d&filters=%s", begin, time.Now().Unix()+1, url.QueryEscape(`{"event":["start"],"container":["`+id+`"]}`))
	rows := []struct {
		path, at string // where in the answer, with dots
		from, to int    // versions that have it: from, and before to
		bare     bool   // clients that name no version have it
	}{
		{"/containers/" + id + "/json", "NetworkSettings.IPAddress", 24, 52, true},
		{"/containers/" + id + "/json", "NetworkSettings.Networks.versions.IPAddress", 24, 99, true},
		{"/containers/" + id + "/json", "GraphDriver.Name", 24, 52, true},
		{"/containers/" + id + "/json", "Config.OnBuild", 24, 52, true},
		{"/containers/" + id + "/json", "ImageManifestDescriptor", 48, 99, true},
		{"/containers/json", "0.Ports", 24, 99, true},
		{"/containers/json", "0.HostConfig.Annotations", 46, 99, true},
		{"/containers/json", "0.ImageManifestDescriptor", 48, 99, true},
		{"/images/json", "0.VirtualSize", 24, 44, false},
		{"/images/json", "0.Descriptor", 48, 99, true},
		{"/images/busybox:test/json", "VirtualSize", 24, 44, false},
		{"/images/busybox:test/json", "Container", 24, 45, false},
		{"/images/busybox:test/json", "Config.Hostname", 24, 50, false},
		{"/images/busybox:test/json", "Config.OnBuild", 24, 52, true},
		{"/images/busybox:test/json", "Parent", 24, 52, true},
		{"/images/busybox:test/json", "Config.Cmd", 24, 99, true},
		{"/system/df", "LayersSize", 24, 53, true},
		{"/system/df", "BuilderSize", 24, 42, false},
		{"/system/df", "ImageUsage", 52, 99, true},
		{"/info", "ExecutionDriver", 24, 25, false},
		{"/info", "BridgeNfIptables", 24, 50, false},
		{"/info", "FirewallBackend", 49, 99, true},
		{"/networks", "0.Containers", 24, 52, true},
		{"/networks", "0.IPAM.Config.0.Gateway", 52, 99, true}, // nobody asked for it
		{"/networks/asked", "IPAM.Config.0.Gateway", 52, 99, true},
		{"/networks/asked", "IPAM.Config.0.Subnet", 24, 99, true},
		{"/networks/versions", "IPAM.Config.0.Gateway", 24, 99, true},
		{events, "status", 24, 52, true},
		{events, "Action", 24, 99, true},
	}
	for _, version := range []int{24, 25, 30, 40, 44, 48, 51, 52, 53, 56, 0} {
		prefix := fmt.Sprintf("/v1.%d", version)
		if version == 0 {
			prefix = ""
		}
		answers := map[string]any{}
		for _, row := range rows {
			if answers[row.path] == nil {
				var v any
				e.want(t, 200, "GET", prefix+row.path, "", &v)
				answers[row.path] = v
			}
			want := version >= row.from && version < row.to
			if version == 0 {
				want = row.bare
			}
			if got := has(answers[row.path], row.at); got != want {
				t.Errorf("%s%s: %s is there: %v", prefix, row.path, row.at, got)
			}
		}
		aliases := fmt.Sprint(find(answers["/containers/"+id+"/json"], "NetworkSettings.Networks.versions.Aliases"))
		if short := strings.Contains(aliases, id[:12]); short != (version >= 24 && version < 45) || !strings.Contains(aliases, "other") {
			t.Errorf("%s: aliases are %s", prefix, aliases)
		}
	}
}

// TestAddressesOfNetworksAreAList: those of networks without addresses too. Vagrant asks how many there are.
func TestAddressesOfNetworksAreAList(t *testing.T) {
	e := start(t)
	for _, name := range []string{"host", "none", "bridge"} {
		if _, body := e.call(t, "GET", "/networks/"+name, ""); !strings.Contains(body, `"Config":[`) {
			t.Errorf("%s: %s", name, body)
		}
	}
}

// find goes into an answer as a client that knows no types; keys are parted by dots.
func find(v any, at string) any {
	for key := range strings.SplitSeq(at, ".") {
		switch x := v.(type) {
		case map[string]any:
			one, ok := x[key]
			if !ok {
				return missing{}
			}
			v = one
		case []any:
			if len(x) == 0 {
				return missing{}
			}
			v = x[0]
		default:
			return missing{}
		}
	}
	return v
}

type missing struct{}

func has(v any, at string) bool { return find(v, at) != missing{} }

// TestRequestsOfEachVersion: what a request of an old client means.
func TestRequestsOfEachVersion(t *testing.T) {
	e := start(t)
	make := func(version, fields string) any {
		t.Helper()
		var c struct {
			ID string `json:"Id"`
		}
		e.want(t, 201, "POST", version+"/containers/create", `{"Image":"busybox:test",`+fields+`}`, &c)
		defer e.call(t, "DELETE", "/containers/"+c.ID, "")
		var v any
		e.want(t, 200, "GET", "/containers/"+c.ID+"/json", "", &v)
		return v
	}
	rows := []struct{ version, fields, at, want string }{
		{"/v1.39", `"Cmd":["x"]`, "HostConfig.IpcMode", "shareable"},
		{"/v1.40", `"Cmd":["x"]`, "HostConfig.IpcMode", "private"},
		{"/v1.41", `"HostConfig":{"ConsoleSize":[10,20]}`, "HostConfig.ConsoleSize", "[0 0]"},
		{"/v1.42", `"HostConfig":{"ConsoleSize":[10,20]}`, "HostConfig.ConsoleSize", "[10 20]"},
		{"/v1.42", `"HostConfig":{"Annotations":{"a":"b"}}`, "HostConfig.Annotations", "{}"},
		{"/v1.43", `"HostConfig":{"Annotations":{"a":"b"}}`, "HostConfig.Annotations", "map[a:b]"},
		{"/v1.43", `"Healthcheck":{"Test":["CMD","x"],"StartInterval":2000000}`, "Config.Healthcheck.StartInterval", "{}"},
		{"/v1.44", `"Healthcheck":{"Test":["CMD","x"],"StartInterval":2000000}`, "Config.Healthcheck.StartInterval", "2e+06"},
		{"/v1.56", `"Volumes":{}`, "Config.Volumes", "<nil>"},
		{"/v1.24", `"Cmd":"one word","Entrypoint":"sh"`, "Config.Cmd", "[one word]"},
	}
	for _, row := range rows {
		if got := fmt.Sprint(find(make(row.version, row.fields), row.at)); got != row.want {
			t.Errorf("%s %s: %s is %s, not %s", row.version, row.fields, row.at, got, row.want)
		}
	}
	for path, want := range map[string]int{
		"/v1.40/containers/create?platform=linux/s390x": 201, "/v1.41/containers/create?platform=linux/s390x": 404,
	} {
		status, body := e.call(t, "POST", path, `{"Image":"busybox:test"}`)
		if status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if _, rest, ok := strings.Cut(body, `"Id":"`); ok {
			e.call(t, "DELETE", "/containers/"+rest[:64], "")
		}
	}
}
