package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

// seen is a request that an engine got, without what does not matter: empty values and the version in the path.
type seen struct {
	Method, Path string
	Query        map[string][]string
	Body         any
	Auth         registry.AuthConfig
}

// listener is a recording that remembers what it was asked.
type listener struct {
	recording
	mu  sync.Mutex
	got []seen
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.IndexByte(path[1:], '/')+1:]
	}
	// Docker's client writes names of Docker Hub in full, ours leaves that to the engine.
	path = strings.Replace(path, "docker.io/library/", "", 1)
	r.URL.Path = path
	if path != "/_ping" && path != "/info" {
		s := seen{Method: r.Method, Path: path, Query: map[string][]string{}}
		for name, values := range r.URL.Query() {
			if values = slices.DeleteFunc(values, func(v string) bool { return v == "" || v == "0" }); len(values) > 0 {
				s.Query[name] = values
			}
			if (name == "fromImage" || name == "repo") && len(values) > 0 {
				s.Query[name] = []string{splitName(values[0]).String()}
			}
			if name != "tag" && len(values) > 0 && (values[0] == "true" || values[0] == "1") {
				s.Query[name] = []string{"yes"}
			}
		}
		if json.Unmarshal(body, &s.Body) != nil && len(body) > 0 {
			s.Body = string(body)
		}
		s.Body = withoutEmpty(s.Body)
		if raw, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth")); err == nil {
			_ = json.Unmarshal(raw, &s.Auth)
		}
		l.mu.Lock()
		l.got = append(l.got, s)
		l.mu.Unlock()
	}
	l.recording.ServeHTTP(w, r)
}

func withoutEmpty(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		if list, ok := v.([]any); ok {
			for i := range list {
				list[i] = withoutEmpty(list[i])
			}
		}
		return v
	}
	for name, value := range m {
		value = withoutEmpty(value)
		m[name] = value
		rv := reflect.ValueOf(value)
		if value == nil || value == "" || value == false || value == 0.0 || (rv.Kind() == reflect.Map || rv.Kind() == reflect.Slice) && rv.Len() == 0 {
			delete(m, name)
		}
	}
	return m
}

func (l *listener) take() []seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

// TestRequestsAreDockers: for the same words both clients ask the engine for the same thing.
func TestRequestsAreDockers(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(archive, []byte("not looked into"), 0o600); err != nil {
		t.Fatal(err)
	}
	stream := `{"status":"Done"}`
	l := &listener{recording: recording{
		"/images/create": stream, "/images/load": stream, "/images/get": "archive", "/networks/create": `{"Id":"1"}`, "/volumes/create": `{"Name":"v"}`,
		"/networks/n/connect": "", "/networks/n/disconnect": "", "/networks/n": "{}", "/volumes/v": "{}", "/images/i/tag": "", "/images/i": "[]",
		"/images/localhost:5000/a/b/push": stream, "/images/localhost:5000/a/b": "[]", "/images/i/json": "{}", "/images/busybox/push": stream,
		"/containers/prune": "{}", "/networks/prune": "{}", "/volumes/prune": "{}", "/images/prune": "{}", "/images/json": "[]", "/networks": "[]",
		"/volumes": "{}", "/build/prune": "{}",
	}}
	host := serveOn(t, l)
	rows := []string{
		"pull busybox", "pull -q --disable-content-trust busybox:1", "pull localhost:5000/a/b:v1", "pull -a localhost:5000/a/b",
		"pull --platform linux/arm64/v8 docker.io/library/busybox",
		"pull busybox@sha256:6784fb0834aa7dbbe12e3d7471e69c290df3e6ba810dc38b34ae33d3c1c05f7d",
		"push localhost:5000/a/b:v1", "push -a localhost:5000/a/b", "push -q busybox", "push --platform linux/arm64 busybox",
		"load -q -i " + archive, "save -o " + archive + ".out i j:1", "save --platform linux/amd64 -o " + archive + ".out i",
		"import -m hello -c ENV=1 -c CMD=x " + archive + " i:new", "import http://example.com/x.tar",
		"tag i localhost:5000/a/b:v2", "tag i j", "rmi i", "rmi -f --no-prune localhost:5000/a/b", "image inspect i",
		"images -a -f dangling=true -f label=a=b busybox*", "image prune -f", "image prune -af --filter until=24h",
		"network create n", "network create --subnet 10.1.0.0/16 --ip-range 10.1.2.0/24 --gateway 10.1.0.9 --aux-address a=10.1.0.5 --internal n",
		"network create -d bridge -o a=b --label c=d --label e --ipv6 --ipv4=false --attachable --scope local --ipam-driver x --ipam-opt o=p n",
		"network create --subnet fd00::/64 --gateway fd00::9 --config-from other n",
		"network connect n c", "network connect --ip 10.1.0.7 --ip6 fd00::7 --alias a --alias b --link x:y --link-local-ip 169.254.1.2 --driver-opt k=v n c",
		"network disconnect -f n c", "network inspect -v n", "network ls -f driver=bridge -f name=x", "network prune -f --filter label!=x",
		"volume create", "volume create -d local -o type=tmpfs -o device=tmpfs --label a=b v", "volume rm -f v", "volume inspect v",
		"volume ls -f dangling=true", "volume prune -f", "volume prune -af", "container prune -f --filter until=1h",
	}
	for _, row := range rows {
		args := strings.Fields(row)
		docker(t, host, args...)
		want := l.take()
		if _, stderr, status := wherry(t, host, args...); status != 0 {
			t.Errorf("%s: exit %d: %s", row, status, stderr)
		}
		got := l.take()
		if !reflect.DeepEqual(got, want) {
			g, _ := json.MarshalIndent(got, "", " ")
			w, _ := json.MarshalIndent(want, "", " ")
			t.Errorf("%s: we ask\n%s\nDocker asks\n%s", row, g, w)
		}
	}
}

func TestSystemPruneAsksInOrder(t *testing.T) {
	l := &listener{recording: recording{
		"/containers/prune": `{"ContainersDeleted":["c1","c2"],"SpaceReclaimed":1000}`, "/networks/prune": `{"NetworksDeleted":["n"]}`,
		"/volumes/prune": `{"VolumesDeleted":["v"],"SpaceReclaimed":500}`,
		"/images/prune":  `{"ImagesDeleted":[{"Untagged":"A:V1"},{"Deleted":"sha256:1"}],"SpaceReclaimed":2000000}`,
		"/build/prune":   `{"CachesDeleted":["k"],"SpaceReclaimed":30}`,
	}}
	host := serveOn(t, l)
	if out, stderr, status := wherry(t, host, "system", "prune", "-a", "-f"); status != 0 || !strings.Contains(out, "Deleted build cache objects:\nk\n") {
		t.Errorf("exit %d, %s\n%s", status, stderr, out)
	}
	if asked := l.take(); len(asked) != 4 || asked[3].Path != "/build/prune" || len(asked[3].Query["all"]) != 1 {
		t.Errorf("asked for %v", asked)
	}
	out, stderr, status := wherry(t, host, "system", "prune", "-a", "--volumes", "-f", "--filter", "label=x")
	want := "Deleted Containers:\nc1\nc2\n\nDeleted Networks:\nn\n\nDeleted Volumes:\nv\n\nDeleted Images:\nuntagged: A:V1\ndeleted: sha256:1\n\n" +
		"Total reclaimed space: 2.002MB\n"
	if status != 0 || out != want {
		t.Errorf("exit %d, %s\n%s", status, stderr, out)
	}
	var paths []string
	for _, s := range l.take() {
		paths = append(paths, s.Path)
		if !strings.Contains(s.Query["filters"][0], `"label":{"x":true}`) {
			t.Errorf("%s was asked with %v", s.Path, s.Query)
		}
	}
	if !slices.Equal(paths, []string{"/containers/prune", "/networks/prune", "/volumes/prune", "/images/prune"}) {
		t.Errorf("asked for %v", paths)
	}
	for answer, want := range map[string]int{"y\n": 0, "yes\n": 0, "n\n": 1, "\n": 1, "": 1} {
		out, stderr, status := wherryWith(t, []byte(answer), "--host", host, "system", "prune")
		if asked := len(l.take()); status != want || (asked > 0) != (want == 0) || !strings.Contains(out, "  - all dangling images\n") {
			t.Errorf("answer %q: exit %d, %d requests, %s%s", answer, status, asked, out, stderr)
		}
	}
	if _, stderr, status := wherry(t, host, "system", "prune", "-f", "--volumes", "--filter", "until=1h"); status != 1 || !strings.Contains(stderr, "until") {
		t.Errorf("until with volumes: exit %d: %s", status, stderr)
	}
}

// TestErrorsAreOneLine: nothing is sent, the exit status is 1, and the line says what to do.
func TestErrorsAreOneLine(t *testing.T) {
	l := &listener{recording: recording{"/images/create": `{"status":"Pulling"}` + "\n" + `{"errorDetail":{"message":"no such image"},"error":"no such image"}`, "/images/json": recordedImages}}
	host := serveOn(t, l)
	rows := []struct{ args, want string }{
		{"pull -a busybox:1", "leave"}, {"push -a busybox:1", "leave"}, {"push x@sha256:12", "tag"}, {"pull", "usage"}, {"pull busybox", "no such image"},
		{"tag a b@sha256:12", "digest"}, {"tag a b:1:2", "leave out :1 or :2"}, {"commit c b:1:2", "two tags"}, {"pull b:1:2", "two tags"}, {"push b:1:2", "two tags"}, {"swarm init", "no swarm mode"}, {"trust ls", "signatures"}, {"plugin ls", "no plugins"}, {"build --progress=loud .", "auto, tty, plain"}, {"build", "PATH"}, {"image build -f - -", "one of them only"}, {"build -o type=local .", "dest=DIRECTORY"}, {"build --push -o dir .", "image"},
		{"load -i /nowhere/x.tar", "/nowhere/x.tar"}, {"import /nowhere/x.tar", "/nowhere/x.tar"}, {"import /tmp", "tar -C /tmp"}, {"load -i /tmp", "directory"}, {"save", "usage"},
		{"network create --subnet x n", "10.9.0.0/24"}, {"network create --gateway 10.0.0.1 n", "--subnet"}, {"network create --ip-range 10.0.0.0/33 n", "bits"},
		{"network create --subnet 10.0.0.0/8 --subnet 10.1.0.0/16 n", "overlaps"}, {"network create --aux-address 10.0.0.1 n", "name=address"},
		{"network create --subnet 10.0.0.0/8 --gateway 10.0.0.1 --gateway 10.0.0.2 n", "already"}, {"network connect --ip fd00::1 n c", "IPv4"},
		{"network connect --ip6 1.2.3.4 n c", "IPv6"}, {"network ls -f driver", "name=value"}, {"network rm gone", "no such thing"},
		{"volume create --name a b", "one"}, {"volume rm gone", "no such thing"}, {"volume inspect gone", "no such thing"},
		{"events --since yesterday", "10m"}, {"images --format {{.Nope}}", "Nope"}, {"images --format {{", "--format"}, {"images --format table{{.Nope}}", "Nope"},
		{"rmi --platform x i", "os/architecture"}, {"login localhost:1", "--password-stdin"}, {"login -p x --password-stdin -u y", "exclude"},
	}
	for _, row := range rows {
		args := strings.Fields(row.args)
		_, stderr, status := wherry(t, host, args...)
		if status != 1 && !(status == 125 && strings.Contains(row.args, "-f driver")) || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: exit %d: %q, want one line with %q", row.args, status, stderr, row.want)
		}
	}
}

func TestInspectPrintsWhatIsThere(t *testing.T) {
	host := recording{"/volumes/a": `{"Name":"a","Labels":{"k":"<v>"}}`, "/volumes/b": `{"Name":"b"}`,
		"/volumes/c": `{"Driver":"local","Labels":{"k":"\u003cv"},"Mountpoint":"/m","Name":"c","Options":null,"Scope":"local"}`}.serve(t)
	out, stderr, status := wherry(t, host, "volume", "inspect", "a", "gone", "b", "-f", `{{.Name}} {{json .Labels}}`)
	if status != 1 || out != "a {\"k\":\"<v>\"}\nb null\n" || !strings.Contains(stderr, "gone") {
		t.Errorf("exit %d: %q %q", status, out, stderr)
	}
	out, _, _ = wherry(t, host, "volume", "inspect", "c")
	if want := docker(t, host, "volume", "inspect", "c"); out != want {
		t.Errorf("%s\nDocker prints\n%s", out, want)
	}
}

func TestSaveLeavesNoHalfFile(t *testing.T) {
	dir := t.TempDir()
	host := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.Copy(w, bytes.NewReader(make([]byte, 50)))
	}))
	path := filepath.Join(dir, "i.tar")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := wherry(t, host, "save", "-o", path, "i"); status != 1 || !strings.Contains(stderr, "i.tar") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	entries, _ := os.ReadDir(dir)
	if data, _ := os.ReadFile(path); string(data) != "before" || len(entries) != 1 {
		t.Errorf("the file holds %q, the folder %v", data, entries)
	}
}

func TestTimestamps(t *testing.T) {
	for _, query := range []string{"--since 1700000000 --until 1700000001.5", "--since 2026-01-02T03:04:05Z --until 2026-01-02T03:04:05.5+02:00", "--since 2026-01-02 --until 2026-01-02T03:04"} {
		l := &listener{recording: recording{"/events": ""}}
		host := serveOn(t, l)
		args := append([]string{"events"}, strings.Fields(query)...)
		docker(t, host, args...)
		want := l.take()[0].Query
		_, stderr, status := wherry(t, host, args...)
		if status != 0 {
			t.Fatalf("%s: %s", query, stderr)
		}
		if got := l.take()[0].Query; !sameMoments(got, want) {
			t.Errorf("%s: %v, Docker asks %v", query, got, want)
		}
	}
}

func sameMoments(a, b url.Values) bool {
	trim := func(s string) string {
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	return trim(a.Get("since")) == trim(b.Get("since")) && trim(a.Get("until")) == trim(b.Get("until"))
}
