package docker_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRepairBelowARunningContainer: its layer has lost files and has got others; they are named, with the container's image, and it reads them
// again without having been stopped.
func TestRepairBelowARunningContainer(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"]`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	defer e.call(t, "DELETE", "/containers/"+id+"?force=1", "")
	passwd, err := filepath.Glob(filepath.Join(e.dir, "root/snapshots/snapshots/*/fs/etc/passwd"))
	if err != nil || len(passwd) == 0 {
		t.Fatal(passwd, err)
	}
	layer := filepath.Dir(filepath.Dir(passwd[0]))
	for _, err := range []error{os.Truncate(passwd[0], 4), os.Remove(filepath.Join(layer, "bin/cat")), os.WriteFile(filepath.Join(layer, "tmp/new"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	type line struct {
		Damage *struct {
			Kind         string
			Paths, Users []string
			Mended       bool
		}
		Report *struct{ Damaged, Mended, Layers int64 }
		Error  string
	}
	check := func(query string) (damage []line, end line) {
		t.Helper()
		status, body := e.call(t, "POST", "/wherry/store/check"+query, "")
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		for d := json.NewDecoder(strings.NewReader(body)); d.More(); {
			var l line
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if l.Damage != nil {
				damage = append(damage, l)
			}
			end = l
		}
		return damage, end
	}
	damage, end := check("")
	if len(damage) != 1 || damage[0].Damage.Users[0] != "busybox:test" || end.Report == nil || end.Report.Damaged != 1 {
		t.Fatalf("%+v %+v", damage, end)
	}
	said := strings.Join(damage[0].Damage.Paths, "\n")
	for _, want := range []string{"etc/passwd: of 4 bytes", "bin/cat: missing", "tmp/new: added"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	if damage, end = check("?repair=1"); len(damage) != 1 || !damage[0].Damage.Mended || end.Report.Mended != 1 {
		t.Errorf("%+v %+v", damage, end)
	}
	if damage, end = check(""); len(damage) != 0 || end.Report.Layers == 0 {
		t.Errorf("after the repair: %+v %+v", damage, end)
	}
	var made struct{ Id string }
	e.want(t, 201, "POST", "/containers/"+id+"/exec", `{"Cmd":["cat","/etc/passwd"],"AttachStdout":true}`, &made)
	status, body := e.call(t, "POST", "/exec/"+made.Id+"/start", `{}`)
	if status != 200 || !strings.Contains(body, "root:x:0:0") {
		t.Errorf("the container reads %d %q", status, body)
	}
}
