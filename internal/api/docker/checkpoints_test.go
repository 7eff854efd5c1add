package docker_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheckpointsSayWhatIsMissing: criu where it is not on the machine, or what of it does not fit the kernel; the container goes on. That they
// work is tested on a kernel that Debian's criu knows, in test/vm.
func TestCheckpointsSayWhatIsMissing(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","100"],"HostConfig":{"RestartPolicy":{"Name":"unless-stopped"}}`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	path := "/containers/" + id + "/checkpoints"
	if _, err := exec.LookPath("criu"); err == nil && newerThan613(t) {
		status, body := e.call(t, "POST", path, `{"CheckpointID":"one","Exit":true}`)
		if status != 501 || !strings.Contains(body, "does not understand the vDSO of Linux 6.") || !strings.Contains(body, "install criu 4.1 or later") {
			t.Errorf("%d %s", status, body)
		}
		if status, body := e.call(t, "GET", path, ""); status != 200 || strings.TrimSpace(body) != "[]" {
			t.Errorf("after it: %d %s", status, body)
		}
		if left, _ := filepath.Glob(filepath.Join(e.dir, "root", "containers", "*", "checkpoints", "*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	t.Run("without criu", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if status, body := e.call(t, "POST", path, `{"CheckpointID":"one"}`); status != 501 || !strings.Contains(body, "install the package criu") {
			t.Errorf("%d %s", status, body)
		}
	})
	if status, body := e.call(t, "GET", "/containers/"+id+"/json", ""); status != 200 || !strings.Contains(body, `"Status":"running"`) {
		t.Errorf("the container: %d %s", status, body)
	}
}

func newerThan613(t *testing.T) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	major, minor := 0, 0
	for i, part := range strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)[:2] {
		for _, r := range part {
			if r < '0' || r > '9' {
				break
			}
			*[]*int{&major, &minor}[i] = 10**[]*int{&major, &minor}[i] + int(r-'0')
		}
	}
	return major > 6 || major == 6 && minor >= 13
}

// TestCheckpointNames: a name is one folder's, whatever it says.
func TestCheckpointNames(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","100"],"Tty":true`)
	for _, name := range []string{"../up", "..", ".new-one", "a/b", "a%00b", ""} {
		body := `{"CheckpointID":"` + name + `"}`
		if status, body := e.call(t, "POST", "/containers/"+id+"/checkpoints", body); status != 400 || !strings.Contains(body, "invalid checkpoint name") {
			t.Errorf("create %q: %d %s", name, status, body)
		}
	}
	for _, request := range [][3]string{
		{"POST", "/start?checkpoint=../outside", "invalid checkpoint ID"}, {"POST", "/start?checkpoint=one&checkpoint-dir=relative", "absolute path"},
		{"DELETE", "/checkpoints/.new-one", "invalid checkpoint name"}, {"GET", "/checkpoints?dir=relative", "absolute path"},
	} {
		if status, body := e.call(t, request[0], "/containers/"+id+request[1], ""); status != 400 || !strings.Contains(body, request[2]) {
			t.Errorf("%s: %d %s", request[1], status, body)
		}
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	if status, body := e.call(t, "POST", "/containers/"+id+"/checkpoints", `{"CheckpointID":"one"}`); status != 501 || !strings.Contains(body, "it has a terminal") {
		t.Errorf("a terminal: %d %s", status, body)
	}
}
