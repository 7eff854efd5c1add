package docker_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// mobyClient is Docker's own library, as other programs use it.
func mobyClient(t *testing.T, e *engine) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost("unix://" + e.socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// must gives a call's result.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// demultiplexed reads both streams of a connection to their end.
func demultiplexed(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	if _, e := stdcopy.StdCopy(&out, &err, r); e != nil {
		t.Fatal(e)
	}
	return out.String(), err.String()
}

// TestMobyClient leads a container through its life with Docker's library, over a network and a volume of its own.
func TestMobyClient(t *testing.T) {
	e, ctx := start(t), t.Context()
	c := mobyClient(t, e)
	if p := must[client.PingResult](t)(c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})); p.APIVersion == "" || c.ClientVersion() == "" {
		t.Errorf("ping: %+v, version %s", p, c.ClientVersion())
	}
	began := time.Now().Add(-time.Second)
	n := must[client.NetworkCreateResult](t)(c.NetworkCreate(ctx, "moby-net", client.NetworkCreateOptions{Labels: map[string]string{"moby": "yes"}}))
	v := must[client.VolumeCreateResult](t)(c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "moby-volume"}))
	if v.Volume.Mountpoint == "" {
		t.Errorf("volume %+v", v.Volume)
	}
	made := must[client.ContainerCreateResult](t)(c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:       "moby",
		Config:     &container.Config{Image: "busybox:test", Cmd: []string{"sh", "-c", "echo out; echo err >&2; read line; echo got $line >/data/line; exit 3"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true},
		HostConfig: &container.HostConfig{Binds: []string{"moby-volume:/data"}, NetworkMode: "moby-net"},
	}))
	attached := must[client.ContainerAttachResult](t)(c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true}))
	defer attached.Close()
	wait := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	must[client.ContainerStartResult](t)(c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}))
	seen := must[client.ContainerInspectResult](t)(c.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{})).Container
	if !seen.State.Running || seen.NetworkSettings.Networks["moby-net"].NetworkID != n.ID || seen.Mounts[0].Name != "moby-volume" {
		t.Errorf("inspect: %+v", seen)
	}
	inExec(t, c, made.ID)
	if _, err := io.WriteString(attached.Conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := attached.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, stderr := demultiplexed(t, attached.Reader); out != "out\n" || stderr != "err\n" {
		t.Errorf("attached: %q %q", out, stderr)
	}
	select {
	case r := <-wait.Result:
		if r.StatusCode != 3 {
			t.Errorf("status %d", r.StatusCode)
		}
	case err := <-wait.Error:
		t.Fatal(err)
	}
	logs := must[client.ContainerLogsResult](t)(c.ContainerLogs(ctx, made.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}))
	defer logs.Close()
	if out, stderr := demultiplexed(t, logs); out != "out\n" || stderr != "err\n" {
		t.Errorf("logs: %q %q", out, stderr)
	}
	copied(t, c, made.ID)
	must[client.ContainerRemoveResult](t)(c.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{}))
	must[client.NetworkRemoveResult](t)(c.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}))
	must[client.VolumeRemoveResult](t)(c.VolumeRemove(ctx, "moby-volume", client.VolumeRemoveOptions{}))
	told(t, c, began, made.ID)
}

// inExec runs a command in the container.
func inExec(t *testing.T, c *client.Client, id string) {
	t.Helper()
	ctx := t.Context()
	x := must[client.ExecCreateResult](t)(c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat; exit 5"}, AttachStdin: true, AttachStdout: true, AttachStderr: true}))
	conn := must[client.ExecAttachResult](t)(c.ExecAttach(ctx, x.ID, client.ExecAttachOptions{}))
	defer conn.Close()
	if _, err := io.WriteString(conn.Conn, "to exec"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _ := demultiplexed(t, conn.Reader); out != "to exec" {
		t.Errorf("exec: %q", out)
	}
	if r := must[client.ExecInspectResult](t)(c.ExecInspect(ctx, x.ID, client.ExecInspectOptions{})); r.Running || r.ExitCode != 5 || r.ContainerID != id {
		t.Errorf("exec: %+v", r)
	}
}

// copied reads what the container has left in its volume, and puts a file into it.
func copied(t *testing.T, c *client.Client, id string) {
	t.Helper()
	ctx := t.Context()
	out := must[client.CopyFromContainerResult](t)(c.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/data/line"}))
	defer out.Content.Close()
	r := tar.NewReader(out.Content)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(r); string(b) != "got hello\n" || out.Stat.Name != "line" {
		t.Errorf("copied: %q %+v", b, out.Stat)
	}
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	if err := w.WriteHeader(&tar.Header{Name: "new", Mode: 0o640, Size: 3, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("new"))
	w.Close()
	must[client.CopyToContainerResult](t)(c.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/etc", Content: &in}))
	st := must[client.ContainerStatPathResult](t)(c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/etc/new"})).Stat
	if st.Size != 3 || st.Mode.Perm() != 0o640 {
		t.Errorf("stat: %+v", st)
	}
	changes := must[client.ContainerDiffResult](t)(c.ContainerDiff(ctx, id, client.ContainerDiffOptions{})).Changes
	if len(changes) != 2 || changes[1].Path != "/etc/new" || changes[1].Kind != container.ChangeAdd {
		t.Errorf("diff: %+v", changes)
	}
}

// told reads the events of the container's life.
func told(t *testing.T, c *client.Client, began time.Time, id string) {
	t.Helper()
	filters := client.Filters{}
	filters.Add("container", id)
	r := c.Events(t.Context(), client.EventsListOptions{Since: began.Format(time.RFC3339Nano), Until: time.Now().Add(time.Second).Format(time.RFC3339Nano), Filters: filters})
	var got []string
	for {
		select {
		case m := <-r.Messages:
			if m.Type == events.ContainerEventType {
				got = append(got, strings.Fields(string(m.Action))[0])
			}
			continue
		case err := <-r.Err:
			if err != nil && err != io.EOF {
				t.Error(err)
			}
		}
		break
	}
	if all := strings.Join(got, " "); !strings.HasPrefix(all, "create attach start exec_create:") || !strings.HasSuffix(all, "destroy") || !strings.Contains(all, " die ") {
		t.Errorf("events: %s", all)
	}
}

// TestListsAsADashboardReadsThem asks what a dashboard asks when it is opened, in the version that it has been built for, and looks at what it would draw.
func TestListsAsADashboardReadsThem(t *testing.T) {
	e, ctx := start(t), t.Context()
	c := mobyClient(t, e)
	made := must[client.ContainerCreateResult](t)(c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "dashboard",
		Config:     &container.Config{Image: "busybox:test", Cmd: []string{"sleep", "1000"}, Labels: map[string]string{"com.docker.compose.project": "stack"}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}},
		HostConfig: &container.HostConfig{Binds: []string{"dashboard-volume:/data"}}}))
	must[client.ContainerStartResult](t)(c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}))
	defer func() {
		must[client.ContainerRemoveResult](t)(c.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true}))
		must[client.VolumeRemoveResult](t)(c.VolumeRemove(ctx, "dashboard-volume", client.VolumeRemoveOptions{}))
	}()
	for _, ask := range []struct {
		path string
		want []string // parts of the answer, without spaces
	}{
		{"/_ping", []string{"OK"}},
		{"/v1.41/version", []string{`"ApiVersion":"1.56"`, `"Components":[`}},
		{"/v1.41/info", []string{`"ContainersRunning":`, `"Swarm":{`, `"LocalNodeState":"inactive"`, `"Plugins":{`, `"NCPU":`, `"MemTotal":`, `"DockerRootDir":`}},
		{"/v1.41/containers/json?all=1&size=1", []string{`"SizeRootFs":`, `"Names":["/dashboard"]`, `"State":"running"`, `"com.docker.compose.project":"stack"`, `"PrivatePort":80`}},
		{"/v1.41/containers/json?all=true&filters=" + `%7B%22label%22%3A%5B%22com.docker.compose.project%22%5D%7D`, []string{`"/dashboard"`}},
		{"/v1.41/images/json?all=0", []string{`"RepoTags":["busybox:test"`, `"SharedSize":`, `"Containers":`}},
		{"/v1.41/volumes", []string{`"Name":"dashboard-volume"`, `"Warnings":`}},
		{"/v1.41/volumes?filters=" + `%7B%22dangling%22%3A%5B%22true%22%5D%7D`, []string{`"Volumes":`}},
		{"/v1.41/networks", []string{`"Name":"bridge"`, `"Name":"host"`, `"Name":"none"`, `"IPAM":{`}},
		{"/v1.41/plugins", []string{"[]"}},
		{"/v1.41/containers/" + made.ID + "/json", []string{`"GraphDriver":{`, `"RestartPolicy":{`, `"NetworkSettings":{`}},
		{"/v1.41/containers/" + made.ID + "/stats?stream=false", []string{`"cpu_stats":{`, `"precpu_stats":{`, `"memory_stats":{`, `"networks":{"eth0"`, `"pids_stats":{`}},
		{"/v1.41/containers/" + made.ID + "/top?ps_args=aux", []string{`"Titles":["USER"`, "sleep1000"}},
		{"/v1.41/containers/" + made.ID + "/logs?stdout=1&stderr=1&tail=100&timestamps=1", nil},
		{"/v1.41/images/busybox:test/json", []string{`"RootFS":{`, `"Architecture":"amd64"`}},
		{"/v1.41/images/busybox:test/history", []string{`"CreatedBy":`}},
		{"/v1.41/system/df", []string{`"LayersSize":`, `"Images":[`, `"Volumes":[`, `"BuildCache":`}},
		{"/v1.41/events?since=1&until=2", nil},
	} {
		status, body := e.call(t, "GET", ask.path, "")
		if status != 200 {
			t.Errorf("%s: %d %s", ask.path, status, body)
		}
		flat := strings.Join(strings.Fields(body), "")
		for _, part := range ask.want {
			if !strings.Contains(flat, part) {
				t.Errorf("%s has no %s:\n%.2000s", ask.path, part, body)
			}
		}
	}
	for _, path := range []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"} {
		status, body := e.call(t, "GET", "/v1.41"+path, "")
		var said struct{ Message string }
		if err := json.Unmarshal([]byte(body), &said); status != 503 || err != nil || !strings.Contains(said.Message, "not a swarm manager") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
