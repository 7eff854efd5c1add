package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"net"
	"sync"
)

// createRecorder notes what is posted to /containers/create and makes no container.
type createRecorder struct {
	mu    sync.Mutex
	query string
	body  []byte
}

func (r *createRecorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", "1.56")
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Server", "Recorder (linux)")
	if strings.HasSuffix(req.URL.Path, "/containers/create") {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.query, r.body = req.URL.RawQuery, body
		r.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message":"recorded"}`)
		return
	}
	fmt.Fprint(w, "OK")
}

func (r *createRecorder) take() (query string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	query, body = r.query, r.body
	r.query, r.body = "", nil
	return query, body
}

func serveRecorder(t *testing.T, h http.Handler) (host string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "unix://" + socket
}

// createLines are command lines whose request must be the same from both clients.
func createLines() [][]string {
	var all [][]string
	for _, line := range strings.Split(strings.TrimSpace(`
busybox
busybox --help -x
-- busybox x
-it busybox sh
-i busybox
-t busybox
-a stdout busybox
-a STDIN -a stdout -i busybox
--entrypoint= busybox
--entrypoint sh busybox -c x
-h foo.bar.com --domainname dd busybox
-e A=1 -e B= -e HOME -e NOT_SET_ANYWHERE busybox
-l a=b -l c busybox
-p 80 busybox
-p 8080:80 busybox
-p 127.0.0.1:8080:80/udp busybox
-p 127.0.0.1::80 busybox
-p 8000-8002:80-82 busybox
-p 8000-8010:80 busybox
-p [::1]:80:80/tcp busybox
-p ::1:80:80 busybox
-p [::]:80:80 busybox
-p 80-82 busybox
-p 0:80 busybox
-p :80 busybox
-p 80:80/TCP busybox
-p 80/sctp busybox
-p 8000-8001:80 -p 80 -p 8005:80 busybox
-p published=80,target=81,protocol=udp busybox
-p target=81,mode=host busybox
-p published=80-82,target=90-92 busybox
--expose 80 --expose 90-92/udp busybox
-P busybox
--restart always busybox
--restart on-failure:3 busybox
--restart on-failure busybox
--restart unless-stopped busybox
--restart= busybox
-v /a busybox
-v /a:/b busybox
-v a_1:/b:ro busybox
-v /a:/b:ro,z busybox
-v ./x:/y busybox
-v ../x:/y busybox
-v .:/y busybox
-v foo:/b:nocopy -v /q -v /c:/d busybox
--tmpfs /t busybox
--tmpfs /t:size=1m,mode=700 busybox
--init busybox
--init=false busybox
--rm busybox
-m 1g --memory-swap -1 --memory-reservation 512m --memory-swappiness 5 busybox
--memory-swap 2g busybox
-m 1.5g busybox
-m 0 busybox
--cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-period 1000 --cpu-quota 2000 --cpu-rt-period 1 --cpu-rt-runtime 2 busybox
--cpus .5 busybox
--pids-limit 10 busybox
--pids-limit -1 busybox
--ulimit nofile=1024:2048 --ulimit core=0 --ulimit nofile=5 busybox
--ulimit nofile=-1 busybox
--device vendor.com/class=name busybox
--gpus all busybox
--gpus 2 busybox
--gpus device=0 busybox
--gpus "device=0,1","capabilities=compute,utility",driver=nvidia busybox
--device-cgroup-rule=c\u00201:3\u0020rwm busybox
--device-cgroup-rule=a\u0020*:*\u0020m busybox
--blkio-weight 300 --blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:1m busybox
--device-read-iops /dev/sda:100 --device-write-iops /dev/sda:100 busybox
--shm-size 64m busybox
--sysctl net.ipv4.ip_forward=1 busybox
--storage-opt size=1g busybox
--log-driver none busybox
--log-opt a=b --log-opt c busybox
--health-cmd x --health-interval 5s --health-retries 3 --health-timeout 2s --health-start-period 1m --health-start-interval 1s busybox
--health-interval 5s busybox
--no-healthcheck busybox
--network none busybox
--network host busybox
--network bridge busybox
--network default busybox
--network container:foo busybox
--network my --network-alias a --network-alias b busybox
--network name=my,alias=a,ip=10.0.0.2,driver-opt=a=b,mac-address=92:d0:c6:0a:29:33,gw-priority=5,link-local-ip=169.254.1.1 busybox
--network name=my,ip6=2001:db8::4 busybox
--network a --network b busybox
--network a --network b --network-alias x busybox
--net my --net-alias q --ip 10.0.0.2 --ip6 2001:db8::2 --mac-address 92:d0:c6:0a:29:33 --link-local-ip 169.254.1.1 --link x:y busybox
--network none --ip 1.2.3.4 busybox
--ip 1.2.3.4 busybox
--mac-address 92:d0:c6:0a:29:33 busybox
--link a:b busybox
--dns 1.1.1.1 --dns-option x --dns-opt z --dns-search y busybox
--dns 2001:db8::1 --dns-search . busybox
--add-host a:1.2.3.4 --add-host b:host-gateway --add-host c=::1 --add-host d:[::1] busybox
--cap-add NET_ADMIN --cap-drop ALL --cap-add cap_sys_admin busybox
--cap-add ALL --cap-drop mknod --cap-drop CHOWN busybox
--cap-add SYS_TIME --cap-drop SYS_TIME busybox
--security-opt no-new-privileges busybox
--security-opt seccomp=unconfined --security-opt apparmor=x --security-opt label=disable busybox
--security-opt systempaths=unconfined busybox
--security-opt no-new-privileges:true busybox
--security-opt seccomp=builtin busybox
--privileged busybox
--pid host --ipc host --uts host --userns host --cgroupns host busybox
--cgroupns private --ipc private busybox
--ipc container:x --pid container:y busybox
--stop-signal INT --stop-timeout 5 busybox
--stop-timeout 0 busybox
-u 1:2 -w /x busybox
--group-add a --group-add 5 busybox
--read-only busybox
--annotation a=b --annotation c busybox
--oom-kill-disable --oom-score-adj 5 busybox
--isolation default --runtime runc busybox
--volumes-from x:ro --volume-driver local busybox
--cgroup-parent /x busybox
--platform linux/amd64 busybox
--name foo busybox
--pull never -q busybox
--kernel-memory 5m --disable-content-trust busybox
--mount type=bind,source=/a,target=/b busybox
--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared busybox
--mount src=v,dst=/b,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=x=y,volume-subpath=q busybox
--mount type=volume,dst=/b,volume-label=x,volume-nocopy=false busybox
--mount dst=/b busybox
--mount type=tmpfs,dst=/b,tmpfs-size=10m,tmpfs-mode=1770 busybox
--mount type=image,src=i,dst=/b,image-subpath=q busybox
--mount type=bind,src=/a,dst=/b,bind-recursive=readonly,readonly,bind-propagation=rprivate busybox
--mount type=bind,src=/a,dst=/b,bind-recursive=disabled busybox
--mount type=bind,src=/a,dst=/b,bind-recursive=writable,ro busybox
--mount type=bind,src=/a,dst=/b,bind-nonrecursive busybox
--mount type=bind,src=/a,dst=/b,consistency=cached busybox
--mount type=bind,src=./a,dst=/b --mount type=bind,src=..,dst=/c busybox
--mount TYPE=bind,SRC=/a,Dst=/b,ro=false busybox
--mount type=bind,"src=/a,b",dst=/b busybox
`), "\n") {
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], `\u0020`, " ")
		}
		all = append(all, args)
	}
	return all
}

// TestCreateAsksAsDocker holds both clients' requests against each other, byte for byte but for the order of what has none.
func TestCreateAsksAsDocker(t *testing.T) {
	program, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("the docker client is needed for this test: test/tools.sh installs it")
	}
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	write(t, env, "\xef\xbb\xbf# a comment\n\n  LEADING=space\nEMPTY=\nHOME\nNOT_SET_ANYWHERE\nQUOTED=\"a b\" \n")
	labels := filepath.Join(dir, "labels")
	write(t, labels, "# comment\nfrom=file\nalone\n")
	profile := filepath.Join(dir, "seccomp.json")
	write(t, profile, "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n")
	lines := append(createLines(),
		[]string{"--env-file", env, "-e", "LEADING=again", "busybox"},
		[]string{"--label-file", labels, "-l", "from=flag", "busybox"},
		[]string{"--security-opt", "seccomp=" + profile, "busybox"},
		[]string{"--cidfile", filepath.Join(dir, "cid"), "busybox"},
		[]string{"-e", "A B=c d", "busybox", "", "a b"},
	)
	rec := &createRecorder{}
	host := serveRecorder(t, rec)
	for _, args := range lines {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			cmd := exec.Command(program, append([]string{"-H", host, "create"}, args...)...)
			cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
			said, _ := cmd.CombinedOutput()
			wantQuery, want := rec.take()
			if want == nil {
				t.Fatalf("docker asked nothing: %s", said)
			}
			var stderr bytes.Buffer
			code := Main(t.Context(), append([]string{"-H", host, "create"}, args...), Streams{In: strings.NewReader(""), Out: io.Discard, Err: &stderr})
			query, got := rec.take()
			if got == nil {
				t.Fatalf("wherry asked nothing: %s", &stderr)
			}
			if query != wantQuery {
				t.Errorf("query is %q, docker's is %q", query, wantQuery)
			}
			if code != 1 {
				t.Errorf("exit status is %d", code)
			}
			compareCreate(t, got, want)
		})
	}
}

func compareCreate(t *testing.T, got, want []byte) {
	t.Helper()
	// Ours leaves out what says nothing: what an engine reads is held against docker's.
	read := createRequest{}
	d := json.NewDecoder(bytes.NewReader(got))
	d.DisallowUnknownFields()
	if err := d.Decode(&read); err != nil {
		t.Fatal(err)
	}
	whole, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	g, w := flatten(t, whole), flatten(t, want)
	for _, key := range sorted(w) {
		if !reflect.DeepEqual(g[key], w[key]) {
			t.Errorf("%s is %v, docker's is %v", key, g[key], w[key])
		}
	}
	for _, key := range sorted(g) {
		if _, ok := w[key]; !ok {
			t.Errorf("%s is %v, docker says nothing", key, g[key])
		}
	}
}

// flatten gives the values of a request by their paths. An absent value, null, and an empty list or map are the same to every engine,
// except where a list's emptiness says something (Entrypoint, MaskedPaths, ReadonlyPaths).
func flatten(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case nil:
		case map[string]any:
			for k, e := range v {
				walk(path+"/"+k, e)
			}
			if len(v) == 0 && (strings.HasPrefix(path, "/Volumes/") || strings.Contains(path, "Ports/") || strings.HasSuffix(path, "Options")) {
				out[path] = "{}"
			}
		case []any:
			if len(v) == 0 && !strings.HasSuffix(path, "Paths") {
				return
			}
			if path == "/Env" || path == "/HostConfig/Binds" { // no order that a process sees; docker's own is another each time
				slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
			out[path] = v
		default:
			out[path] = v
		}
	}
	walk("", v)
	return out
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
