package rootfs

import (
	"os"
	"strings"
	"testing"
)

// TestAttachedLayers: the way of kernels before 6.15 gives the same root file system, and leaves no mount where anybody sees it.
func TestAttachedLayers(t *testing.T) {
	ids := IDMap{Base: 1 << 28, Size: 65536}
	r := writable(t, layers(t, map[string]string{"both": "top", "one": "1"}, map[string]string{"both": "bottom", "dir/two": "2"}), ids)
	userns, err := ids.UserNamespace()
	must(t, err)
	defer userns.Close()
	var lower []*os.File
	for _, path := range r.Lower {
		f, err := Bind(path, BindOptions{UserNS: userns})
		must(t, err)
		defer f.Close()
		lower = append(lower, f)
	}
	before, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	root, err := r.overlayAttached(lower)
	must(t, err)
	defer root.Close()
	for name, want := range map[string]string{"both": "top", "one": "1", "dir/two": "2"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	must(t, os.WriteFile(at(root, "new"), []byte("x"), 0o644))
	if _, err := os.Stat(r.Upper + "/new"); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if strings.Contains(string(mounts), r.Lower[0]) {
		t.Error("a layer is attached for all to see")
	}
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, task := range tasks {
		if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/mnt"); err == nil && ns != before {
			t.Errorf("thread %s is still in %s", task.Name(), ns)
		}
	}
}
