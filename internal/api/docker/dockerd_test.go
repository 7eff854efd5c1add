package docker_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// TestWordsOfDockerd: programs compare these answers whole, so they are dockerd's to the letter.
func TestWordsOfDockerd(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","100"]`)
	e.want(t, http.StatusNoContent, "POST", "/containers/"+id+"/start", "", nil)
	create := func(fields string) [3]string {
		return [3]string{"POST", "/containers/create", `{"Image":"busybox:test",` + fields + `}`}
	}
	resize := func(query string) [3]string { return [3]string{"POST", "/containers/" + id + "/resize?" + query, ""} }
	exec := func(user string) [3]string {
		return [3]string{"POST", "/containers/" + id + "/exec", `{"Cmd":["true"],"User":"` + user + `"}`}
	}
	for q, says := range map[[3]string]string{
		create(`"HostConfig":{"IpcMode":"invalid"}`):                                                                            "invalid IPC mode: invalid",
		create(`"HostConfig":{"Dns":["x"]}`):                                                                                    `invalid IP address "x": unable to parse IP`,
		{"POST", "/networks/create", `{"Name":"nn","IPAM":{"Config":[{"Subnet":"10.9.0.0/33"}]}}`}:                              `invalid subnet "10.9.0.0/33": prefix length out of range`,
		create(`"HostConfig":{"PidMode":"container"}`):                                                                          "invalid PID mode: container",
		create(`"HostConfig":{"UTSMode":"invalid"}`):                                                                            "invalid UTS mode: invalid",
		create(`"HostConfig":{"Annotations":{"":"a"}}`):                                                                         "invalid Annotations: the empty string is not permitted as an annotation key",
		create(`"HostConfig":{"Links":["nobody:db"]}`):                                                                          "could not get container for nobody: No such container: nobody",
		{"POST", "/containers/x/start?checkpoint=../outside", ""}:                                                               `invalid checkpoint ID "../outside"`,
		{"POST", "/v1.43/containers/create", `{"Image":"busybox:test","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`}: "Container cannot be created with multiple network endpoints",
		resize("w=100"):              `invalid resize height "": invalid syntax`,
		resize("h=100&w=wide"):       `invalid resize width "wide": invalid syntax`,
		resize("h=-100&w=100"):       `invalid resize height "-100": value out of range`,
		resize("h=100&w=4294967296"): `invalid resize width "4294967296": value out of range`,
		exec("nobody-here"):          "unable to find user nobody-here: no matching entries in passwd file",
		exec("1:nogroup-here"):       "unable to find group nogroup-here: no matching entries in group file",
		{"GET", "/containers/" + id + "/archive?path=/nowhere", ""}: "Could not find the file /nowhere in container " + id,
	} {
		status, body := e.call(t, q[0], q[1], q[2])
		if want := `{"message":"` + strings.ReplaceAll(says, `"`, `\"`) + `"}`; status < 400 || status > 404 || strings.TrimSpace(body) != want {
			t.Errorf("%v: %d %s; want %s", q, status, body, want)
		}
	}
	for q, says := range map[[3]string]string{
		{"POST", "/containers/" + id + "/attach?stream=1&detachKeys=ctrl-A,a", ""}: "Invalid detach keys (ctrl-A,a) provided",
		{"GET", "/containers/" + id + "/archive?path=/etc/passwd/", ""}:            "not a directory",
	} {
		if status, body := e.call(t, q[0], q[1], q[2]); status != http.StatusBadRequest || !strings.Contains(body, says) {
			t.Errorf("%v: %d %s", q, status, body)
		}
	}
	for _, path := range []string{"/commit", "/exec/x/start", "/containers/x/exec", "/containers/x/update"} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://e"+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "text/plain")
		r, err := e.http.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s with a body of text: %s", path, r.Status)
		}
	}
}

// TestExecStreamsAreAsTheStartSays: a terminal's output comes in frames when the start does not speak of a terminal.
func TestExecStreamsAreAsTheStartSays(t *testing.T) {
	e, ctx := start(t), t.Context()
	c := mobyClient(t, e)
	id := e.create(t, `"Cmd":["sleep","100"]`)
	e.want(t, http.StatusNoContent, "POST", "/containers/"+id+"/start", "", nil)
	for _, tty := range []bool{false, true} {
		x := must[client.ExecCreateResult](t)(c.ExecCreate(ctx, id, client.ExecCreateOptions{TTY: true, AttachStdout: true, ConsoleSize: client.ConsoleSize{Height: 57, Width: 123}, Cmd: []string{"stty", "size"}}))
		conn := must[client.ExecAttachResult](t)(c.ExecAttach(ctx, x.ID, client.ExecAttachOptions{TTY: tty}))
		line := must[string](t)(conn.Reader.ReadString('\n'))
		conn.Close()
		if !tty {
			head := line[:8]
			if line = line[8:]; head[0] != 1 || int(head[7]) != len(line) {
				t.Errorf("head of a frame: %q, then %q", head, line)
			}
		}
		if strings.TrimSpace(line) != "57 123" {
			t.Errorf("start with a terminal %v: %q", tty, line)
		}
	}
}

// TestOlderLimits: a client before 1.40 does not know limits of processes, and none is shown as 0.
func TestOlderLimits(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["true"],"HostConfig":{"PidsLimit":32}`)
	for _, row := range []struct {
		path, body string
		want       int64
	}{{"/v1.39/containers/" + id + "/update", `{"PidsLimit":16}`, 32}, {"/containers/" + id + "/update", `{"PidsLimit":16}`, 16}, {"/containers/" + id + "/update", `{"PidsLimit":-2}`, 0}} {
		e.want(t, http.StatusOK, "POST", row.path, row.body, nil)
		var about container.InspectResponse
		e.want(t, http.StatusOK, "GET", "/containers/"+id+"/json", "", &about)
		if got := about.HostConfig.PidsLimit; got == nil || *got != row.want {
			t.Errorf("%s %s: %v", row.path, row.body, got)
		}
	}
}
