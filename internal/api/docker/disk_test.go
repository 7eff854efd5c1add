package docker_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDiskUsageIsWhatDuFinds: with layers that images share, a container that runs and has written, volumes with holes and hard links, and
// a download that stopped half-way, the sums are those of du.
func TestDiskUsageIsWhatDuFinds(t *testing.T) {
	e := start(t)
	root := filepath.Join(e.dir, "root")
	id := e.create(t, `"Cmd":["sh","-c","dd if=/dev/zero of=/big bs=1024 count=300 2>/dev/null; dd if=/dev/zero of=/hole bs=1 count=1 seek=90000000 2>/dev/null; echo written; sleep 1000"],`+
		`"HostConfig":{"Binds":["dfvol:/data"]}`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, body := e.call(t, "GET", "/containers/"+id+"/logs?stdout=1", ""); strings.Contains(body, "written") {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the container does not write")
		}
	}
	e.want(t, 201, "POST", "/commit?container="+id+"&repo=dfchild&tag=1", "", nil)
	defer e.call(t, "DELETE", "/images/dfchild:1", "")
	defer e.call(t, "DELETE", "/volumes/dfvol", "")
	defer e.call(t, "DELETE", "/containers/"+id+"?force=1", "")
	data := filepath.Join(root, "volumes/dfvol/_data")
	for name, size := range map[string]int{"a": 100000, "b/c": 50000} {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(data, "a"), filepath.Join(data, "again")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(root, "content/ingest/half")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(half)
	if err := os.WriteFile(filepath.Join(half, "data"), []byte(strings.Repeat("y", 200000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("sync", "-f", root).Run(); err != nil {
		t.Fatal(err)
	}
	var df struct {
		LayersSize int64
		Images     []struct{ Size, SharedSize int64 }
		Containers []struct{ SizeRw int64 }
		Volumes    []struct{ UsageData struct{ Size int64 } }
		Other      struct {
			TotalSize, UniqueSize, SharedSize, UnusedSize, EntireSize int64
			Items                                                     []struct {
				Name string
				Size int64
			}
		}
	}
	e.want(t, 200, "GET", "/system/df", "", &df)
	out, err := exec.Command("du", "-sx", "--block-size=1", root).Output()
	if err != nil {
		t.Fatal(err)
	}
	du, _ := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	sum := df.LayersSize + df.Other.TotalSize
	for _, c := range df.Containers {
		sum += c.SizeRw
	}
	for _, v := range df.Volumes {
		sum += v.UsageData.Size
	}
	text, _ := json.MarshalIndent(df, "", " ")
	if difference := max(sum-du, du-sum); difference > 16<<10 { // the engine may write its log meanwhile
		t.Errorf("the sizes add up to %d, du finds %d\n%s", sum, du, text)
	}
	if df.Other.EntireSize != sum || df.Other.UniqueSize+df.Other.SharedSize+df.Other.UnusedSize != df.LayersSize {
		t.Errorf("sums of their own do not agree: %s", text)
	}
	var unique int64
	for _, i := range df.Images {
		unique += i.Size - i.SharedSize
	}
	if unique != df.Other.UniqueSize || df.Other.SharedSize < 1<<20 || df.Other.UnusedSize != 0 {
		t.Errorf("unique sizes add up to %d: %s", unique, text)
	}
	if p := df.Other.Items[0]; p.Name != "partial downloads" || p.Size < 200000 {
		t.Errorf("the half download: %s", text)
	}
}
