package cli

import (
	"bytes"
	"strings"
	"testing"
)

// wherry runs a command line of ours against an address.
func wherry(t *testing.T, host string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return wherryWith(t, nil, append([]string{"--config", t.TempDir(), "--host", host}, args...)...)
}

func wherryWith(t *testing.T, input []byte, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Main(t.Context(), args, Streams{In: bytes.NewReader(input), Out: &out, Err: &errs})
	return out.String(), errs.String(), status
}

func TestListingsLookLikeDockers(t *testing.T) {
	host := recording{
		"/images/json": recordedImages, "/images/nginx/history": recordedHistory, "/volumes": recordedVolumes, "/networks": recordedNetworks,
		"/system/df": recordedDiskUsage, "/events": recordedEvents, "/containers/json": recordedContainers,
	}.serve(t)
	formats := func(command string, more ...string) [][]string {
		var out [][]string
		for _, m := range append(more, "", "-q", "--format json", "--format table", "--format raw") {
			out = append(out, strings.Fields(command+" "+m))
		}
		return out
	}
	var rows [][]string
	rows = append(rows, formats("images", "--no-trunc", "--digests", "--digests --format json", "--digests --format raw", "--no-trunc -q")...)
	rows = append(rows, formats("network ls", "--no-trunc", "--no-trunc -q")...)
	rows = append(rows, formats("volume ls")...)
	rows = append(rows,
		[]string{"images", "--format", `table {{.Repository}}\t{{.CreatedAt}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}\t{{.VirtualSize}}`},
		[]string{"images", "-q", "--format", `{{.Repository}}:{{.Tag}}`},
		[]string{"images", "--format", `{{json .Repository}} {{json .}}`},
		[]string{"network", "ls", "--format", `table {{.Name}}\t{{.IPv4}}\t{{.IPv6}}\t{{.Internal}}\t{{.Labels}}\t{{.CreatedAt}}\t{{.Label "a.b-c"}}`},
		[]string{"volume", "ls", "--format", `table {{.Name}}\t{{.Mountpoint}}\t{{.Links}}\t{{.Size}}\t{{.Scope}}\t{{.Labels}}\t{{.Label "com.example.of"}}`},
		[]string{"image", "ls", "-a"}, []string{"history", "nginx"}, []string{"history", "-q", "nginx"}, []string{"history", "--no-trunc", "nginx"}, []string{"history", "-H=false", "nginx"},
		[]string{"history", "--format", "json", "nginx"}, []string{"history", "--format", `table {{.ID}}\t{{.CreatedBy}}\t{{.CreatedAt}}`, "nginx"},
		[]string{"system", "df"}, []string{"system", "df", "--format", "json"}, []string{"system", "df", "--format", "raw"}, []string{"system", "df", "-v"},
		[]string{"system", "df", "--format", `table {{.Type}}\t{{.TotalCount}}`},
		[]string{"events", "--until", "1"}, []string{"events", "--until", "1", "--format", "json"},
		[]string{"events", "--until", "1", "--format", `{{.Status}} {{.ID}} {{.From}} {{.Type}} {{.Action}} {{.Actor.Attributes}}`},
		[]string{"events", "--until", "1", "--format", `{{json .Actor.Attributes}} {{.TimeNano}}`},
	)
	for _, args := range rows {
		want := docker(t, host, args...)
		got, stderr, status := wherry(t, host, args...)
		if status != 0 {
			t.Errorf("%q: exit %d: %s", args, status, stderr)
		} else if got != want {
			t.Errorf("%q:\n%s\nDocker prints\n%s", args, got, want)
		}
	}
}

func TestVersionLooksLikeDockers(t *testing.T) {
	host := recording{"/version": recordedVersion}.serve(t)
	_, want, _ := strings.Cut(docker(t, host, "version"), "\n\n")
	out, _, _ := wherry(t, host, "version")
	client, got, _ := strings.Cut(out, "\n\n")
	if got != want {
		t.Errorf("the engine's part:\n%s\nDocker prints\n%s", got, want)
	}
	if !strings.HasPrefix(client, "Client:\n Version:           dev\n") {
		t.Errorf("the client's part:\n%s", client)
	}
	for _, format := range []string{"{{.Server.Version}}", "{{.Server.APIVersion}} {{.Server.Os}}", "{{json .Server.Platform}}", "{{range .Server.Components}}{{.Name}} {{end}}"} {
		want := docker(t, host, "version", "--format", format)
		if got, _, _ := wherry(t, host, "version", "--format", format); got != want {
			t.Errorf("%s: %q, Docker prints %q", format, got, want)
		}
	}
}

// TestInfoHasDockersLines: all but what cannot be known, in Docker's words, since scripts look for them.
func TestInfoHasDockersLines(t *testing.T) {
	host := recording{"/info": recordedInfo}.serve(t)
	_, want, _ := strings.Cut(docker(t, host, "info"), "Server:\n")
	out, stderr, status := wherry(t, host, "info")
	if status != 0 || !strings.Contains(stderr, "WARNING: something") {
		t.Errorf("exit %d: %q", status, stderr)
	}
	for line := range strings.SplitSeq(want, "\n") {
		if _, value, _ := strings.Cut(line, ":"); strings.HasSuffix(line, ": ") && strings.TrimSpace(value) == "" {
			continue
		}
		if !strings.Contains(out, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
	for _, format := range []string{"{{.ServerVersion}} {{.Driver}}", "{{json .Plugins}}", "{{.ClientInfo.Debug}}", "{{.RegistryConfig.InsecureRegistryCIDRs}}"} {
		want := docker(t, host, "info", "-f", format)
		if got, _, _ := wherry(t, host, "info", "-f", format); got != want {
			t.Errorf("%s: %q, Docker prints %q", format, got, want)
		}
	}
}
