package docker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"

	"wherry.dev/wherry/internal/sysprog"
)

func TestSystemRoutes(t *testing.T) {
	e := start(t)
	r, err := e.http.Head("http://e/_ping")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	for name, want := range map[string]string{"Api-Version": "1.56", "Ostype": "linux", "Docker-Experimental": "true", "Builder-Version": "2"} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(r.Header.Get("Server"), "Wherry/") {
		t.Errorf("Server: %q", r.Header.Get("Server"))
	}
	if status, body := e.call(t, "GET", "/v1.30/_ping", ""); status != 200 || body != "OK" {
		t.Errorf("ping: %d %q", status, body)
	}
	var v map[string]any
	e.want(t, 200, "GET", "/version", "", &v)
	if v["ApiVersion"] != "1.56" || v["MinAPIVersion"] != "1.24" {
		t.Errorf("version %v", v)
	}
	e.want(t, 200, "GET", "/v1.40/info", "", &v)
	if v["OSType"] != "linux" || v["Images"].(float64) < 1 || v["MemTotal"].(float64) < 1<<20 {
		t.Errorf("info %v", v)
	}
	e.want(t, 200, "GET", "/system/df", "", &v)
	if v["LayersSize"].(float64) < 1000 || len(v["Images"].([]any)) < 1 {
		t.Errorf("df %v", v)
	}
	e.want(t, 200, "POST", "/v1.56/build/prune", "", &v) // `docker system prune` ends with it
	if deleted, is := v["CachesDeleted"].([]any); !is || len(deleted) != 0 || v["SpaceReclaimed"] != 0.0 {
		t.Errorf("build/prune %v", v)
	}
	e.want(t, 200, "GET", "/wherry/state", "", &v)
	if v["Root"] == "" || v["Pid"].(float64) != float64(os.Getpid()) {
		t.Errorf("state %v", v)
	}
}

func TestStatusCodes(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","100"]`)
	rows := []struct {
		method, path, body string
		status             int
		names              string
	}{
		{"GET", "/nothing", "", 404, "page not found"},
		{"GET", "/v1.21/version", "", 400, "too old"},
		{"GET", "/v1.22/version", "", 200, ""},
		{"GET", "/v1.99/version", "", 400, "too new"},
		{"PUT", "/containers/json", "", 405, "method"},
		{"GET", "//containers/json", "", 404, ""},
		{"GET", "/containers/nosuch/json", "", 404, "nosuch"},
		{"POST", "/containers/nosuch/start", "", 404, "nosuch"},
		{"POST", "/containers/nosuch/attach?stream=1&stdout=1", "", 404, "nosuch"},
		{"GET", "/containers/nosuch/logs?stdout=1", "", 404, "nosuch"},
		{"GET", "/containers/" + id + "/logs", "", 400, "stdout"},
		{"POST", "/containers/" + id + "/kill", "", 409, "not running"},
		{"POST", "/containers/" + id + "/stop", "", 304, ""},
		{"POST", "/containers/" + id + "/pause", "", 409, ""},
		{"POST", "/containers/" + id + "/wait?condition=someday", "", 400, "someday"},
		{"POST", "/containers/" + id + "/start", `{"Binds":["/:/host"]}`, 400, "removed in v1.24"},
		{"POST", "/containers/" + id + "/rename?name=b@d", "", 400, "b@d"},
		{"POST", "/containers/" + id + "/exec", `{"Cmd":["true"]}`, 409, "not running"},
		{"POST", "/containers/" + id + "/exec", `{}`, 400, "command"},
		{"POST", "/containers/" + id + "/resize?h=x&w=1", "", 400, "invalid resize height"},
		{"HEAD", "/containers/" + id + "/archive?path=/nosuch", "", 404, ""},
		{"GET", "/containers/" + id + "/archive", "", 400, "Path"},
		{"POST", "/containers/create", `{"Image":"nosuch:1"}`, 404, "No such image"},
		{"POST", "/containers/create", `{"Image":"busybox:test"`, 400, "JSON"},
		{"POST", "/containers/create", `{"Image":"busybox:test","HostConfig":{"NetworkMode":"container"}}`, 400, "container:<name|id>"},
		{"POST", "/containers/create", `{"Image":"busybox:test"}{}`, 400, "after JSON"},
		{"POST", "/containers/create?platform=linux/no/such/thing", `{"Image":"busybox:test"}`, 400, "platform"},
		{"GET", "/containers/json?filters=nojson", "", 400, "filter"},
		{"GET", "/images/nosuch/json", "", 404, "No such image"},
		{"GET", "/images/a/b/c/json", "", 404, "No such image"},
		{"DELETE", "/images/nosuch", "", 404, "No such image"},
		{"DELETE", "/images", "", 400, "blank"},
		{"GET", "/images", "", 404, "page not found"},
		{"POST", "/images/busybox:test/tag", "", 400, "repo"},
		{"GET", "/images/get", "", 400, "names"},
		{"POST", "/images/create", "", 400, "fromImage"},
		{"GET", "/containers/" + id + "/checkpoints", "", 200, "[]"},
		{"GET", "/containers/nosuch/checkpoints", "", 404, "nosuch"},
		{"POST", "/containers/" + id + "/checkpoints", `{}`, 400, "checkpoint name"},
		{"POST", "/containers/" + id + "/checkpoints", `{"CheckpointID":"one"}`, 409, "not running"},
		{"DELETE", "/containers/" + id + "/checkpoints/one", "", 404, "checkpoint one"},
		{"POST", "/containers/" + id + "/start?checkpoint=one", "", 404, "checkpoint one"},
		{"GET", "/images/search", "", 400, "no word"},
		{"GET", "/images/search?term=x&limit=101", "", 400, "[1, 100]"},
		{"GET", "/images/search?term=127.0.0.1:1/x", "", 503, "127.0.0.1:1"},
		{"GET", "/images/search?term=x&filters=%7B%22stars%22%3A%5B%22x%22%5D%7D", "", 400, "stars"},
		{"GET", "/images/nosuch/attestations", "", 404, "No such image"},
		{"GET", "/images/busybox:test/attestations", "", 200, "[]"},
		{"GET", "/networks/bridge?scope=swarm", "", 404, "scope swarm"},
		{"GET", "/networks/nosuch", "", 404, "nosuch"},
		{"DELETE", "/networks/bridge", "", 403, "bridge"},
		{"GET", "/volumes/nosuch", "", 404, "nosuch"},
		{"GET", "/exec/nosuch/json", "", 404, "nosuch"},
		{"POST", "/exec/nosuch/start", `{}`, 404, "nosuch"},
		{"POST", "/build", "", 501, "build"},
		{"POST", "/session", "", 501, "build"},
		{"GET", "/plugins", "", 200, "[]"},
		{"GET", "/swarm", "", 503, "not a swarm manager"},
		{"GET", "/services", "", 503, "not a swarm manager"},
		{"GET", "/nodes/x", "", 503, "not a swarm manager"},
		{"GET", "/events?since=2&until=1", "", 400, "since"},
		{"GET", "/events?filters=%7B%22nmae%22%3A%5B%22x%22%5D%7D", "", 400, "nmae"},
	}
	for _, row := range rows {
		status, body := e.call(t, row.method, row.path, row.body)
		if status != row.status || !strings.Contains(body, row.names) {
			t.Errorf("%s %s %s: %d %s; want %d with %q", row.method, row.path, row.body, status, strings.TrimSpace(body), row.status, row.names)
			continue
		}
		var m struct{ Message string }
		if status >= 400 && row.method != "HEAD" && (json.Unmarshal([]byte(body), &m) != nil || m.Message == "") {
			t.Errorf("%s %s: no message in %q", row.method, row.path, body)
		}
	}
	if status, _ := e.call(t, "POST", "/containers/create", `{"Image":"`+strings.Repeat("x", 9<<20)+`"}`); status != 413 {
		t.Errorf("a body of 9 MiB: %d", status)
	}
}

// TestRunAsDockerDoes: create, attach, wait with its early header, start, and the exit code.
func TestRunAsDockerDoes(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sh","-c","cat; echo err >&2; exit 7"],"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"OpenStdin":true,"StdinOnce":true`)
	c, br, r := e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdin=1&stdout=1&stderr=1", "")
	if r.StatusCode != 101 || r.Header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
		t.Fatalf("attach: %s %v", r.Status, r.Header)
	}
	waited, err := e.http.Post("http://e/containers/"+id+"/wait?condition=next-exit", "", nil)
	if err != nil { // the header has come although nothing runs yet
		t.Fatal(err)
	}
	defer waited.Body.Close()
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	if status, _ := e.call(t, "POST", "/containers/"+id+"/start", ""); status != 304 {
		t.Errorf("start of a running container: %d", status)
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, br); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != "hello\n" || stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
	var exit struct{ StatusCode int }
	if err := json.NewDecoder(waited.Body).Decode(&exit); err != nil || exit.StatusCode != 7 {
		t.Errorf("exit %+v %v", exit, err)
	}
	status, logs := e.call(t, "GET", "/containers/"+id+"/logs?stdout=1&stderr=1", "")
	stdout.Reset()
	stderr.Reset()
	if _, err := stdcopy.StdCopy(&stdout, &stderr, strings.NewReader(logs)); status != 200 || err != nil || stdout.String() != "hello\n" || stderr.String() != "err\n" {
		t.Errorf("logs: %d %q %v", status, logs, err)
	}
}

// TestOldAttach: a client that does not ask for an upgrade gets 200 and the same stream.
func TestOldAttach(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["echo","old"],"AttachStdout":true`)
	c, err := net.Dial("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1.24/containers/%s/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n", id)
	head := make([]byte, len("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"))
	if _, err := io.ReadFull(c, head); err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 OK\r\n")) {
		t.Fatalf("%q %v", head, err)
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, c); err != nil || out.String() != "old\n" {
		t.Errorf("%q %v", &out, err)
	}
}

func TestTerminal(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sh"],"Tty":true,"OpenStdin":true,"StdinOnce":true,"AttachStdin":true`)
	c, br, r := e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdin=1&stdout=1&stderr=1", "")
	if r.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Fatalf("attach: %s %v", r.Status, r.Header)
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	e.want(t, 200, "POST", "/containers/"+id+"/resize?h=33&w=77", "", nil)
	if _, err := io.WriteString(c, "stty size; exit 3\n"); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(br)
	if err != nil || !strings.Contains(string(out), "33 77") {
		t.Errorf("%q %v", out, err)
	}
	var exit struct{ StatusCode int }
	e.want(t, 200, "POST", "/containers/"+id+"/wait", "", &exit)
	if exit.StatusCode != 3 {
		t.Errorf("exit %+v", exit)
	}
}

func TestExec(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"]`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	run := func(request string) (stdout, stderr string, code int) {
		t.Helper()
		var x struct {
			ID string `json:"Id"`
		}
		e.want(t, 201, "POST", "/containers/"+id+"/exec", request, &x)
		c, br, r := e.upgrade(t, "/exec/"+x.ID+"/start", `{"Detach":false,"Tty":false}`)
		if r.StatusCode != 101 {
			body, _ := io.ReadAll(r.Body)
			t.Fatalf("exec start: %s %s", r.Status, body)
		}
		if _, err := io.WriteString(c, "typed\n"); err == nil {
			_ = c.CloseWrite()
		}
		var a, b bytes.Buffer
		if _, err := stdcopy.StdCopy(&a, &b, br); err != nil {
			t.Fatal(err)
		}
		var about struct {
			ExitCode int
			Running  bool
		}
		e.want(t, 200, "GET", "/exec/"+x.ID+"/json", "", &about)
		if about.Running {
			t.Error("the stream has ended and the exec runs")
		}
		return a.String(), b.String(), about.ExitCode
	}
	out, errs, code := run(`{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","cat; echo $V; echo e >&2; exit 5"],"Env":["V=w"]}`)
	if out != "typed\nw\n" || errs != "e\n" || code != 5 {
		t.Errorf("%q %q %d", out, errs, code)
	}
	out, errs, code = run(`{"AttachStdout":true,"AttachStderr":true,"Cmd":["nosuchprogram"]}`)
	if !strings.Contains(out+errs, "nosuchprogram") || code != 127 {
		t.Errorf("%q %q %d", out, errs, code)
	}
	var x struct {
		ID string `json:"Id"`
	}
	e.want(t, 201, "POST", "/containers/"+id+"/exec", `{"Cmd":["sh","-c","echo done > /tmp/mark"]}`, &x)
	e.want(t, 200, "POST", "/exec/"+x.ID+"/start", `{"Detach":true}`, nil)
	if status, body := e.call(t, "POST", "/exec/"+x.ID+"/start", `{"Detach":true}`); status != 409 {
		t.Errorf("a second start: %d %s", status, body)
	}
}

// TestClientLeaves: an attached client that goes away neither stops the container nor stays attached.
func TestClientLeaves(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sh","-c","while :; do echo tick; sleep 0.05; done"]`)
	c, br, _ := e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdout=1", "")
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	if _, err := br.Peek(20); err != nil {
		t.Fatal(err)
	}
	c.Close()
	follow, err := e.http.Get("http://e/containers/" + id + "/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(follow.Body, make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	follow.Body.Close()
	var about struct{ State struct{ Running bool } }
	e.want(t, 200, "GET", "/containers/"+id+"/json", "", &about)
	if !about.State.Running {
		t.Error("the container ended with its client")
	}
}

func TestEvents(t *testing.T) {
	e := start(t)
	since := time.Now().Unix() - 1
	id := e.create(t, `"Cmd":["true"],"Labels":{"about":"events"}`)
	stream, err := e.http.Get(fmt.Sprintf("http://e/events?since=%d&filters=%s", since, `%7B%22container%22%3A%5B%22`+id+`%22%5D%7D`))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var seen []string
	for d := json.NewDecoder(stream.Body); ; {
		var m struct{ Action, Status, ID string }
		if err := d.Decode(&m); err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		seen = append(seen, m.Action)
		if m.ID != id || m.Status != m.Action {
			t.Errorf("%+v lacks the older fields", m)
		}
		if m.Action == "die" {
			break
		}
	}
	if got := strings.Join(seen, " "); !strings.HasPrefix(got, "create") || !strings.Contains(got, "start") {
		t.Errorf("events: %s", got)
	}
	// With an end in the past the stream ends by itself.
	if status, body := e.call(t, "GET", fmt.Sprintf("/events?since=%d&until=%d", since, time.Now().Unix()+1), ""); status != 200 || !strings.Contains(body, id) {
		t.Errorf("bounded: %d %s", status, body)
	}
}

func TestArchiveRoutes(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["true"]`)
	r, err := e.http.Get("http://e/containers/" + id + "/archive?path=/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || r.Header.Get("X-Docker-Container-Path-Stat") == "" || !bytes.Contains(body, []byte("root:x:0:0")) {
		t.Errorf("%s %v, %d bytes, %v", r.Status, r.Header, len(body), err)
	}
	req, _ := http.NewRequest(http.MethodPut, "http://e/containers/"+id+"/archive?path=/tmp", bytes.NewReader(body))
	r, err = e.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	var changes []struct{ Path string }
	e.want(t, 200, "GET", "/containers/"+id+"/changes", "", &changes)
	if !strings.Contains(fmt.Sprint(changes), "/tmp/passwd") {
		t.Errorf("changes %v", changes)
	}
}

// TestPeers: root may, another user may not, and is told why.
func TestPeers(t *testing.T) {
	e := start(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	open := filepath.Join(t.TempDir(), "s")
	if err := os.Chmod(e.direct, 0o666); err != nil { // even where the file's mode would let them
		t.Fatal(err)
	}
	defer os.Chmod(e.direct, 0o600)
	for dir := e.dir; dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
		break
	}
	defer os.Chmod(e.dir, 0o700)
	_ = open
	ask := []string{"curl", "-s", "-w", "\n%{http_code}", "--unix-socket", e.direct, "http://e/_ping"}
	own := append([]string{"unshare", "--user"}, ask...) // in a user namespace that the caller makes
	const base = 0x10000000
	range0 := []sysprog.Mapping{{Outside: base, Count: 65536}}
	made, err := sysprog.UserNamespace(range0, range0)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	inside := func(command []string) []string {
		return append([]string{"nsenter", fmt.Sprintf("--user=/proc/%d/fd/%d", os.Getpid(), made.Fd())}, command...)
	}
	rows := []struct {
		who       string
		uid       uint32
		command   []string
		container bool
		want      string
	}{
		{"root", 0, ask, false, "200"},
		{"a user", 12345, ask, false, "403"},
		{"a user with an id of those that containers have, as directory services give them", 0x10000021, ask, false, "403"},
		{"such a user in a namespace of its own", 0x10000021, own, false, "403"},
		{"a container's user", base, ask, true, "200"},
		{"a container's user in a namespace of its own", base, own, true, "200"},
		{"a user of a container as the runtime makes them", 0, inside(ask), false, "200"},
		{"such a user in a namespace of its own", 0, inside(own), false, "200"},
		{"a user with the first id of a container's", base, own, false, "403"},
		{"a user in a namespace as containers have, with another id", 0x0fff0000, ask, true, "403"},
	}
	for _, row := range rows {
		cmd := exec.Command(row.command[0], row.command[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: row.uid, Gid: row.uid, NoSetGroups: true}}
		if row.container {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(row.uid), Size: 65536}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
				Credential: &syscall.Credential{}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), row.want) {
			t.Errorf("%s: %q %v, want %s", row.who, out, err, row.want)
		}
		if row.want == "403" && !strings.Contains(string(out), fmt.Sprint("user ", row.uid)) {
			t.Errorf("%s is not told why: %q", row.who, out)
		}
	}
}
