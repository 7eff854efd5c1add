package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
)

const recordedContainer = `{"Id":"4ea1d7c6f7b0aa99bb88cc77dd66ee55ff44aa33bb22cc11dd00ee99ff88aa77","Created":"2026-11-20T10:00:00.5Z","Path":"nginx","Args":["-g","daemon off;"],` +
	`"State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":4242,"ExitCode":0,"Error":"","StartedAt":"2026-11-20T10:00:01Z","FinishedAt":"0001-01-01T00:00:00Z"},` +
	`"Image":"sha256:1111111111112222222222223333333333334444444444445555555555556666","ResolvConfPath":"/r","HostnamePath":"/h","HostsPath":"/hosts","LogPath":"","Name":"/web","RestartCount":2,"Driver":"overlayfs","Platform":"linux","MountLabel":"","ProcessLabel":"","AppArmorProfile":"","ExecIDs":null,` +
	`"HostConfig":{"Binds":["data:/data"],"NetworkMode":"back","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"RestartPolicy":{"Name":"always","MaximumRetryCount":0},"AutoRemove":false,"Dns":["1.1.1.1"],"Memory":536870912,"NanoCpus":500000000,"CapAdd":null,"Privileged":false},` +
	`"GraphDriver":{"Data":null,"Name":"overlayfs"},"Mounts":[{"Type":"volume","Name":"data","Source":"/var/lib/wherry/volumes/data/_data","Destination":"/data","Driver":"local","Mode":"z","RW":true,"Propagation":""}],` +
	`"Config":{"Hostname":"4ea1d7c6f7b0","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"ExposedPorts":{"80/tcp":{}},"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["PATH=/bin","A=<b>"],"Cmd":["nginx","-g","daemon off;"],"Image":"nginx","Volumes":null,"WorkingDir":"/","Entrypoint":null,"Labels":{"com.example.kind":"web"}},` +
	`"NetworkSettings":{"Bridge":"","SandboxID":"s","SandboxKey":"/k","Ports":{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]},"HairpinMode":false,"LinkLocalIPv6Address":"","LinkLocalIPv6PrefixLen":0,"EndpointID":"","Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","MacAddress":"",` +
	`"Networks":{"back":{"IPAMConfig":null,"Links":null,"Aliases":["w"],"MacAddress":"02:42:ac:12:00:02","DriverOpts":null,"GwPriority":0,"NetworkID":"n","EndpointID":"e","Gateway":"172.18.0.1","IPAddress":"172.18.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":["web","w"]}}}}`

const recordedNetwork = `{"Name":"back","Id":"8fca4eb8c647e57e9d46c32714271e0c3f8bf8d17d346629e2820547b2d90039","Created":"2026-11-23T10:00:00Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,` +
	`"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,` +
	`"Containers":{"4ea1":{"Name":"web","EndpointID":"e","MacAddress":"02:42:ac:12:00:02","IPv4Address":"172.18.0.2/16","IPv6Address":""}},"Options":{},"Labels":{}}`

const recordedImage = `{"Id":"sha256:1111111111112222222222223333333333334444444444445555555555556666","RepoTags":["nginx:latest"],"RepoDigests":[],"Parent":"","Comment":"","Created":"2026-01-01T00:00:00Z","DockerVersion":"","Author":"","Config":{"Cmd":["nginx"],"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Labels":null,"StopSignal":"SIGQUIT","WorkingDir":"","User":"","Entrypoint":["/e"],"Volumes":{"/v":{}}},"Architecture":"amd64","Os":"linux","Size":123,"GraphDriver":{"Data":null,"Name":"overlayfs"},"RootFS":{"Type":"layers","Layers":["sha256:1","sha256:2"]},"Metadata":{"LastTagTime":"2026-01-02T00:00:00Z"}}`

// TestInspectTemplatesPrintWhatDockersPrint over one recorded object of each kind.
func TestInspectTemplatesPrintWhatDockersPrint(t *testing.T) {
	host := recording{"/containers/web/json": recordedContainer, "/networks/back": recordedNetwork, "/images/nginx/json": recordedImage}.serve(t)
	kinds := []struct {
		args      []string
		recorded  string
		typed     func() any
		templates []string
	}{
		{[]string{"container", "inspect", "web"}, recordedContainer, func() any { return new(inspectedContainer) }, []string{
			"", "json", "{{.State.Pid}}", "{{.Name}} {{.RestartCount}} {{.State.Running}} {{.State.ExitCode}} {{.State.Health}}", "{{json .Mounts}}",
			"{{(index .Mounts 0).Name}} {{.Config.Cmd}} {{.Config.Env}} {{join .Config.Cmd \"|\"}}", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
			`{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}} {{.Gateway}} {{.IPv6Gateway}}{{.MacAddress}}{{end}}`,
			`{{.NetworkSettings.IPAddress}}|{{.NetworkSettings.Gateway}}|{{.NetworkSettings.MacAddress}}`,
			`{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, `{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{len $c}};{{end}}`,
			`{{.HostConfig.NetworkMode}} {{.HostConfig.RestartPolicy.Name}}`,
			`{{if eq .State.ExitCode 0}}fine{{end}}{{if gt .HostConfig.Memory 1000}} {{.HostConfig.Memory}} {{.HostConfig.NanoCPUs}} {{.HostConfig.PidsLimit}}{{end}}`,
			`{{index .Config.Labels "com.example.kind"}}{{index .Config.Labels "none"}}{{.HostConfig.Binds}}{{.HostConfig.CapAdd}}`,
			`{{with .State}}{{.Status | upper}} {{.StartedAt}}{{end}} {{.Created}} {{.ID}}`, `{{json .NetworkSettings.Ports}} {{json .Config.Env}} {{json .Config.ExposedPorts}}`,
			`{{index .NetworkSettings.Networks "back" | json}}`, `{{println .Name}}{{printf "%.4s" .ID}}{{split .Image ":"}}`, `{{.GraphDriver.Name}} {{.Driver}} {{.Platform}}`,
		}},
		{[]string{"network", "inspect", "back"}, recordedNetwork, func() any { return new(inspectedNetwork) }, []string{
			"json", "{{.Name}} {{.ID}} {{.Driver}} {{.Internal}} {{.Created}}", "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{(index .IPAM.Config 0).IPRange}}",
			"{{range .IPAM.Config}}{{.Subnet}}{{end}} {{.IPAM.Driver}} {{len .Containers}}", `{{range $id, $c := .Containers}}{{$id}} {{$c.Name}} {{$c.IPv4Address}} {{$c.IPv6Address}}{{end}}`, "{{json .Labels}} {{json .IPAM}}",
		}},
		{[]string{"image", "inspect", "nginx"}, recordedImage, func() any { return new(image.InspectResponse) }, []string{
			"json", "{{.ID}} {{.RepoTags}} {{.Architecture}}/{{.Os}} {{.Size}}", "{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{.Config.Env}} {{.Config.StopSignal}}", "{{len .RootFS.Layers}} {{index .RootFS.Layers 1}}",
			"{{range $p, $_ := .Config.ExposedPorts}}{{$p}}{{end}} {{json .Config.Volumes}} {{.Parent}}",
		}},
	}
	for _, kind := range kinds {
		for _, template := range kind.templates {
			want := docker(t, host, append(kind.args, "-f", template)...)
			var out bytes.Buffer
			i, err := newInspection(&out, template)
			if err != nil {
				t.Fatal(err)
			}
			if err := i.add([]byte(kind.recorded), kind.typed()); err != nil {
				t.Errorf("%s: %v", template, err)
				continue
			}
			if err := i.flush(); err != nil {
				t.Fatal(err)
			}
			got := out.String()
			if template == "" || strings.Contains(template, "json") {
				got, want = sortedJSON(t, got), sortedJSON(t, want)
			}
			if got != want {
				t.Errorf("%v -f %s:\n%s\nDocker prints\n%s", kind.args, template, got, want)
			}
		}
	}
}

// sortedJSON writes the documents in a text again, each with its fields in order: Docker's client is of another version of the types.
func sortedJSON(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	for d := json.NewDecoder(strings.NewReader(text)); d.More(); {
		var v any
		if d.Decode(&v) != nil {
			return text // more than JSON
		}
		b, _ := json.Marshal(v)
		out.Write(b)
	}
	return out.String()
}

// TestInspectKnowsMore: words of the JSON that Docker's typed templates do not know, and whole objects as the engine sent them.
func TestInspectKnowsMore(t *testing.T) {
	for template, want := range map[string]string{
		"{{.HostConfig.Dns}} {{if eq .State.ExitCode 0}}zero{{end}}": "[1.1.1.1] zero\n",
		"{{.Id}}":    "4ea1d7c6f7b0aa99bb88cc77dd66ee55ff44aa33bb22cc11dd00ee99ff88aa77\n",
		"{{json .}}": recordedContainer + "\n",
	} {
		var out bytes.Buffer
		i, err := newInspection(&out, template)
		if err == nil {
			err = i.add([]byte(recordedContainer), new(inspectedContainer))
		}
		if err == nil {
			err = i.flush()
		}
		if err != nil || out.String() != want {
			t.Errorf("%s: %s %v", template, out.String(), err)
		}
	}
}

func TestTemplateErrorsAreOneLine(t *testing.T) {
	for _, format := range []string{"{{", "{{.Nope}}", "{{.Name.Nope}}", "{{nope .Name}}", "{{index .Name 5}}", "{{join .Size \",\"}}", "{{template \"x\"}}"} {
		i, err := newInspection(&bytes.Buffer{}, format)
		if err == nil {
			err = i.add([]byte(`{"Name":"a","Size":1}`), &struct{ Name string }{})
		}
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "the template of --format: ") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestInspectionOfNothing(t *testing.T) {
	for format, want := range map[string]string{"": "[]\n", "json": "[]\n", "{{.}}": "\n"} {
		var out bytes.Buffer
		i, err := newInspection(&out, format)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.flush(); err != nil || out.String() != want {
			t.Errorf("%s: %q %v, want %q", format, out.String(), err, want)
		}
	}
}
