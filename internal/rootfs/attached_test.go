package rootfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttachedLayers: the way of kernels before 6.15 gives the same root file system, and leaves no mount where anybody sees it.
func TestAttachedLayers(t *testing.T) {
	ids := IDMap{Base: 1 << 28, Size: 65536}
	r := writable(t, layers(t, map[string]string{"both": "top", "one": "1"}, map[string]string{"both": "bottom", "dir/two": "2"}), ids)
	userns, err := ids.UserNamespace()
	must(t, err)
	defer userns.Close()
	lower, parts := attachable(t, r, userns)
	before, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	root, err := r.overlayAttached(lower, parts)
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

// attachable clones the layers' mounts.
func attachable(t *testing.T, r *Rootfs, userns *os.File) (lower []*os.File, parts []place) {
	t.Helper()
	for _, path := range r.Lower {
		f, err := Bind(path, BindOptions{UserNS: userns})
		must(t, err)
		t.Cleanup(func() { f.Close() })
		lower, parts = append(lower, f), append(parts, place{f, path})
	}
	return lower, parts
}

// TestAttachedWritableLayers: what steps of builds write to is mapped, too, and those kernels want it attached as well.
func TestAttachedWritableLayers(t *testing.T) {
	ids := IDMap{Base: 1 << 28, Size: 65536}
	r := writable(t, layers(t, map[string]string{"below": "b"}), IDMap{})
	r.IDMap, r.Layer = ids, true
	userns, err := ids.UserNamespace()
	must(t, err)
	defer userns.Close()
	lower, parts := attachable(t, r, userns)
	view := *r
	dir, done, err := view.mapUpper(userns)
	must(t, err)
	defer done()
	root, err := view.overlayAttached(lower, append(parts, place{dir, filepath.Dir(r.Upper)}))
	must(t, err)
	defer root.Close()
	must(t, ids.AsRoot(func() error { return os.WriteFile(at(root, "made"), []byte("m"), 0o600) }))
	must(t, os.Chown(at(root, "made"), int(ids.Base)+5, int(ids.Base)+6))
	var st unix.Stat_t
	must(t, unix.Stat(r.Upper+"/made", &st))
	if st.Uid != 5 || st.Gid != 6 {
		t.Errorf("the file belongs to %d:%d in the layer", st.Uid, st.Gid)
	}
}
