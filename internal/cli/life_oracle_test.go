package cli

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestContainerRequestsAreDockers holds what both clients ask about containers, and print then, against each other. Docker asks for a container's
// configuration more often; that changes nothing and is left out.
func TestContainerRequestsAreDockers(t *testing.T) {
	about := `{"Id":"c","Config":{},"State":{"Running":true},"HostConfig":{},"NetworkSettings":{"Ports":{
		"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"9/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"443/tcp":null}}}`
	l := &listener{recording: recording{
		"/containers/c/json": about, "/containers/c/kill": "", "/containers/c/stop": "", "/containers/c/restart": "", "/containers/c/pause": "",
		"/containers/c/unpause": "", "/containers/c/rename": "", "/containers/c": "", "/containers/c/update": "{}", "/containers/c/start": "",
		"/containers/c/top":     `{"Titles":["UID","PID","CMD"],"Processes":[["root","1","sh"],["someone-with-a-long-name","4194304","sleep 1"]]}`,
		"/containers/c/changes": `[{"Kind":0,"Path":"/etc"},{"Kind":1,"Path":"/etc/new"},{"Kind":2,"Path":"/gone"}]`, "/containers/c/logs": "", "/containers/json": "[]",
		"/containers/c/export": "archive", "/commit": `{"Id":"i"}`, "/containers/c/exec": `{"Id":"e"}`, "/exec/e/start": "",
		"/containers/c/wait": `{"StatusCode":0}`, "/images/c/json": "{}", "/networks/c": "{}", "/volumes/c": "{}",
	}}
	host := serveOn(t, l)
	file := filepath.Join(t.TempDir(), "out")
	rows := []string{
		"kill c", "kill -s HUP c", "stop c", "stop -t 3 c", "stop --timeout 0 -s INT c", "restart -t 1 c", "restart c", "pause c", "unpause c", "start c",
		"rename c d", "rm c", "rm -f -v c", "rm -l c", "container rm --force c", "container kill c",
		"update -m 1g --memory-swap -1 --memory-reservation 5m --cpus 1.5 -c 5 --cpu-period 1000 --cpu-quota 2000 --cpuset-cpus 0 --cpuset-mems 0 c",
		"update --cpu-rt-period 1 --cpu-rt-runtime 2 --blkio-weight 20 --restart on-failure:2 c", "update --pids-limit 5 c", "update --pids-limit -1 c",
		"top c", "top c -o pid,comm", "diff c", "logs c", "logs -f -t --details -n 5 c", "logs --since 2026-01-02T03:04:05Z --until 1700000000.5 c",
		"ps", "ps -a", "ps -l", "ps -n 3", "ps -s", "ps -q -f name=x -f status=exited -f label=a=b", "ps --no-trunc --format {{.ID}}", "ps --format {{.Size}}", "ps --format json",
		"export -o " + file + " c", "commit c", "commit -a me -m why -p=false -c CMD=x -c ENV=1 c localhost:5000/a/b:v1", "commit c name",
		"exec -d c true", "exec -d -u 1 -w /x -e A=b --privileged c a b", "wait c", "port c", "port c 80", "port c 9/udp",
		"inspect -s c", "inspect --type image c", "inspect --type network c", "inspect --type volume c", "container inspect c",
	}
	for _, row := range rows {
		args := strings.Fields(row)
		dockers := docker(t, host, args...)
		want := withoutInspect(l.take())
		ours, stderr, status := wherry(t, host, args...)
		if status != 0 {
			t.Errorf("%s: exit %d: %s", row, status, stderr)
		}
		if ours != dockers {
			t.Errorf("%s: we print\n%s\nDocker prints\n%s", row, ours, dockers)
		}
		got := withoutInspect(l.take())
		if !reflect.DeepEqual(got, want) {
			g, _ := json.MarshalIndent(got, "", " ")
			w, _ := json.MarshalIndent(want, "", " ")
			t.Errorf("%s: we ask\n%s\nDocker asks\n%s", row, g, w)
		}
	}
}

func withoutInspect(all []seen) []seen {
	for _, s := range all {
		if body, ok := s.Body.(map[string]any); ok && strings.HasSuffix(s.Path, "/exec") {
			delete(body, "Detach") // engines decide by the start's
		}
	}
	return slices.DeleteFunc(all, func(s seen) bool { return s.Method == "GET" && s.Path == "/containers/c/json" })
}
