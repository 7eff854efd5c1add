package docker_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wherry.dev/wherry/internal/audit"
)

// trail are the records that were written since seq.
func (e *engine) trail(t *testing.T, query string) (out []audit.Record) {
	t.Helper()
	status, body := e.call(t, "GET", "/wherry/audit?"+query, "")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for d := json.NewDecoder(strings.NewReader(body)); d.More(); {
		var r audit.Record
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// TestTrailIsBounded: who asks with many words neither ends the reading of the log nor pushes out what it had before, and hides nothing that decides behind them.
func TestTrailIsBounded(t *testing.T) {
	e := start(t)
	size := func() (all int64) {
		files, _ := filepath.Glob(filepath.Join(e.dir, "root/audit/*.jsonl"))
		for _, f := range files {
			if st, err := os.Stat(f); err == nil {
				all += st.Size()
			}
		}
		return all
	}
	before := size()
	for _, path := range []string{strings.Repeat("x", 100_000) + "/kill", strings.Repeat("%01", 50_000) + "/kill", "x/kill?signal=" + strings.Repeat("%01", 50_000)} {
		if status, body := e.call(t, "POST", "/containers/"+path, ""); status < 400 {
			t.Errorf("%d %s", status, body)
		}
	}
	if grown := size() - before; grown > 40_000 {
		t.Errorf("three requests grew the log by %d bytes", grown)
	}
	padding := strings.Repeat("/"+strings.Repeat("p", 100), 2)
	e.want(t, 400, "POST", "/containers/create?name=trail-bounded", `{"Image":"busybox:test","HostConfig":{"Binds":["`+padding+`:/a","`+padding+`:/b","/etc:/evil"],"Privileged":true,"Memory":1}}`, nil)
	all := e.trail(t, "")
	last := all[len(all)-1]
	if last.With["privileged"] != "true" || !strings.Contains(last.With["binds"], "/etc:/evil") {
		t.Errorf("%+v", last)
	}
	var report audit.Report
	if e.want(t, 200, "GET", "/wherry/audit/verify", "", &report); !report.OK {
		t.Errorf("%+v", report)
	}
}

// TestTrail: what was asked for, by whom, and what came of it; and no word of what is nobody's business.
func TestTrail(t *testing.T) {
	e := start(t)
	name := "trail-" + fmt.Sprint(os.Getpid())
	var made struct{ ID string }
	e.want(t, 201, "POST", "/v1.41/containers/create?name="+name, `{"Image":"busybox:test","Cmd":["sh","-c","sleep 100; : hunter2"],"Env":["PASSWORD=hunter2"],"Labels":{"token":"hunter2"},
		"HostConfig":{"CapAdd":["SYS_PTRACE"],"PidMode":"host","Binds":["/tmp:/host:ro"],"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8099"}],"81/tcp":[{"HostPort":"8098"}]}}}`, &made)
	e.want(t, 200, "GET", "/containers/"+name+"/json", "", nil)
	e.want(t, 204, "POST", "/containers/"+made.ID[:12]+"/start", "", nil)
	e.want(t, 304, "POST", "/containers/"+name+"/start", "", nil)
	e.call(t, "POST", "/images/create?fromSrc="+url.QueryEscape("http://me:hunter2@127.0.0.1:1/x.tar?token=hunter2"), "")
	e.want(t, 204, "DELETE", "/containers/"+name+"?force=1", "", nil)

	all := e.trail(t, "object="+made.ID)
	var lines []string
	for _, r := range all {
		if r.Who == nil || r.Who.UID == nil || *r.Who.UID != 0 || int(r.Who.PID) != os.Getpid() || !strings.Contains(r.Who.Program, "docker.test") {
			t.Errorf("who: %+v", r.Who)
		}
		if r.Object.ID != made.ID || r.Object.Name != name {
			t.Errorf("object of %s: %+v", r.Path, r.Object)
		}
		lines = append(lines, fmt.Sprint(r.Method, " ", r.Path, " ", r.Status))
	}
	want := []string{"POST /containers/create 201", "POST /containers/" + made.ID[:12] + "/start 204", "POST /containers/" + name + "/start 304", "DELETE /containers/" + name + " 204"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Fatalf("%q", lines)
	}
	for key, value := range map[string]string{"image": "busybox:test", "command": "sh", "cap-add": "SYS_PTRACE", "pid": "host", "binds": "/tmp:/host:ro", "publish": "127.0.0.1:8099->80/tcp :8098->81/tcp"} {
		if got := all[0].With[key]; got != value {
			t.Errorf("%s: %q, want %q", key, got, value)
		}
	}
	if all[3].With["force"] != "1" {
		t.Errorf("%+v %+v", all[2], all[3])
	}
	if got := e.trail(t, "user=0&object="+name); len(got) != len(all) {
		t.Errorf("of root by name: %d", len(got))
	}
	if got := e.trail(t, "user=12345&object="+name); len(got) != 0 {
		t.Errorf("of somebody else: %d", len(got))
	}
	files, _ := filepath.Glob(filepath.Join(e.dir, "root/audit/*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "hunter2") {
			at := strings.Index(string(b), "hunter2")
			t.Errorf("%s has a secret: …%s", f, b[max(0, at-200):min(len(b), at+20)])
		}
		if st, _ := os.Stat(f); st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, st.Mode())
		}
	}
	var report audit.Report
	e.want(t, 200, "GET", "/wherry/audit/verify", "", &report)
	if !report.OK || report.Records < 5 || len(files) < 2 {
		t.Errorf("%+v in %v", report, files)
	}
	e.want(t, 200, "GET", fmt.Sprintf("/wherry/audit/verify?expect=%d:%s", report.Last, report.Hash), "", &report)
	if !report.OK {
		t.Errorf("%+v", report)
	}
	e.want(t, 400, "GET", "/wherry/audit/verify?expect=x", "", nil)
	e.want(t, 400, "GET", "/wherry/audit?user=no-such-user", "", nil)
}

// TestLateFailuresAreInTheTrail: the answer to an exec begins before it is known that there is no such command.
func TestLateFailuresAreInTheTrail(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["no-such-command"]`)
	body := `{"Image":"busybox:test","Cmd":["no-such-command"],"HostConfig":{"AutoRemove":true}}`
	_, br, r := e.upgrade(t, "/wherry/run", body)
	if r.StatusCode != 101 {
		t.Fatal(r.Status)
	}
	if _, err := br.ReadString('}'); err != nil {
		t.Fatal(err)
	}
	e.want(t, 400, "POST", "/containers/"+id+"/start", "", nil)
	found := func() bool {
		all := e.trail(t, "since=1")
		for _, r := range all {
			if r.Event == "end" && strings.Contains(r.Error, "no-such-command") && all[0].Seq <= r.Of {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(20 * time.Second); !found(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", e.trail(t, ""))
		}
	}
}
