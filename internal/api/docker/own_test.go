package docker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/container"
)

// door is another server of the shared engine's services, at which the test's process is whoever the rules say: the kernel notes a thread's user id
// when it connects.
type door struct {
	e      *engine
	socket string
	server *docker.Server
}

func openDoor(t *testing.T, e *engine, rules string) *door {
	t.Helper()
	parsed, err := access.Parse("access.toml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	d := &door{e: e, socket: filepath.Join(e.dir, fmt.Sprintf("door-%d", len(rules)))}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	server := docker.New(e.services, docker.About{ID: "door", Root: e.dir, Access: parsed}, slog.New(slog.DiscardHandler))
	d.server = server
	go func() { _ = server.Serve(context.Background(), l) }()
	t.Cleanup(func() { _ = server.Close(context.Background()) })
	return d
}

// connect as a user: an id of the file system would not do, the socket notes the effective one. The thread that has it is not used again.
func (d *door) connect(t *testing.T, uid int) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	made := make(chan result)
	go func() {
		made <- func() (r result) {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return result{err: err}
			}
			f := os.NewFile(uintptr(fd), "door")
			defer f.Close()
			_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
			if errno != 0 {
				return result{err: errno}
			}
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.socket}); err != nil {
				return result{err: fmt.Errorf("connect as %d: %w", uid, err)}
			}
			c, err := net.FileConn(f)
			return result{c, err}
		}()
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.c.Close() })
	return r.c
}

// raw sends a request as it stands.
func (d *door) raw(t *testing.T, uid int, text string) (int, string) {
	t.Helper()
	c := d.connect(t, uid)
	go func() { _, _ = io.WriteString(c, text) }() // the engine may answer before it has read all
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", strings.SplitN(text, "\r\n", 2)[0], err)
	}
	if r.StatusCode == http.StatusSwitchingProtocols {
		return r.StatusCode, ""
	}
	var body bytes.Buffer
	if r.ContentLength >= 0 || r.StatusCode >= 400 {
		_, _ = io.Copy(&body, r.Body)
	} else {
		_, _ = body.ReadFrom(io.LimitReader(r.Body, 1<<20))
	}
	return r.StatusCode, body.String()
}

func (d *door) call(t *testing.T, uid int, method, path, body string) (int, string) {
	t.Helper()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: e\r\nConnection: close\r\n", method, path)
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return d.raw(t, uid, head+"\r\n"+body)
}

const ownRules = `
default = "none"
[[rule]]
uid = 2001
may = "own"
[[rule]]
uid = 2002
may = "own"
[[rule]]
uid = 2003
may = "read-only"
[[rule]]
uid = 2004
may = "all"
`

const alice, bob, reader, admin, nobody = 2001, 2002, 2003, 2004, 2005

// doorFor is a door with a container of alice's, one of bob's that runs, and one of root's that was made without rules.
func doorFor(t *testing.T) (d *door, ofAlice, ofBob, ofRoot string) {
	t.Helper()
	e := start(t)
	for dir := e.dir; dir != "/var/tmp"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(e.dir, 0o700) })
	d = openDoor(t, e, ownRules)
	make := func(uid int, name string) string {
		status, body := d.call(t, uid, "POST", "/containers/create?name="+name, `{"Image":"busybox:test","Cmd":["sleep","1000"]}`)
		var made struct{ ID string }
		if status != 201 || json.Unmarshal([]byte(body), &made) != nil {
			t.Fatalf("create as %d: %d %s", uid, status, body)
		}
		t.Cleanup(func() { e.call(t, "DELETE", "/containers/"+made.ID+"?force=1&v=1", "") })
		return made.ID
	}
	suffix := fmt.Sprint(os.Getpid(), "-", strings.ToLower(t.Name()))
	ofAlice, ofBob, ofRoot = make(alice, "alice-"+suffix), make(bob, "bob-"+suffix), e.create(t, `"Cmd":["sleep","1000"]`)
	for _, id := range []string{ofBob, ofRoot} {
		e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	}
	return d, ofAlice, ofBob, ofRoot
}

// TestOwnContainersWork: what a caller with the right own needs for a day's work.
func TestOwnContainersWork(t *testing.T) {
	d, mine, _, _ := doorFor(t)
	for _, row := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/_ping", "", 200}, {"GET", "/v1.41/version", "", 200}, {"GET", "/info", "", 200},
		{"POST", "/v1.41/containers/" + mine[:12] + "/start", "", 204}, {"GET", "/containers/" + mine + "/json", "", 200},
		{"GET", "/containers/" + mine + "/logs?stdout=1", "", 200}, {"GET", "/containers/" + mine + "/stats?stream=0&one-shot=1", "", 200},
		{"GET", "/containers/" + mine + "/top", "", 200}, {"POST", "/containers/" + mine + "/exec", `{"Cmd":["true"]}`, 201},
		{"POST", "/containers/" + mine + "/update", `{"Memory":67108864,"MemorySwap":-1}`, 200}, {"POST", "/containers/" + mine + "/pause", "", 204},
		{"POST", "/containers/" + mine + "/unpause", "", 204}, {"POST", "/networks/create", `{"Name":"alices"}`, 201},
		{"POST", "/networks/alices/connect", `{"Container":"` + mine + `"}`, 200}, {"GET", "/networks/alices", "", 200},
		{"POST", "/networks/alices/disconnect", `{"Container":"` + mine + `"}`, 200}, {"DELETE", "/networks/alices", "", 204},
		{"POST", "/networks/create", `{"Name":"alices/172.30.9.0/24"}`, 201}, {"GET", "/networks/alices/172.30.9.0/24", "", 200}, {"GET", "/v1.41/networks/alices%2F172.30.9.0%2F24", "", 200},
		{"POST", "/v1.41/networks/alices/172.30.9.0/24/connect", `{"Container":"` + mine + `"}`, 200}, {"POST", "/networks/alices/172.30.9.0%2F24/disconnect", `{"Container":"` + mine + `"}`, 200},
		{"POST", "/networks/alices/172.30.9.0/24/bind", "", 404}, {"PUT", "/networks/alices/172.30.9.0/24", "", 405},
		{"GET", "/networks/alices/172.30.9.0/24/connect", "", 404}, {"DELETE", "/networks/alices/172.30.9.0/24", "", 204},
		{"POST", "/volumes/create", `{"Name":"alices-data"}`, 201}, {"GET", "/volumes/alices-data", "", 200}, {"DELETE", "/volumes/alices-data", "", 204},
		{"GET", "/images/busybox:test/json", "", 200}, {"POST", "/containers/" + mine + "/stop?t=0", "", 204}, {"DELETE", "/containers/" + mine, "", 204},
	} {
		if status, body := d.call(t, alice, row.method, row.path, row.body); status != row.status {
			t.Errorf("%s %s: %d %s, want %d", row.method, row.path, status, body, row.status)
		}
	}
	for body, name := range map[string]string{
		`{"Image":"busybox:test","Cmd":["true"],"HostConfig":{"Binds":["alices-vol:/data"],"PortBindings":{"80/tcp":[{"HostPort":""}]},"CapAdd":["NET_RAW"],"CapDrop":["ALL"],
			"SecurityOpt":["no-new-privileges"],"Devices":[],"DeviceCgroupRules":[],"Memory":67108864,"RestartPolicy":{"Name":"always"},"ShmSize":1048576,"Init":true,"Mounts":[{"Type":"tmpfs","Target":"/t"},
			{"Type":"volume","Source":"alices-vol","Target":"/v"}],"ReadonlyRootfs":true,"Ulimits":[{"Name":"nofile","Soft":64,"Hard":64}],"Tmpfs":{"/run":""},"LogConfig":{"Type":"json-file"},"IpcMode":"private","CgroupnsMode":"private"}}`: "alices-all",
	} {
		if status, out := d.call(t, alice, "POST", "/containers/create?name="+name, body); status != 201 {
			t.Errorf("%d %s", status, out)
		}
		if status, out := d.call(t, alice, "DELETE", "/containers/"+name+"?v=1", ""); status != 204 {
			t.Errorf("%d %s", status, out)
		}
		d.call(t, alice, "DELETE", "/volumes/alices-vol", "")
	}
}

// TestOwnGoesNoFurther tries to get out of the right own: each row is refused, and nothing has come of it.
func TestOwnGoesNoFurther(t *testing.T) {
	d, mine, bobs, roots := doorFor(t)
	e := d.e
	e.want(t, 204, "POST", "/containers/"+mine+"/start", "", nil)
	e.want(t, 201, "POST", "/volumes/create", `{"Name":"roots-data"}`, nil)
	t.Cleanup(func() { e.call(t, "DELETE", "/volumes/roots-data", "") })
	e.want(t, 201, "POST", "/networks/create", `{"Name":"roots-net"}`, nil)
	t.Cleanup(func() { e.call(t, "DELETE", "/networks/roots-net", "") })
	e.want(t, 201, "POST", "/networks/create", `{"Name":"roots/net/24"}`, nil)
	t.Cleanup(func() { e.want(t, 204, "DELETE", "/networks/roots/net/24", "", nil) })
	var exec struct{ ID string }
	e.want(t, 201, "POST", "/containers/"+bobs+"/exec", `{"Cmd":["id"],"AttachStdout":true}`, &exec)
	host := func(fields string) string {
		return `{"Image":"busybox:test","Cmd":["true"],"HostConfig":{` + fields + `}}`
	}
	rows := [][3]string{
		// Others' containers, by each name that they have and each way that there is.
		{"GET", "/containers/" + bobs + "/json"}, {"GET", "/containers/" + bobs[:12] + "/json"}, {"GET", "/containers/" + roots + "/json"},
		{"GET", "/v1.41/containers/" + bobs + "/json"}, {"GET", "/containers/" + bobs + "/logs?stdout=1"}, {"GET", "/containers/" + bobs + "/stats?stream=0"},
		{"GET", "/containers/" + bobs + "/top"}, {"GET", "/containers/" + bobs + "/archive?path=/etc/passwd"}, {"HEAD", "/containers/" + bobs + "/archive?path=/etc/passwd"},
		{"PUT", "/containers/" + bobs + "/archive?path=/"}, {"GET", "/containers/" + bobs + "/export"}, {"GET", "/containers/" + bobs + "/changes"},
		{"POST", "/containers/" + bobs + "/stop?t=0"}, {"POST", "/containers/" + bobs + "/kill"}, {"DELETE", "/containers/" + bobs + "?force=1"},
		{"POST", "/containers/" + bobs + "/rename?name=mine"}, {"POST", "/containers/" + bobs + "/update", `{"Memory":67108864}`}, {"POST", "/containers/" + bobs + "/wait"},
		{"POST", "/containers/" + bobs + "/attach?stream=1&stdin=1"}, {"GET", "/containers/" + bobs + "/attach/ws?stream=1&stdin=1"}, {"POST", "/containers/" + bobs + "/resize?h=1&w=1"},
		{"POST", "/containers/" + bobs + "/exec", `{"Cmd":["id"]}`}, {"POST", "/wherry/exec/" + bobs, `{"Cmd":["id"],"AttachStdout":true}`},
		{"POST", "/exec/" + exec.ID + "/start", `{}`}, {"POST", "/exec/" + exec.ID + "/start", `{"Detach":true}`}, {"GET", "/exec/" + exec.ID + "/json"}, {"POST", "/exec/" + exec.ID + "/resize?h=1&w=1"},
		{"POST", "/commit?container=" + bobs}, {"POST", "/commit?container=" + mine + "&repo=busybox&tag=test"}, {"GET", "/wherry/why/" + bobs},
		// Paths that are written otherwise.
		{"GET", "//containers/" + bobs + "/json"}, {"GET", "/v1.41//containers/" + bobs + "/json"}, {"GET", "/containers//" + bobs + "/json"},
		{"GET", "/containers/" + mine + "/../" + bobs + "/json"}, {"GET", "/containers/" + mine + "%2f..%2f" + bobs + "/json"}, {"GET", "/containers/" + mine + "/%2e%2e/" + bobs + "/json"},
		{"GET", "/v1.99/../containers/" + bobs + "/json"}, {"GET", "/v1.41/../containers/" + bobs + "/json"}, {"GET", "/v1.41/v1.41/containers/" + bobs + "/json"},
		{"GET", "/containers/" + bobs + "%2fjson"}, {"GET", "/containers%2f" + bobs + "/json"}, {"GET", "/CONTAINERS/" + bobs + "/json"}, {"GET", "/containers/" + bobs + "/json/"},
		{"GET", "/containers/%" + fmt.Sprintf("%x", bobs[0]) + bobs[1:] + "/json"}, {"GET", "http://e/containers/" + bobs + "/json"}, {"GET", "/./containers/" + bobs + "/json"},
		{"GET", "/containers/" + bobs + "/json?id=" + mine}, {"GET", "/containers/" + bobs + ";x/json"}, {"POST", "/containers/" + bobs + "/stop?t=0&container=" + mine},
		// New containers that reach the host.
		{"POST", "/containers/create", host(`"Privileged":true`)}, {"POST", "/containers/create", host(`"privileged":true`)},
		{"POST", "/containers/create", host(`"Privileged":false,"PRIVILEGED":true`)}, {"POST", "/containers/create", host(`"Privileged":true}, "hostconfig":{"Memory":0`)},
		{"POST", "/wherry/run", host(`"Privileged":true`)}, {"POST", "/v1.24/containers/create", host(`"Privileged":true`)},
		{"POST", "/containers/create", host(`"Binds":["/:/host"]`)}, {"POST", "/containers/create", host(`"Binds":["./x:/host"]`)}, {"POST", "/containers/create", host(`"Binds":["ok:/ok","/etc:/host:ro"]`)},
		{"POST", "/containers/create", host(`"Mounts":[{"Type":"bind","Source":"/","Target":"/host"}]`)}, {"POST", "/containers/create", host(`"Mounts":[{"Type":"bind","Source":"/var/run","Target":"/host","BindOptions":{"CreateMountpoint":true}}]`)},
		{"POST", "/containers/create", host(`"Mounts":[{"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/"}}}}]`)},
		{"POST", "/containers/create", host(`"Mounts":[{"Type":"volume","Source":"/etc","Target":"/v"}]`)}, {"POST", "/containers/create", host(`"VolumeDriver":"other","Binds":["v:/v"]`)},
		{"POST", "/containers/create", host(`"NetworkMode":"host"`)}, {"POST", "/containers/create", host(`"PidMode":"host"`)}, {"POST", "/containers/create", host(`"IpcMode":"host"`)},
		{"POST", "/containers/create", host(`"UTSMode":"host"`)}, {"POST", "/containers/create", host(`"UsernsMode":"host"`)}, {"POST", "/containers/create", host(`"CgroupnsMode":"host"`)},
		{"POST", "/containers/create", host(`"Devices":[{"PathOnHost":"/dev/kmsg","PathInContainer":"/dev/kmsg","CgroupPermissions":"rwm"}]`)},
		{"POST", "/containers/create", host(`"DeviceCgroupRules":["a *:* rwm"]`)}, {"POST", "/containers/create", host(`"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]`)},
		{"POST", "/containers/create", host(`"CapAdd":["SYS_ADMIN"]`)}, {"POST", "/containers/create", host(`"CapAdd":["all"]`)}, {"POST", "/containers/create", host(`"CapAdd":["CAP_SYS_MODULE"]`)},
		{"POST", "/containers/create", host(`"SecurityOpt":["seccomp=unconfined"]`)}, {"POST", "/containers/create", host(`"SecurityOpt":["apparmor=unconfined"]`)}, {"POST", "/containers/create", host(`"SecurityOpt":["systempaths=unconfined"]`)},
		{"POST", "/containers/create", host(`"MaskedPaths":[]`)}, {"POST", "/containers/create", host(`"ReadonlyPaths":[]`)}, {"POST", "/containers/create", host(`"CgroupParent":"/"`)},
		{"POST", "/containers/create", host(`"OomScoreAdj":-1000`)}, {"POST", "/containers/create", host(`"Runtime":"other"`)}, {"POST", "/containers/create", host(`"Annotations":{"wherry.secrets":"x"}`)},
		{"POST", "/containers/create", host(`"CpuRealtimeRuntime":1000`)}, {"POST", "/containers/create", host(`"Ulimits":[{"Name":"rtprio","Soft":50,"Hard":50}]`)},
		{"POST", "/containers/" + mine + "/update", `{"Ulimits":[{"Name":"rtprio","Soft":50,"Hard":50}],"Memory":67108864}`}, {"POST", "/containers/create", host(`"StorageOpt":{"size":"1G"}`)}, {"POST", "/containers/create", host(`"Cgroup":"container:` + bobs + `"`)},
		{"POST", "/containers/create", host(`"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":1}]`)}, {"POST", "/containers/" + mine + "/update", `{"CgroupParent":"/","Memory":67108864}`},
		{"POST", "/containers/" + mine + "/update", `{"Devices":[{"PathOnHost":"/dev/kmsg"}]}`}, {"POST", "/containers/" + mine + "/exec", `{"Cmd":["id"],"Privileged":true}`}, {"POST", "/wherry/exec/" + mine, `{"Cmd":["id"],"Privileged":true}`},
		// Names that read as ids of others, there or gone.
		{"POST", "/containers/create?name=" + bobs[:12], host(``)}, {"POST", "/wherry/run?name=" + strings.Repeat("0a", 32), host(``)}, {"POST", "/containers/" + mine + "/rename?name=" + roots},
		{"POST", "/networks/create", `{"Name":"` + strings.Repeat("0a", 6) + `"}`},
		// New containers that reach others.
		{"POST", "/containers/create", host(`"NetworkMode":"container:` + bobs + `"`)}, {"POST", "/containers/create", host(`"PidMode":"container:` + roots[:12] + `"`)},
		{"POST", "/containers/create", host(`"IpcMode":"container:` + bobs + `"`)}, {"POST", "/containers/create", host(`"VolumesFrom":["` + bobs + `:ro"]`)},
		{"POST", "/containers/create", host(`"Links":["` + bobs + `:db"]`)}, {"POST", "/containers/create", host(`"Binds":["roots-data:/data"]`)},
		{"POST", "/containers/create", host(`"Mounts":[{"Type":"volume","Source":"roots-data","Target":"/v"}]`)},
		// Networks and volumes.
		{"GET", "/networks/roots-net"}, {"DELETE", "/networks/roots-net"}, {"POST", "/networks/roots-net/connect", `{"Container":"` + mine + `"}`},
		{"GET", "/networks/roots/net/24"}, {"DELETE", "/networks/roots/net/24"}, {"DELETE", "/networks/roots%2Fnet/24"}, {"POST", "/networks/roots/net/24/connect", `{"Container":"` + mine + `"}`},
		{"POST", "/networks/bridge/connect", `{"Container":"` + bobs + `"}`}, {"POST", "/networks/bridge/disconnect", `{"Container":"` + bobs + `","Force":true}`},
		{"POST", "/networks/create", `{"Name":"x","Options":{"com.docker.network.bridge.name":"eth0"}}`}, {"POST", "/networks/create", `{"Name":"x","Driver":"macvlan","Options":{"parent":"eth0"}}`},
		{"POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"169.254.169.0/24","Gateway":"169.254.169.254"}]}}`}, // the host would ask them
		{"POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"8.8.8.0/24"}]}}`}, {"POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"172.0.0.0/8"}]}}`},
		{"POST", "/networks/create", `{"Name":"x","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"2000::/3"}]}}`},
		{"GET", "/volumes/roots-data"}, {"DELETE", "/volumes/roots-data?force=1"}, {"POST", "/volumes/create", `{"Name":"roots-data"}`},
		{"POST", "/volumes/create", `{"Name":"x","DriverOpts":{"type":"none","o":"bind","device":"/"}}`},
		// What is everybody's.
		{"POST", "/build?t=x"}, {"POST", "/session"}, {"POST", "/grpc"}, {"POST", "/build/prune"}, {"POST", "/images/load"}, {"DELETE", "/images/busybox:test"},
		{"POST", "/images/busybox:test/tag?repo=x"}, {"POST", "/images/busybox:test/push"}, {"POST", "/images/prune"}, {"POST", "/images/create?fromSrc=-&repo=busybox&tag=test"},
		{"GET", "/images/get?names=busybox:test"}, {"GET", "/system/df"}, {"GET", "/wherry/audit"}, {"GET", "/wherry/audit/verify"}, {"POST", "/wherry/clean-up"}, {"POST", "/wherry/store/check"},
		{"GET", "/wherry/copy/out"}, {"POST", "/wherry/copy"}, {"POST", "/wherry/pins?name=x"}, {"GET", "/metrics"}, {"POST", "/plugins/x/enable"}, {"POST", "/swarm/init"},
		{"POST", "/containers/" + mine + "/checkpoints", `{"CheckpointID":"x"}`},
	}
	for _, row := range rows {
		status, body := d.call(t, alice, row[0], row[1], row[2])
		// 400 and 404 are for paths that are none; 405 for methods.
		if status < 400 || status >= 500 || strings.Contains(body, `"Id"`) {
			t.Errorf("%s %s %s: %d %.200s", row[0], row[1], row[2], status, body)
		}
		if status == 403 && row[0] != "HEAD" && !strings.Contains(body, "access.toml:3") && !strings.Contains(body, "belongs to somebody else") && !strings.Contains(body, "you may use those") {
			t.Errorf("%s %s: it is not said why: %s", row[0], row[1], body)
		}
	}
	var c struct{ State struct{ Status string } }
	e.want(t, 200, "GET", "/containers/"+bobs+"/json", "", &c)
	if c.State.Status != "running" {
		t.Errorf("bob's container is %s", c.State.Status)
	}
}

// TestBodiesAreSeenWhole: in chunks, late, long, after an Upgrade, with two lengths.
func TestBodiesAreSeenWhole(t *testing.T) {
	d, mine, bobs, _ := doorFor(t)
	bad := `{"Image":"busybox:test","HostConfig":{"Privileged":true}}`
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	head := "POST /containers/create HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n"
	padded := `{"Image":"busybox:test","Labels":{"x":"` + strings.Repeat("x", 9<<20) + `"},"HostConfig":{"Privileged":true}}`
	for name, row := range map[string]struct {
		text string
		want int
	}{
		"chunks":            {head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(bad[:20]) + chunk(bad[20:]) + "0\r\n\r\n", 403},
		"chunks, upgrade":   {head + "Connection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(bad) + "0\r\n\r\n", 403},
		"upgrade":           {head + "Connection: Upgrade\r\nUpgrade: tcp\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(bad)) + bad, 403},
		"no length":         {head + "\r\n" + bad, 400},
		"length and chunks": {head + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(bad) + "0\r\n\r\n", 403},
		"large":             {head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(padded)) + padded, 413},
		"large, in chunks":  {head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(padded) + "0\r\n\r\n", 413},
		"two documents":     {head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(bad)+29) + `{"Image":"busybox:test","x":1}`[:29] + bad, 400},
		"another method":    {"POST /containers/" + bobs + "/kill HTTP/1.1\r\nHost: e\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n", 403},
		"a second request":  {"GET /_ping HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n", 200},
		"kit of builds":     {"POST /grpc HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 403},
		"hijack":            {"POST /containers/" + bobs + "/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n", 403},
		"start with a body": {"POST /containers/" + mine + "/start HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n" + `{"HostConfig":{"Binds":["/"]}}`[:30], 400},
	} {
		if status, body := d.raw(t, alice, row.text); status != row.want {
			t.Errorf("%s: %d %.200s, want %d", name, status, body, row.want)
		}
	}
}

// TestContainersOwnAsThemselves: what a container with the socket makes is that container's, and not of who has its ids after it.
func TestContainersOwnAsThemselves(t *testing.T) {
	d, _, _, _ := doorFor(t)
	d = openDoor(t, d.e, "default = \"own\"\n")
	as := func(base int, method, path, body string) string {
		cmd := exec.Command("curl", "-s", "-w", "\n%{http_code}", "-X", method, "-H", "Content-Type: application/json", "-d", body, "--unix-socket", d.socket, "http://e"+path)
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{Uid: 33, Gid: 33}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v %s", method, path, err, out)
		}
		return string(out)
	}
	run := func() (id string, base int) {
		id = d.e.create(t, `"Cmd":["sleep","1000"]`)
		d.e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
		var c struct{ State struct{ Pid int } }
		d.e.want(t, 200, "GET", "/containers/"+id+"/json", "", &c)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", c.State.Pid))
		if _, scan := fmt.Sscan(string(text), new(int), &base); err != nil || scan != nil {
			t.Fatal(err, scan)
		}
		return id, base
	}
	one, ids := run()
	other, otherIDs := run()
	const volume = "made-by-one"
	if out := as(ids, "POST", "/volumes/create", `{"Name":"`+volume+`"}`); !strings.HasSuffix(out, "201") {
		t.Fatal(out)
	}
	t.Cleanup(func() { d.e.call(t, "DELETE", "/volumes/"+volume, "") })
	if out := as(ids, "GET", "/volumes/"+volume, ""); !strings.HasSuffix(out, "200") {
		t.Errorf("one's own: %s", out)
	}
	if out := as(otherIDs, "GET", "/volumes/"+volume, ""); strings.HasSuffix(out, "200") {
		t.Errorf("another container: %s", out)
	}
	d.e.want(t, 204, "DELETE", "/containers/"+one+"?force=1", "", nil)
	if out := as(ids, "GET", "/volumes/"+volume, ""); !strings.HasSuffix(out, "403") || !strings.Contains(out, "none of this engine's") {
		t.Errorf("ids that no container has: %s", out)
	}
	if found := container.OfUser(d.e.services.Containers, uint32(otherIDs+65535)); found != other {
		t.Errorf("the last id of a container is of %q, not %q", found, other)
	}
	if found := container.OfUser(d.e.services.Containers, uint32(otherIDs+65536)); found == other {
		t.Error("the id after a container's is taken for its own")
	}
}

// TestListsShowTheirOwn: lists, events and prunes of one who may see his own only.
func TestListsShowTheirOwn(t *testing.T) {
	d, mine, bobs, roots := doorFor(t)
	e := d.e
	for _, uid := range []int{alice, bob} {
		for path, body := range map[string]string{"/volumes/create": `{"Name":"vol%d"}`, "/networks/create": `{"Name":"net%d"}`} {
			if status, out := d.call(t, uid, "POST", path, fmt.Sprintf(body, uid)); status != 201 {
				t.Fatalf("%d %s", status, out)
			}
		}
		t.Cleanup(func() {
			e.call(t, "DELETE", fmt.Sprintf("/volumes/vol%d", uid), "")
			e.call(t, "DELETE", fmt.Sprintf("/networks/net%d", uid), "")
		})
	}
	until := fmt.Sprintf("/events?since=1&until=%d", time.Now().Unix())
	for path, want := range map[string][2]string{ // what is in it, and what is not
		"/containers/json?all=1": {mine, bobs}, "/containers/json?limit=1": {mine, roots}, "/volumes": {"vol2001", "vol2002"}, "/networks": {"net2001", "net2002"},
		until: {"", bobs}, until + "&filters=" + url.QueryEscape(`{"container":["`+bobs+`"]}`): {"", bobs}, "/networks/bridge": {"", bobs},
	} {
		status, body := d.call(t, alice, "GET", path, "")
		if status != 200 || !strings.Contains(body, want[0]) || strings.Contains(body, want[1]) {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if strings.Contains(body, "dev.wherry.owner") {
			t.Errorf("%s shows owners: %s", path, body)
		}
	}
	e.want(t, 204, "POST", "/containers/"+bobs+"/stop?t=0", "", nil)
	for _, path := range []string{"/containers/prune", "/volumes/prune?filters=%7B%22all%22:[%22true%22]%7D", "/networks/prune"} {
		if status, body := d.call(t, alice, "POST", path, ""); status != 200 || strings.Contains(body, bobs) || strings.Contains(body, "2002") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	e.want(t, 404, "GET", "/containers/"+mine+"/json", "", nil) // it was pruned
	e.want(t, 200, "GET", "/containers/"+bobs+"/json", "", nil)
	e.want(t, 200, "GET", "/volumes/vol2002", "", nil)
	e.want(t, 404, "GET", "/volumes/vol2001", "", nil)
	e.want(t, 200, "GET", "/networks/net2002", "", nil)
	e.want(t, 404, "GET", "/networks/net2001", "", nil)
}

// TestOwnSeesNoSecrets: who may command his own containers hears neither names nor values of secrets and configs, nor gives them to a container;
// nor does who may only read.
func TestOwnSeesNoSecrets(t *testing.T) {
	d, mine, _, _ := doorFor(t)
	for _, store := range []string{"/wherry/secrets", "/wherry/configs"} {
		if status, out := d.call(t, admin, "POST", store+"?name=hidden-thing", "value-that-nobody-sees"); status != 201 {
			t.Fatalf("%s: %d %s", store, status, out)
		}
		t.Cleanup(func() { d.call(t, admin, "DELETE", store+"/hidden-thing", "") })
	}
	use := `{"Image":"busybox:test","Cmd":["cat","/run/secrets/hidden-thing"],"Wherry":{"Secrets":[{"Name":"hidden-thing","Kind":"%s"}]}}`
	for _, row := range [][3]string{
		{"GET", "/wherry/secrets"}, {"GET", "/wherry/secrets/hidden-thing"}, {"DELETE", "/wherry/secrets/hidden-thing"}, {"POST", "/wherry/secrets?name=hidden-thing&replace=1", "other"},
		{"GET", "/wherry/configs"}, {"GET", "/wherry/configs/hidden-thing"}, {"DELETE", "/wherry/configs/hidden-thing"}, {"POST", "/wherry/configs?name=mine", "other"},
		{"POST", "/containers/create", fmt.Sprintf(use, "secret")}, {"POST", "/containers/create", fmt.Sprintf(use, "config")}, {"POST", "/wherry/run", fmt.Sprintf(use, "secret")},
	} {
		if status, body := d.call(t, alice, row[0], row[1], row[2]); status != 403 || strings.Contains(body, "value-that") {
			t.Errorf("%s %s %s: %d %s", row[0], row[1], row[2], status, body)
		}
	}
	for _, path := range []string{fmt.Sprintf("/events?since=1&until=%d", time.Now().Unix()), "/info", "/containers/json?all=1", "/containers/" + mine + "/json"} {
		if status, body := d.call(t, alice, "GET", path, ""); status != 200 || strings.Contains(body, "hidden-thing") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/wherry/secrets", "/wherry/secrets/hidden-thing", "/wherry/configs/hidden-thing"} {
		if status, body := d.call(t, reader, "GET", path, ""); status != 403 {
			t.Errorf("%s, of who may read: %d %s", path, status, body)
		}
	}
}

// TestRulesThatChange hold from the next request on.
func TestRulesThatChange(t *testing.T) {
	d := openDoor(t, start(t), "[[rule]]\nuid = 2001\nmay = \"all\" # at first\n")
	ask := func(want int) {
		t.Helper()
		if status, body := d.call(t, 2001, "GET", "/info", ""); status != want {
			t.Errorf("%d %s", status, body)
		}
	}
	for dir := d.e.dir; dir != "/var/tmp"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(d.e.dir, 0o700) })
	ask(200)
	rules, err := access.Parse("access.toml", []byte("[[rule]]\nuid = 2002\nmay = \"all\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	d.server.SetAccess(rules)
	ask(403)
}

// TestNamesThatChangeHands: a container is limited to what is its owner's also when a name means something else by now.
func TestNamesThatChangeHands(t *testing.T) {
	d, _, _, _ := doorFor(t)
	e := d.e
	call := func(uid int, method, path, body string, want int) {
		t.Helper()
		if status, out := d.call(t, uid, method, path, body); status != want {
			t.Fatalf("%s %s: %d %s", method, path, status, out)
		}
	}
	call(alice, "POST", "/networks/create", `{"Name":"changes"}`, 201)
	call(alice, "POST", "/containers/create?name=waits", `{"Image":"busybox:test","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"changes"}}`, 201)
	t.Cleanup(func() { e.call(t, "DELETE", "/containers/waits?force=1", "") })
	call(alice, "DELETE", "/networks/changes", "", 204)
	call(bob, "POST", "/networks/create", `{"Name":"changes"}`, 201)
	t.Cleanup(func() { e.call(t, "DELETE", "/networks/changes", "") })
	call(alice, "POST", "/containers/waits/start", "", 403)
}

func TestReadOnlyAndAll(t *testing.T) {
	d, mine, bobs, _ := doorFor(t)
	for _, row := range []struct {
		uid          int
		method, path string
		want         int
	}{
		{reader, "GET", "/containers/" + bobs + "/json", 200}, {reader, "GET", "/containers/json", 200}, {reader, "GET", "/containers/" + bobs + "/logs?stdout=1", 200},
		{reader, "GET", "/system/df", 200}, {reader, "GET", "/images/json", 200}, {reader, "HEAD", "/_ping", 200}, {reader, "GET", "/volumes", 200}, {reader, "GET", "/swarm", 503},
		{reader, "GET", "/images/busybox:test/json", 200}, {reader, "GET", "/images/busybox:test/get", 403},
		{reader, "GET", "/containers/" + bobs + "/top?ps_args=axeww", 403}, {reader, "GET", "/containers/" + bobs + "/top?ps_args=-ef", 200},
		{reader, "POST", "/containers/" + bobs + "/stop", 403}, {reader, "DELETE", "/containers/" + bobs, 403}, {reader, "POST", "/containers/" + bobs + "/exec", 403},
		{reader, "GET", "/containers/" + bobs + "/attach/ws?stdin=1&stream=1", 403}, {reader, "POST", "/containers/" + bobs + "/attach?stream=1", 403},
		{reader, "GET", "/containers/" + bobs + "/archive?path=/etc/passwd", 403}, {reader, "GET", "/containers/" + bobs + "/export", 403}, {reader, "POST", "/auth", 403},
		{reader, "POST", "/build", 403}, {reader, "POST", "/session", 403}, {reader, "POST", "/images/create?fromImage=x", 403}, {reader, "POST", "/containers/prune", 403},
		{reader, "GET", "/wherry/audit", 403}, {reader, "GET", "/wherry/copy/out", 403}, {reader, "POST", "/containers/create", 403}, {reader, "PUT", "/containers/" + bobs + "/archive?path=/", 403},
		{admin, "GET", "/containers/" + bobs + "/json", 200}, {admin, "POST", "/containers/" + mine + "/start", 204}, {admin, "GET", "/wherry/audit/verify", 200},
		{nobody, "GET", "/_ping", 403}, {nobody, "GET", "/containers/json", 403}, {0, "GET", "/containers/" + mine + "/json", 200},
	} {
		if status, body := d.call(t, row.uid, row.method, row.path, ""); status != row.want {
			t.Errorf("%d %s %s: %d %.200s, want %d", row.uid, row.method, row.path, status, body, row.want)
		}
	}
}
