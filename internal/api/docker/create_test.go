package docker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func decodeCreate(t *testing.T, body string) (createBody, error) {
	t.Helper()
	var b createBody
	_, err := decodeJSON(strings.NewReader(body), &b)
	return b, err
}

func TestCreateRequestShapes(t *testing.T) {
	b, err := decodeCreate(t, `{"Image":"busybox","Cmd":"true","Entrypoint":["sh","-c"],"MacAddress":"02:42:ac:11:00:09",
		"HostConfig":{"NetworkMode":"net1","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}],"53/udp":null}}}`)
	if err != nil {
		t.Fatal(err)
	}
	r := b.request(unversioned)
	if r.Config.Image != "busybox" || !reflect.DeepEqual([]string(r.Config.Cmd), []string{"true"}) || !reflect.DeepEqual([]string(r.Config.Entrypoint), []string{"sh", "-c"}) {
		t.Errorf("config %+v", r.Config)
	}
	e := r.NetworkingConfig.EndpointsConfig["net1"]
	if e == nil || e.MacAddress.String() != "02:42:ac:11:00:09" {
		t.Errorf("the MAC address of old clients is lost: %+v", e)
	}
	b, err = decodeCreate(t, `{"Image":"busybox","MacAddress":"02:42:ac:11:00:09",
		"HostConfig":{"NetworkMode":"0123456789ab"},"NetworkingConfig":{"EndpointsConfig":{"net1":{"IPAMConfig":{"IPv4Address":"10.0.0.9"}}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if all := b.request(unversioned).NetworkingConfig.EndpointsConfig; len(all) != 1 || all["net1"].MacAddress.String() != "02:42:ac:11:00:09" {
		t.Errorf("a network by its id and its name is two: %+v", all)
	}
	if len(r.HostConfig.PortBindings) != 2 {
		t.Errorf("ports %v", r.HostConfig.PortBindings)
	}
	b, err = decodeCreate(t, `{"Image":"busybox","MacAddress":"02:42:ac:11:00:09"}`)
	if n := b.request(unversioned).NetworkingConfig; err != nil || n == nil || n.EndpointsConfig["bridge"].MacAddress.String() != "02:42:ac:11:00:09" {
		t.Errorf("without a host configuration the MAC address is lost: %+v %v", n, err)
	}
	b, err = decodeCreate(t, `{"Image":"busybox","Entrypoint":null,"Cmd":null}`)
	if r := b.request(unversioned); err != nil || r.Config.Cmd != nil || r.Config.Entrypoint != nil {
		t.Errorf("null commands: %+v %v", r.Config, err)
	}
}

// Until 1.44 an endpoint's MAC address was not read, and the one at the top was.
func TestOlderEndpoint(t *testing.T) {
	for v, want := range map[apiVersion][2]string{1043: {"", "02:42:ac:11:00:09"}, 1044: {"02:42:ac:11:00:04", "02:42:ac:11:00:04"}} {
		for i, top := range []string{"", `"MacAddress":"02:42:ac:11:00:09",`} {
			b, err := decodeCreate(t, `{"Image":"busybox",`+top+`"NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:04"},"null":null}}}`)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.request(v).NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String(); got != want[i] {
				t.Errorf("%s, %s: %q, not %q", v, top, got, want[i])
			}
		}
	}
}

func TestCheckCreate(t *testing.T) {
	rows := map[string]string{ // body: what the error names, "" for none
		`{"Image":"x"}`: "",
		`{"Image":"x","HostConfig":{"NetworkMode":"container:y","IpcMode":"shareable","PidMode":"host","CgroupnsMode":"private"}}`: "",
		`{}`:                "config cannot be empty",
		`{"HostConfig":{}}`: "config cannot be empty",
		`{"Image":"x","HostConfig":{"IpcMode":"hots"}}`:                                                                    "hots",
		`{"Image":"x","HostConfig":{"PidMode":"container:"}}`:                                                              "PID mode",
		`{"Image":"x","HostConfig":{"UTSMode":"private2"}}`:                                                                "UTS",
		`{"Image":"x","HostConfig":{"UsernsMode":"remap"}}`:                                                                "remap",
		`{"Image":"x","HostConfig":{"CgroupnsMode":"public"}}`:                                                             "public",
		`{"Image":"x","HostConfig":{"Isolation":"hyperv"}}`:                                                                "hyperv",
		`{"Image":"x","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}`:                                                "sometimes",
		`{"Image":"x","HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}}`:                             "retry",
		`{"Image":"x","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}`:                                 "AutoRemove",
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"nfs","Target":"/x"}]}}`:                                             "nfs",
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/"}]}}`:                                             "Target",
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Target":"/x","BindOptions":{"Propagation":"everywhere"}}]}}`: "everywhere",
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Target":"/x","Consistency":"eventual"}]}}`:                   "eventual",
		`{"Image":"x","Healthcheck":{"Test":["RUN","x"]}}`:                                                                 "RUN",
		`{"Image":"x","Healthcheck":{"Test":["CMD","x"],"Interval":5}}`:                                                    "Interval",
		`{"Image":"x","Healthcheck":{"Test":["CMD","x"],"Retries":-1}}`:                                                    "Retries",
	}
	for body, names := range rows {
		b, err := decodeCreate(t, body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		r := b.request(unversioned)
		err = checkCreate(&r)
		switch {
		case names == "" && err != nil:
			t.Errorf("%s: %v", body, err)
		case names != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), names)):
			t.Errorf("%s: error %v does not name %q", body, err, names)
		}
	}
}

func FuzzCreateRequest(f *testing.F) {
	f.Add(`{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostPort":"80"}]}}}`)
	f.Add(`{"Image":"x","Entrypoint":"sh","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"a":null}}}`)
	f.Add(`{"Image":"x","Healthcheck":{"Test":["CMD"]},"HostConfig":{"Mounts":[{}]}}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, body string) {
		var b createBody
		if _, err := decodeJSON(strings.NewReader(body), &b); err != nil {
			return
		}
		r := b.request(unversioned)
		if err := checkCreate(&r); err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%v is no invalid argument", err)
			}
			return
		}
		// What is accepted can be written down and read again.
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again createBody
		if _, err := decodeJSON(strings.NewReader(string(out)), &again); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	})
}

func FuzzHeadersAndFilters(f *testing.F) {
	f.Add(`{"label":["a"]}`)
	f.Add(`{"label":{"a":true}}`)
	f.Add("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==")
	f.Add("linux/arm64/v8")
	f.Add("/v1.40/x")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseFilters(s); err == nil {
			for name, set := range got {
				if set == nil {
					t.Fatalf("filter %q has no set", name)
				}
				for v, on := range set {
					if !on {
						t.Fatalf("filter %s=%s is off and still there", name, v)
					}
				}
			}
		}
		if a, err := parseAuth(s); err == nil && a != nil && a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" && a.Password == "" {
			t.Fatal("credentials without anything in them")
		}
		_, _ = parseAuths(s)
		_, _ = parsePlatform(s)
		_, _, _ = cutVersion(s)
		_ = checkName(s)
	})
}
