package docker_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/container"
)

// putArchive sends a zstd-compressed tar with one file.
func (e *engine) putArchive(t *testing.T, id string, query url.Values, name string) (int, string) {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640, Uid: 5, Gid: 6, Size: 4}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "text")
	if w.Close() != nil || z.Close() != nil {
		t.Fatal("cannot make an archive")
	}
	req, err := http.NewRequest(http.MethodPut, "http://e/containers/"+id+"/archive?"+query.Encode(), &b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

func TestArchiveAnswers(t *testing.T) {
	e := start(t)
	readOnly := e.create(t, `"Cmd":["true"],"User":"7:8","HostConfig":{"ReadonlyRootfs":true,"Binds":["archives-ro:/ro:ro","archives-rw:/rw"]}`)
	plain := e.create(t, `"Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}`)
	e.want(t, 204, "POST", "/containers/"+plain+"/start", "", nil)
	for _, row := range []struct {
		id, query, file string
		status          int
		text            string
	}{
		{readOnly, "path=/tmp", "f", 403, "rootfs is marked read-only"},
		{readOnly, "path=/ro", "f", 403, "volume is marked read-only"},
		{readOnly, "path=/rw&copyUIDGID=1", "f", 200, ""},
		{plain, "path=/tmp", "dir/f", 200, ""},
		{plain, "path=/nowhere", "f", 404, "Could not find the file /nowhere in container"},
		{plain, "path=/etc/passwd", "f", 400, "not a directory"},
		{plain, "path=/tmp&noOverwriteDirNonDir=true", "dir", 400, "cannot overwrite directory"},
		{plain, "", "f", 400, "Path"},
		{"nosuch", "path=/", "f", 404, "No such container"},
	} {
		query, _ := url.ParseQuery(row.query)
		if status, body := e.putArchive(t, row.id, query, row.file); status != row.status || !strings.Contains(body, row.text) {
			t.Errorf("%s %s: %d %s", row.query, row.file, status, body)
		}
	}
	for path, want := range map[string][2]int{"/rw/f": {7, 8}, "/tmp/dir/f": {5, 6}} {
		id := plain
		if strings.HasPrefix(path, "/rw") {
			id = readOnly
		}
		r, err := e.http.Get("http://e/containers/" + id + "/archive?path=" + path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := tar.NewReader(r.Body).Next()
		r.Body.Close()
		if err != nil || h.Name != "f" || h.Uid != want[0] || h.Gid != want[1] || h.Mode != 0o640 {
			t.Errorf("%s: %+v, %v", path, h, err)
		}
		var st container.PathStat
		text, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Docker-Container-Path-Stat"))
		if err != nil || json.Unmarshal(text, &st) != nil || st.Name != "f" || st.Size != 4 || st.Mode.Perm() != 0o640 {
			t.Errorf("%s: %s, %v", path, text, err)
		}
	}
	var changes []container.FilesystemChange
	e.want(t, 200, "GET", "/containers/"+readOnly+"/changes", "", &changes)
	if len(changes) != 0 {
		t.Errorf("changes of what was never written to: %v", changes)
	}
}

func TestCommitAnswers(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sh","-c","echo made >/made; sleep 1000"],"HostConfig":{"NetworkMode":"none"}`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var made struct{ ID string }
	e.want(t, 201, "POST", "/commit?repo=committed&tag=1&comment=why&changes="+url.QueryEscape("ENV A=1 B=2")+"&container="+id, `{"User":"3"}`, &made)
	t.Cleanup(func() { e.call(t, "DELETE", "/images/committed:1?force=1", "") })
	var inspect struct {
		ID      string
		Comment string
		Config  struct {
			User string
			Env  []string
		}
	}
	e.want(t, 200, "GET", "/images/committed:1/json", "", &inspect)
	if inspect.ID != made.ID || inspect.Comment != "why" || inspect.Config.User != "3" || strings.Join(inspect.Config.Env, " ") != "PATH=/bin A=1 B=2" {
		t.Errorf("%+v, made %s", inspect, made.ID)
	}
	var state struct{ State struct{ Status string } }
	e.want(t, 200, "GET", "/containers/"+id+"/json", "", &state)
	if state.State.Status != "running" {
		t.Errorf("the container is %s after its commit", state.State.Status)
	}
	for query, status := range map[string]int{"container=nosuch": 404, "": 400, "changes=RUN+x&container=" + id: 400, "repo=UPPER&container=" + id: 400} {
		if got, body := e.call(t, "POST", "/commit?"+query, ""); got != status {
			t.Errorf("%s: %d %s", query, got, body)
		}
	}
}

func TestTopAndStatsAnswers(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}`)
	e.want(t, 409, "GET", "/containers/"+id+"/top", "", nil)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var top container.TopResponse
	for range 2000 { // execve has happened, but the kernel may still be copying the arguments
		e.want(t, 200, "GET", "/containers/"+id+"/top", "", &top)
		if len(top.Processes) == 1 && top.Processes[0][7] == "sleep 1000" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(top.Processes) != 1 || top.Processes[0][0] != "root" || top.Processes[0][7] != "sleep 1000" {
		t.Errorf("%q", top)
	}
	if status, body := e.call(t, "GET", "/containers/"+id+"/top?ps_args=-o+comm", ""); status != 400 || !strings.Contains(body, "PID") {
		t.Errorf("%d %s", status, body)
	}
	var stats container.StatsResponse
	e.want(t, 200, "GET", "/containers/"+id+"/stats?stream=false&one-shot=true", "", &stats)
	if stats.ID != id || stats.PidsStats.Current != 1 || stats.CPUStats.SystemUsage == 0 {
		t.Errorf("%+v", stats)
	}
}
