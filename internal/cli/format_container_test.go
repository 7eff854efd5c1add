package cli

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

const recordedContainers = `[
{"Id":"4ea1d7c6f7b0aa99bb88cc77dd66ee55ff44aa33bb22cc11dd00ee99ff88aa77","Names":["/web","/other/link"],"Image":"docker.io/library/nginx:1.27@sha256:6784fb0834aa7dbbe12e3d7471e69c290df3e6ba810dc38b34ae33d3c1c05f7d","ImageID":"sha256:aa","Command":"nginx -g 'daemon off;' and more words","Created":1700000000,
 "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},{"PrivatePort":444,"Type":"tcp"},{"IP":"127.0.0.1","PrivatePort":53,"PublicPort":53,"Type":"udp"},{"IP":"127.0.0.1","PrivatePort":54,"PublicPort":54,"Type":"udp"},{"IP":"127.0.0.1","PrivatePort":60,"PublicPort":60,"Type":"udp"}],
 "Labels":{"com.example.kind":"a<b","app":"web"},"ImageManifestDescriptor":{"mediaType":"a","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}},"State":"running","Status":"Up 2 hours (healthy)","SizeRw":1234567,"SizeRootFs":187654321,
 "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{}}},
 "Mounts":[{"Type":"volume","Name":"0123456789abcdef0123456789abcdef","Driver":"local","Source":"/x","Destination":"/data"},{"Type":"bind","Source":"/very/long/path/of/a/host/folder","Destination":"/b"}]},
{"Id":"5ea1d7c6f7b0aa99bb88cc77dd66ee55ff44aa33bb22cc11dd00ee99ff88aa77","Names":["/日本語"],"Image":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","ImageID":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Command":"sh","Created":1600000000,"Ports":[],"Labels":null,"State":"exited","Status":"Exited (0) 3 days ago","HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{}},"Mounts":[]}
]`

func TestContainersLookLikeDockers(t *testing.T) {
	host := recording{"/containers/json": recordedContainers}.serve(t)
	var list []container.Summary
	if err := json.Unmarshal([]byte(recordedContainers), &list); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		format              string
		quiet, whole, sizes bool
	}{
		{}, {quiet: true}, {whole: true}, {sizes: true}, {quiet: true, whole: true}, {quiet: true, format: "{{.Names}}"},
		{format: "table"}, {format: "raw"}, {format: "raw", sizes: true}, {format: "json"}, {format: "{{json .}}"}, {format: "{{json .Labels}}"},
		{format: `table {{.ID}}\t{{.Names}}\t{{.Label "com.example.kind"}}\t{{.Mounts}}\t{{.Networks}}`},
		{format: `table {{.LocalVolumes}}\t{{.RunningFor}}\t{{.CreatedAt}}\t{{.State}}\t{{.Command}}`},
		{format: `table {{lower .Names}}\t{{truncate .ID 3}}\t{{pad .State 2 2}}\t{{join (split .Names "e") "/"}}`},
		{format: `{{.Names}}\t{{upper .State}} {{title .Status}}\n{{range split .Ports ","}}[{{.}}]{{end}}`},
		{format: `{{println .ID}}{{if eq .State "running"}}yes{{else}}no{{end}}`},
		{format: "table {{.Labels}}"}, {format: "{{.Platform}}"}, {format: "{{.Size}}"}, {format: "text"},
	}
	for _, row := range rows {
		args := []string{"ps", "-a"}
		if row.format != "" {
			args = append(args, "--format", row.format)
		}
		if row.quiet {
			args = append(args, "-q")
		}
		if row.whole {
			args = append(args, "--no-trunc")
		}
		if row.sizes {
			args = append(args, "-s")
		}
		want := docker(t, host, args...)
		f, err := containerLayout(row.sizes).parseRows(row.format, row.quiet)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		var lines []containerRow
		for _, c := range list {
			lines = append(lines, newContainerRow(c, !row.whole, time.Now()))
		}
		var got bytes.Buffer
		if err := writeRows(&got, f, lines); err != nil {
			t.Errorf("%v: %v", args, err)
		} else if got.String() != want {
			t.Errorf("%v:\n%s\nDocker prints\n%s", args, got.String(), want)
		}
	}
}

func TestReferenceInTheTable(t *testing.T) {
	moved := func(reference, now string) listedContainer {
		return listedContainer{Wherry: &struct{ Reference, Now, Health string }{Reference: reference, Now: now}}
	}
	for _, row := range []struct {
		c    listedContainer
		want string
	}{
		{listedContainer{}, "0123456789ab"},
		{moved("docker.io/library/nginx", "sha256:1"), "nginx (moved)"},
		{moved("r.example/nginx:1", ""), "r.example/nginx:1 (gone)"},
	} {
		if got := row.c.reference("0123456789ab"); got != row.want {
			t.Errorf("%+v: %s", row.c, got)
		}
	}
}
