package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// replaceEngine is an engine of the test's own with nginx as web:1, web:2, and broken:1, whose health check fails.
func replaceEngine(t *testing.T) *engine {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "replace-")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(shared, dir)
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"busybox-1", "nginx-1"} {
		if err := e.load(name); err != nil {
			t.Fatal(err)
		}
	}
	build := filepath.Join(dir, "build")
	if err := os.Mkdir(build, 0o755); err != nil {
		t.Fatal(err)
	}
	for tag, text := range map[string]string{
		"web:1":    "FROM nginx:1\nENV VERSION=1\nHEALTHCHECK --interval=200ms --retries=20 CMD nginx -t\n",
		"web:2":    "FROM nginx:1\nENV VERSION=2\nLABEL made=second\nHEALTHCHECK --interval=300ms --retries=20 CMD nginx -t\n",
		"broken:1": "FROM nginx:1\nHEALTHCHECK --interval=100ms --retries=2 CMD echo no database; exit 3\n",
	} {
		if err := os.WriteFile(filepath.Join(build, "Dockerfile"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		wherryOf(t, e, "build", "-q", "-t", tag, build)
	}
	return e
}

func wherryOf(t *testing.T, e *engine, args ...string) string {
	t.Helper()
	out, err := tryWherry(e, args...)
	if err != nil {
		t.Fatalf("wherry %q: %v: %s", args, err, out)
	}
	return out
}

func tryWherry(e *engine, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(shared.bin, "wherry"), args...)
	cmd.Env = append(os.Environ(), e.environment()...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// load asks for a page all the time, with connections that are kept and new ones.
type load struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex // guards what follows
	asked  int
	failed []error
}

func begin(t *testing.T, address string) *load {
	t.Helper()
	return beginPaced(t, address, 0)
}

// beginPaced leaves a pause between requests: what is served gets some of the machine too.
func beginPaced(t *testing.T, address string, pause time.Duration) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	for _, keep := range []bool{true, false} {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: !keep, DialContext: (&net.Dialer{}).DialContext}}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				err := ask(client, address)
				l.mu.Lock()
				l.asked++
				if err != nil {
					l.failed = append(l.failed, err)
				}
				l.mu.Unlock()
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

func ask(client *http.Client, address string) error {
	res, err := client.Get("http://" + address + "/")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %v", res.Status, err)
	}
	return nil
}

func (l *load) end(t *testing.T, when string) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	if len(l.failed) > 0 || l.asked < 20 {
		t.Errorf("%s: %d of %d requests failed: %v", when, len(l.failed), l.asked, l.failed[:min(3, len(l.failed))])
	}
}

// TestReplaceWithoutAPause replaces nginx while it is asked all the time, from this host and by name from a neighbour.
func TestReplaceWithoutAPause(t *testing.T) {
	e := replaceEngine(t)
	wherryOf(t, e, "network", "create", "--subnet", "10.77.0.0/24", "front")
	first := wherryOf(t, e, "run", "-d", "--name", "web", "--network", "front", "--ip", "10.77.0.50", "--network-alias", "site", "-p", "28600:80", "-p", "127.0.0.1::80",
		"-e", "MINE=yes", "-l", "mine=yes", "-v", "/anonymous", "-v", "named:/named", "--restart", "always", "web:1")
	if err := eventually(20*time.Second, func() error { return ask(http.DefaultClient, "127.0.0.1:28600") }); err != nil {
		t.Fatal(err)
	}
	wherryOf(t, e, "exec", "web", "sh", "-c", "echo kept >/anonymous/file")
	chosen := wherryOf(t, e, "port", "web")
	neighbour := `ask() { exec 3<>/dev/tcp/site/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q '200 OK' <&3; }; while true; do (ask) || echo failed; done`
	wherryOf(t, e, "run", "-d", "--name", "neighbour", "--network", "front", "--no-healthcheck", "--entrypoint", "bash", "web:1", "-c", neighbour)

	here := begin(t, "127.0.0.1:28600")
	second := wherryOf(t, e, "replace", "-q", "web", "web:2")
	here.end(t, "a replacement")
	if second == first || wherryOf(t, e, "ps", "-aq", "--no-trunc", "--filter", "name=web") != second {
		t.Errorf("%s was replaced by %s, and there are: %s", first, second, wherryOf(t, e, "ps", "-a"))
	}
	about := wherryOf(t, e, "inspect", "-f", `{{.Name}} {{.Config.Image}} {{join .Config.Env " "}} {{.Config.Labels.made}} {{.Config.Labels.mine}} {{.HostConfig.RestartPolicy.Name}} {{.State.Health.Status}} {{.NetworkSettings.Networks.front.IPAddress}}`, "web")
	for _, want := range []string{"/web web:2 ", "VERSION=2", "MINE=yes", "second yes always healthy 10.77.0.50"} {
		if !strings.Contains(about, want) {
			t.Errorf("no %q in %s", want, about)
		}
	}
	if strings.Contains(about, "VERSION=1") {
		t.Errorf("a value of the old image: %s", about)
	}
	if got := wherryOf(t, e, "exec", "web", "cat", "/anonymous/file"); got != "kept" {
		t.Errorf("its volume without a name: %q", got)
	}
	if got := wherryOf(t, e, "port", "web"); got != chosen {
		t.Errorf("its ports were %s, and are %s", chosen, got)
	}

	// What does not get healthy changes nothing, and says why.
	here = begin(t, "127.0.0.1:28600")
	out, err := tryWherry(e, "replace", "-q", "web", "broken:1")
	here.end(t, "a replacement that fails")
	if err == nil || !strings.Contains(out, "is unhealthy; web goes on as it was") || !strings.Contains(out, "exit status 3: no database") {
		t.Errorf("a broken image: %v: %s", err, out)
	}
	if out, err := tryWherry(e, "replace", "-q", "--settle", "200ms", "web", "busybox:1"); err == nil || !strings.Contains(out, "has ended with status") {
		t.Errorf("an image that ends: %v: %s", err, out)
	}
	if got := wherryOf(t, e, "ps", "-aq", "--no-trunc", "--filter", "name=web"); got != second {
		t.Errorf("after replacements that failed there are: %s", wherryOf(t, e, "ps", "-a"))
	}

	// Nor has a neighbour noticed anything, that asks by name: the address moved, too.
	if out := wherryOf(t, e, "logs", "neighbour"); out != "" {
		t.Errorf("a neighbour: %s", out)
	}

	// Every life of the engine ends with one of them in service, whenever it is killed.
	for i, moment := range []string{"made ", "started it", "switched to it", "waiting for"} {
		here = begin(t, "127.0.0.1:28600")
		image := fmt.Sprintf("web:%d", 1+i%2)
		killAt(t, e, moment, image)
		if err := e.start(); err != nil {
			t.Fatal(err)
		}
		err := eventually(60*time.Second, func() error {
			if list := wherryOf(t, e, "ps", "-a", "--format", "{{.Names}} {{.State}}", "--filter", "name=web"); list != "web running" {
				return fmt.Errorf("there are: %s", list)
			}
			_, err := tryWherry(e, "update", "-p", "28600:80", "web") // refused until the replacement is over
			return err
		})
		here.end(t, "an engine that was killed at: "+moment)
		if got := wherryOf(t, e, "inspect", "-f", "{{.Config.Image}}", "web"); err != nil || i >= 2 && got != image {
			t.Errorf("killed at %q: it is of %s, %v", moment, got, err)
		}
	}
	wherryOf(t, e, "rm", "-f", "-v", "web", "neighbour")
	wherryOf(t, e, "network", "rm", "front")
	keepsEverything(t, e)
}

// keepsEverything compares what inspect says of a container with much of everything before it is replaced and after it.
func keepsEverything(t *testing.T, e *engine) {
	for _, args := range [][]string{{"network", "create", "--subnet", "10.77.1.0/24", "one"}, {"network", "create", "--subnet", "10.77.2.0/24", "--ipv6", "--subnet", "fd00:77::/64", "two"}} {
		wherryOf(t, e, args...)
	}
	values := t.TempDir()
	for kind, value := range map[string]string{"secret": "whispered", "config": "written"} {
		ok(t, os.WriteFile(filepath.Join(values, kind), []byte(value), 0o600))
		wherryOf(t, e, kind, "create", "a-"+kind, filepath.Join(values, kind))
	}
	wherryOf(t, e, "run", "-d", "--name", "other", "--network", "one", "--no-healthcheck", "--entrypoint", "sleep", "web:1", "1000")
	wherryOf(t, e, strings.Fields("run -d --name much --hostname much.example --domainname example --link other:database "+
		"--network name=one,ip=10.77.1.77,alias=first --network name=two,ip=10.77.2.78,ip6=fd00:77::78,alias=second,alias=third,gw-priority=5 "+
		"--secret a-secret --secret source=a-secret,target=deep/er,uid=5,mode=0400 --config source=a-config,target=/etc/app.conf "+
		"--on-unhealthy restart --health-cmd true --health-interval 250ms --health-retries 7 --health-timeout 9s "+
		"-l mine=yes -l made=mine --annotation note=this -e MINE=yes -v named:/named -v /anonymous -v /etc/hosts:/hh:ro --tmpfs /t:size=1m --mount type=volume,dst=/labelled,volume-label=q=r "+
		"-p 28601:80 -p 127.0.0.1::81/udp --expose 99 --memory 128m --cpus 0.5 --pids-limit 50 --ulimit nofile=100:200 --cap-drop NET_RAW --security-opt no-new-privileges --read-only "+
		"--user 1000:1000 --group-add 44 --workdir /named --init --stop-signal INT --stop-timeout 3 --restart unless-stopped --dns 192.0.2.53 --dns-search example.org --add-host h:192.0.2.4 "+
		"--sysctl net.core.somaxconn=99 --shm-size 2m --log-opt max-size=1m --oom-score-adj 5 --entrypoint sleep web:1 1000")...)
	before := flatOf(t, e, "much")
	wherryOf(t, e, "replace", "-q", "--drain", "100ms", "much", "web:2")
	after := flatOf(t, e, "much")
	changes := []string{".Id", ".Created", ".Image", ".Config.Image", ".Config.Env", ".State.", ".GraphDriver.", ".ImageManifestDescriptor.", ".Wherry.Cgroup", ".Wherry.UserNamespace", ".Wherry.Image.",
		".NetworkSettings.Sandbox", ".HostnamePath", ".HostsPath", ".ResolvConfPath", ".LogPath"} // what is the container's, or the image's
	for _, network := range []string{"one", "two"} { // both are on the network for a while
		for _, field := range []string{"EndpointID", "MacAddress", "DNSNames"} {
			changes = append(changes, ".NetworkSettings.Networks."+network+"."+field)
		}
	}
	both := maps.Clone(before)
	maps.Copy(both, after)
	for path := range both {
		if after[path] == before[path] || slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(path, c) }) {
			continue
		}
		t.Errorf("%s was %s, and is %s", path, before[path], after[path])
	}
	for _, want := range []string{".Config.Image web:2", ".HostConfig.RestartPolicy.Name unless-stopped", ".HostConfig.Annotations.note this", ".Config.Labels.made mine", ".Config.Healthcheck.Retries 7",
		".NetworkSettings.Networks.one.IPAddress 10.77.1.77", ".NetworkSettings.Networks.two.GlobalIPv6Address fd00:77::78", ".Wherry.Secrets.1.Target /run/secrets/deep/er"} {
		if path, value, _ := strings.Cut(want, " "); after[path] != value {
			t.Errorf("%s is %q, want %s", path, after[path], value)
		}
	}
	if got := wherryOf(t, e, "exec", "-u", "root", "much", "sh", "-c", "cat /run/secrets/a-secret /etc/app.conf; stat -c ' %u %a' /run/secrets/deep/er"); got != "whisperedwritten 5 400" {
		t.Errorf("its secrets and configs: %q", got)
	}
	if got := wherryOf(t, e, "exec", "other", "getent", "hosts", "first"); !strings.HasPrefix(got, "10.77.1.77") {
		t.Errorf("its alias: %s", got)
	}
	if got := wherryOf(t, e, "exec", "much", "getent", "hosts", "database"); !strings.Contains(got, "10.77.1.") {
		t.Errorf("its link: %s", got)
	}
	wherryOf(t, e, "rm", "-f", "-v", "much", "other")
	wherryOf(t, e, "secret", "rm", "a-secret")
	wherryOf(t, e, "config", "rm", "a-config")
	wherryOf(t, e, "network", "rm", "one", "two")
}

// flatOf is what inspect says, each value by its path.
func flatOf(t *testing.T, e *engine, name string) map[string]string {
	t.Helper()
	var list []any
	ok(t, json.Unmarshal([]byte(wherryOf(t, e, "inspect", name)), &list))
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				walk(path+"."+k, inner)
			}
		case []any:
			for i, inner := range v {
				walk(fmt.Sprintf("%s.%d", path, i), inner)
			}
		default:
			out[path] = fmt.Sprint(v)
		}
	}
	walk("", list[0])
	return out
}

// killAt begins a replacement and kills the engine when it says how far it is.
func killAt(t *testing.T, e *engine, moment, image string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(shared.bin, "wherry"), "replace", "--drain", "3s", "web", image)
	cmd.Env = append(os.Environ(), e.environment()...)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for b := make([]byte, 1024); !strings.Contains(text.String(), moment); {
		n, err := said.Read(b)
		text.Write(b[:n])
		if err != nil {
			t.Fatalf("no %q in %s", moment, &text)
		}
	}
	if err := e.kill(); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, said)
	_ = cmd.Wait()
}
