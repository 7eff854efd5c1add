package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// layers makes directories with files, topmost first.
func layers(t *testing.T, contents ...map[string]string) []string {
	t.Helper()
	var out []string
	for _, files := range contents {
		dir := t.TempDir()
		for name, text := range files {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		out = append(out, dir)
	}
	return out
}

// at is a path inside a detached mount.
func at(root *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(root.Fd())) + "/" + name
}

func read(t *testing.T, root *os.File, name string) string {
	t.Helper()
	b, err := os.ReadFile(at(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	must(t, err)
	return string(b)
}

func writable(t *testing.T, lower []string, ids IDMap) *Rootfs {
	t.Helper()
	dir := t.TempDir()
	r := &Rootfs{Lower: lower, Upper: dir + "/upper", Work: dir + "/work", IDMap: ids}
	for _, d := range []string{r.Upper, r.Work} {
		must(t, os.Mkdir(d, 0o755))
		must(t, os.Chown(d, int(ids.Base), int(ids.Base)))
	}
	return r
}

func mount(t *testing.T, r *Rootfs) *os.File {
	t.Helper()
	f, err := r.Mount(nil)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLayersLieAboveEachOther(t *testing.T) {
	lower := layers(t, map[string]string{"both": "upper layer", "etc/b": "b"}, map[string]string{"both": "lower layer", "etc/a": "a"})
	before, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	r := writable(t, lower, IDMap{})
	root := mount(t, r)
	for name, want := range map[string]string{"both": "upper layer", "etc/a": "a", "etc/b": "b", "none": "-"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	must(t, os.WriteFile(at(root, "both"), []byte("written"), 0o644))
	must(t, os.Remove(at(root, "etc/a")))
	for _, dir := range lower {
		if b, _ := os.ReadFile(dir + "/both"); strings.Contains(string(b), "written") {
			t.Error("a layer was written to")
		}
	}
	if b, err := os.ReadFile(r.Upper + "/both"); err != nil || string(b) != "written" {
		t.Errorf("the writable directory: %q, %v", b, err)
	}
	if read(t, root, "etc/a") != "-" {
		t.Error("a removed file is still there")
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if string(before) != string(after) {
		t.Error("the mount is attached somewhere")
	}
}

func TestReadOnlyViews(t *testing.T) {
	lower := layers(t, map[string]string{"a": "1"}, map[string]string{"b": "2"}, map[string]string{"c": "3"})
	over := writable(t, lower, IDMap{})
	over.ReadOnly = true
	for name, r := range map[string]*Rootfs{"one layer": {Lower: lower[:1]}, "three layers": {Lower: lower}, "one, mapped": {Lower: lower[:1], IDMap: IDMap{1 << 28, 65536}}, "asked for": over} {
		root := mount(t, r)
		if got := read(t, root, "a"); got != "1" {
			t.Errorf("%s: a is %q", name, got)
		}
		if err := os.WriteFile(at(root, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: write: %v", name, err)
		}
	}
}

func TestIDsAreMapped(t *testing.T) {
	ids := IDMap{Base: 0x28000000, Size: 65536}
	lower := layers(t, map[string]string{"root": "r", "user": "u"})
	must(t, os.Chown(lower[0]+"/user", 1000, 1001))
	root := mount(t, writable(t, lower, ids))
	for name, want := range map[string][2]uint32{"root": {ids.Base, ids.Base}, "user": {ids.Base + 1000, ids.Base + 1001}} {
		var st unix.Stat_t
		must(t, unix.Stat(at(root, name), &st))
		if st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s belongs to %d:%d on the host, not to %v", name, st.Uid, st.Gid, want)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(lower[0]+"/root", &st))
	if st.Uid != 0 {
		t.Errorf("the layer itself was changed: %d", st.Uid)
	}
}

func TestMapsBothWays(t *testing.T) {
	m := IDMap{Base: 1 << 20, Size: 65536}
	for _, id := range []int{0, 1, 1000, 65535} {
		if back := m.Inside(m.Host(id)); back != id {
			t.Errorf("%d becomes %d", id, back)
		}
	}
	for id, want := range map[int]int{70000: 1<<20 + 65535, 1 << 30: 1<<20 + 65535} {
		if got := m.Host(id); got != want {
			t.Errorf("%d is %d on the host, outside of the range's end %d", id, got, want)
		}
	}
	for _, host := range []int{0, 1<<20 - 1, 1<<20 + 65536} {
		if got := m.Inside(host); got != 65534 {
			t.Errorf("%d of the host is %d inside", host, got)
		}
	}
	if (IDMap{}).Host(7) != 7 || (IDMap{}).Inside(7) != 7 {
		t.Error("without a map ids change")
	}
}

func TestBindTakesOneMountOrTheTree(t *testing.T) {
	dir := layers(t, map[string]string{"outer": "o", "sub/x": "hidden"})[0]
	must(t, unix.Mount("tmpfs", dir+"/sub", "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/sub", unix.MNT_DETACH)) })
	must(t, os.WriteFile(dir+"/sub/inner", []byte("i"), 0o644))
	for recursive, want := range map[bool]string{true: "i", false: "-"} {
		f, err := Bind(dir, BindOptions{Recursive: recursive, Set: unix.MOUNT_ATTR_RDONLY})
		must(t, err)
		if got := read(t, f, "sub/inner"); got != want {
			t.Errorf("recursive %v: %q", recursive, got)
		}
		if err := os.WriteFile(at(f, "outer"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
		if recursive {
			if err := os.WriteFile(at(f, "sub/inner"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("write below: %v", err)
			}
		}
		f.Close()
	}
	if _, err := Bind(dir+"/none", BindOptions{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir+"/none") {
		t.Errorf("nothing there: %v", err)
	}
	users, err := IDMap{Base: 1 << 28, Size: 10}.UserNamespace()
	must(t, err)
	defer users.Close()
	if _, err := Bind("/proc", BindOptions{UserNS: users}); !errors.Is(err, ErrNotMapped) {
		t.Errorf("procfs with mapped ids: %v", err)
	}
}

func TestErrorsNameTheDirectory(t *testing.T) {
	lower := layers(t, map[string]string{"a": "1"}, map[string]string{"b": "1"})
	for name, r := range map[string]*Rootfs{"layer": {Lower: []string{"/no/such/layer"}}, "upper": {Lower: lower, Upper: "/no/such/upper", Work: "/no/such/work"}} {
		_, err := r.Mount(nil)
		if err == nil || !strings.Contains(err.Error(), "/no/such/"+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManyLayers: images have up to 127.
func TestManyLayers(t *testing.T) {
	var contents []map[string]string
	for i := range 127 {
		contents = append(contents, map[string]string{"file-" + strconv.Itoa(i): "x", "top": strconv.Itoa(i)})
	}
	root := mount(t, writable(t, layers(t, contents...), IDMap{Base: 1 << 28, Size: 65536}))
	if got := read(t, root, "top"); got != "0" {
		t.Errorf("the topmost layer is %q", got)
	}
	if got := read(t, root, "file-126"); got != "x" {
		t.Errorf("the last layer's file is %q", got)
	}
}

func TestVolatile(t *testing.T) {
	r := writable(t, layers(t, map[string]string{"a": "1"}), IDMap{})
	r.Volatile = true
	root := mount(t, r)
	must(t, os.WriteFile(at(root, "b"), nil, 0o644))
	if _, err := os.Stat(r.Work + "/work/incompat/volatile"); err != nil {
		t.Errorf("the overlay is not volatile: %v", err)
	}
}

func TestLayersOfSteps(t *testing.T) {
	ids := IDMap{Base: 0x29000000, Size: 65536}
	lower := layers(t, map[string]string{"below": "b"})
	r := writable(t, lower, IDMap{})
	r.IDMap, r.Layer = ids, true
	root := mount(t, r)
	must(t, ids.AsRoot(func() error { return os.WriteFile(at(root, "made"), []byte("m"), 0o600) }))
	must(t, ids.AsRoot(func() error { return os.WriteFile(at(root, "below"), []byte("changed"), 0o600) }))
	must(t, os.Chown(at(root, "made"), int(ids.Base)+5, int(ids.Base)+6))
	for name, want := range map[string]uint32{"made": 5, "below": 0} {
		var st unix.Stat_t
		must(t, unix.Stat(r.Upper+"/"+name, &st))
		if st.Uid != want {
			t.Errorf("%s belongs to %d in the layer, not to %d", name, st.Uid, want)
		}
	}
	if _, err := os.Lstat(r.Upper + "/made"); err != nil {
		t.Error(err)
	}
	// The thread is the host's root again.
	must(t, os.WriteFile(t.TempDir()+"/mine", nil, 0o600))
	if read(t, root, "below") != "changed" {
		t.Error("the change is not seen")
	}
}

func TestBaseLiesBelowAllLayers(t *testing.T) {
	base := layers(t, map[string]string{"etc/mtab": "base", "etc/own": "base"})[0]
	r := writable(t, layers(t, map[string]string{"etc/own": "image"}), IDMap{})
	for i := range 2 {
		r.Base = base
		root := mount(t, r)
		if mtab, own := read(t, root, "etc/mtab"), read(t, root, "etc/own"); mtab != "base" || own != "image" {
			t.Errorf("view %d: %s, %s", i, mtab, own)
		}
		r.Upper, r.Work = "", "" // a view of the layers has it too
	}
	for len(r.Lower) < mostLayers { // as many as the kernel takes
		dir := filepath.Join(base, "layers", strconv.Itoa(len(r.Lower)))
		must(t, os.MkdirAll(dir, 0o755))
		r.Lower = append(r.Lower, dir)
	}
	root := mount(t, r)
	if got := read(t, root, "etc/own"); got != "image" {
		t.Errorf("of %d layers: %s", len(r.Lower), got)
	}
}
