package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// mountedAs is what a mount table (proc_pid_mountinfo(5)) says of a place: the topmost mount's options, and its file system's.
func mountedAs(table, at string) (mount, filesystem []string) {
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) > 5 && f[4] == at && len(g) > 2 {
			mount, filesystem = strings.Split(f[5], ","), strings.Split(g[2], ",")
		}
	}
	return mount, filesystem
}

// tree is a host's folder with a file system below it, mounted with flags.
func tree(t *testing.T, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("outer", dir, "tmpfs", flags, ""))
	must(t, unix.Mount("", dir, "", unix.MS_PRIVATE, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	must(t, os.Mkdir(dir+"/sub", 0o755))
	must(t, unix.Mount("inner", dir+"/sub", "tmpfs", flags, ""))
	return dir
}

const everyFlag = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW | unix.MS_NODIRATIME

// mountRow is one option, on a file system of the container's own and on a tree of the host's.
type mountRow struct {
	option      string
	flags       uintptr // of the host's tree before
	new         string  // what the mount table says of a new tmpfs; "-x": does not say x
	bind, below string  // of the tree's top and of the mount below
}

func mountRows() []mountRow {
	return []mountRow{
		{"ro", 0, "ro", "ro", "rw"}, {"rw", 0, "rw", "rw", "rw"}, {"ro,rw", 0, "rw", "rw", "rw"},
		{"nosuid", 0, "nosuid", "nosuid", "-nosuid"}, {"suid", everyFlag, "-nosuid", "-nosuid", "nosuid"},
		{"nodev", 0, "nodev", "nodev", "-nodev"}, {"dev", everyFlag, "-nodev", "-nodev", "nodev"},
		{"noexec", 0, "noexec", "noexec", "-noexec"}, {"exec", everyFlag, "-noexec", "-noexec", "noexec"},
		{"nosymfollow", 0, "nosymfollow", "nosymfollow", "-nosymfollow"}, {"symfollow", everyFlag, "-nosymfollow", "-nosymfollow", "nosymfollow"},
		{"nodiratime", 0, "nodiratime", "nodiratime", "-nodiratime"}, {"diratime", everyFlag, "-nodiratime", "-nodiratime", "nodiratime"},
		{"noatime", 0, "noatime", "noatime", "relatime"}, {"atime", unix.MS_NOATIME, "relatime", "relatime", "noatime"},
		{"relatime", unix.MS_NOATIME, "relatime", "relatime", "noatime"}, {"norelatime", unix.MS_NOATIME, "relatime", "relatime", "noatime"},
		{"strictatime", 0, "-relatime -noatime", "-relatime", "relatime"}, {"nostrictatime", unix.MS_STRICTATIME, "relatime", "relatime", "-relatime"},
		{"rro", 0, "ro", "ro", "ro"}, {"ro,rrw", 0, "rw", "rw", "rw"},
		{"rnosuid", 0, "nosuid", "nosuid", "nosuid"}, {"rsuid", everyFlag, "-nosuid", "-nosuid", "-nosuid"},
		{"rnodev", 0, "nodev", "nodev", "nodev"}, {"rdev", everyFlag, "-nodev", "-nodev", "-nodev"},
		{"rnoexec", 0, "noexec", "noexec", "noexec"}, {"rexec", everyFlag, "-noexec", "-noexec", "-noexec"},
		{"rnosymfollow", 0, "nosymfollow", "nosymfollow", "nosymfollow"}, {"rsymfollow", everyFlag, "-nosymfollow", "-nosymfollow", "-nosymfollow"},
		{"rnodiratime", 0, "nodiratime", "nodiratime", "nodiratime"}, {"rdiratime", everyFlag, "-nodiratime", "-nodiratime", "-nodiratime"},
		{"rnoatime", 0, "noatime", "noatime", "noatime"}, {"ratime", unix.MS_NOATIME, "relatime", "relatime", "relatime"},
		{"rrelatime", unix.MS_NOATIME, "relatime", "relatime", "relatime"}, {"rnorelatime", unix.MS_NOATIME, "relatime", "relatime", "relatime"},
		{"rstrictatime", 0, "-relatime", "-relatime", "-relatime"}, {"rnostrictatime", unix.MS_STRICTATIME, "relatime", "relatime", "relatime"},
		{"sync", 0, "sync", "-sync", "-sync"}, {"async", 0, "-sync", "-sync", "-sync"}, {"dirsync", 0, "dirsync", "-dirsync", "-dirsync"},
		{"lazytime", 0, "lazytime", "-lazytime", "-lazytime"}, {"nolazytime", 0, "-lazytime", "-lazytime", "-lazytime"},
		{"mand", 0, "mand", "-mand", "-mand"}, {"nomand", 0, "-mand", "-mand", "-mand"},
		{"iversion,silent,acl,defaults", 0, "rw", "rw", "rw"}, {"noiversion,loud,noacl,nofail", 0, "rw", "rw", "rw"},
		{"size=64k,nr_inodes=99", 0, "size=64k nr_inodes=99", "rw", "rw"},
	}
}

// TestMountOptions: every option, by the mount table of one container that has them all.
func TestMountOptions(t *testing.T) {
	b := newBox(t, "cat", "/proc/self/mountinfo")
	rows := mountRows()
	for i, row := range rows {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: fmt.Sprint("/new", i), Type: "tmpfs", Options: []string{row.option}},
			specs.Mount{Destination: fmt.Sprint("/bind", i), Source: tree(t, row.flags), Options: append([]string{"rbind"}, strings.Split(row.option, ",")...)})
	}
	out, _, err := b.run()
	must(t, err)
	for i, row := range rows {
		for at, want := range map[string]string{fmt.Sprint("/new", i): row.new, fmt.Sprint("/bind", i): row.bind, fmt.Sprint("/bind", i, "/sub"): row.below} {
			mount, filesystem := mountedAs(out, at)
			for _, w := range strings.Fields(want) {
				word, not := strings.CutPrefix(w, "-")
				has := slices.Contains(mount, word) || slices.Contains(filesystem, word) && word != "rw" && word != "ro"
				if has == not || len(mount) == 0 {
					t.Errorf("%s: %s is mounted with %v, %v: want %q", row.option, at, mount, filesystem, want)
				}
			}
		}
	}
}

// TestFlagsOfBindSources: one option at all says what the others are, unless a user namespace keeps them.
func TestFlagsOfBindSources(t *testing.T) {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW | unix.MS_NOATIME
	source := func() string {
		dir := tree(t, 0)
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
		return dir
	}
	rows := []struct{ options, own, users string }{ // seen without and with a user namespace
		{"", "ro nosuid nodev noexec nosymfollow noatime", "ro nosuid nodev noexec nosymfollow noatime"},
		{"rprivate", "ro nosuid nodev noexec nosymfollow noatime", "ro nosuid nodev noexec nosymfollow noatime"},
		{"rw", "rw -nosuid -nodev -noexec -nosymfollow noatime", "rw nosuid nodev noexec -nosymfollow noatime"},
		{"nosuid,exec", "rw nosuid -nodev -noexec -nosymfollow noatime", "ro nosuid nodev -noexec -nosymfollow noatime"},
		{"ro,nosymfollow", "ro -nosuid -nodev -noexec nosymfollow noatime", "ro nosuid nodev noexec nosymfollow noatime"},
		{"rro", "ro nosuid nodev noexec nosymfollow noatime", "ro nosuid nodev noexec nosymfollow noatime"},
	}
	for _, users := range []bool{false, true} {
		b := newBox(t, "cat", "/proc/self/mountinfo")
		if !users {
			b.hostUsers()
		}
		for i, row := range rows {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: fmt.Sprint("/bind", i), Source: source(), Options: append([]string{"rbind"}, strings.Split(row.options, ",")...)})
		}
		out, _, err := b.run()
		must(t, err)
		for i, row := range rows {
			mount, _ := mountedAs(out, fmt.Sprint("/bind", i))
			for _, w := range strings.Fields(map[bool]string{false: row.own, true: row.users}[users]) {
				if word, not := strings.CutPrefix(w, "-"); slices.Contains(mount, word) == not || len(mount) == 0 {
					t.Errorf("%q, user namespace %v: mounted with %v, want %q", row.options, users, mount, w)
				}
			}
		}
	}
}

// TestPropagationOptions by the optional fields of the mount table.
func TestPropagationOptions(t *testing.T) {
	b := newBox(t, "cat", "/proc/self/mountinfo").hostUsers()
	rows := map[string][2]string{"private": {"-", "shared"}, "rprivate": {"-", "-"}, "slave": {"master", "shared"}, "rslave": {"master", "master"},
		"shared": {"shared", "shared"}, "rshared": {"shared", "shared"}, "unbindable": {"unbindable", "shared"}, "runbindable": {"unbindable", "unbindable"}}
	for option := range rows {
		dir := tree(t, 0)
		must(t, unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/" + option, Source: dir, Options: []string{"rbind", option}})
	}
	out, _, err := b.run()
	must(t, err)
	for option, want := range rows {
		for i, at := range []string{"/" + option, "/" + option + "/sub"} {
			kind := ""
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) > 7 && f[4] == at {
					kind, _, _ = strings.Cut(f[6], ":")
				}
			}
			if kind != want[i] {
				t.Errorf("%s is %q, want %q", at, kind, want[i])
			}
		}
	}
}

// TestOptionsOfTheChildsMounts reach file systems of the container's namespaces too.
func TestOptionsOfTheChildsMounts(t *testing.T) {
	b := newBox(t, "cat", "/proc/1/mountinfo") // self is a link
	for i := range b.spec.Mounts {
		switch m := &b.spec.Mounts[i]; m.Type {
		case "proc":
			m.Options = append(m.Options, "subset=pid,hidepid=invisible", "rnosymfollow")
		case "devpts":
			m.Options = append(m.Options, "rnosymfollow")
		case "sysfs":
			m.Options = []string{"rro", "nosuid"}
		}
	}
	b.spec.Linux.ReadonlyPaths, b.spec.Linux.MaskedPaths = nil, nil
	out, _, err := b.run()
	must(t, err)
	for at, want := range map[string]string{"/proc": "hidepid=invisible subset=pid nosymfollow nosuid noexec nodev", "/dev/pts": "nosymfollow mode=620 ptmxmode=666", "/sys": "ro nosuid"} {
		mount, filesystem := mountedAs(out, at)
		for _, w := range strings.Fields(want) {
			if !slices.Contains(mount, w) && !slices.Contains(filesystem, w) {
				t.Errorf("%s is mounted with %v, %v: want %q", at, mount, filesystem, want)
			}
		}
	}
}

// TestReadOnlyIsLast: a file system that is read-only takes the mounts and the content that the configuration puts into it.
func TestReadOnlyIsLast(t *testing.T) {
	for _, option := range []string{"ro", "rro"} {
		b := newBox(t, "sh", "-c", "cat /etc/fine/passwd /etc/in && ! touch /etc/fine/x && ! touch /etc/x")
		must(t, os.MkdirAll(filepath.Join(b.image, "etc"), 0o755))
		must(t, os.WriteFile(filepath.Join(b.image, "etc/in"), []byte("image\n"), 0o644))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Options: []string{option, "tmpcopyup"}},
			specs.Mount{Destination: "/etc/fine", Type: "tmpfs", Options: []string{option}},
			specs.Mount{Destination: "/etc/fine/passwd", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}})
		if out, status, err := b.run(); err != nil || status.Code != 0 || !strings.HasSuffix(out, "\nimage\n") && !strings.Contains(out, "image\n") {
			t.Errorf("%s: %v %+v %q", option, err, status, out)
		}
	}
}

// TestRemount changes what stands further up in the configuration.
func TestRemount(t *testing.T) {
	b := newBox(t, "cat", "/proc/self/mountinfo")
	dir := tree(t, 0)
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/new", Type: "tmpfs", Options: []string{"size=64k", "ro", "nosuid"}},
		specs.Mount{Destination: "/bind", Source: dir, Options: []string{"rbind", "nosuid"}},
		specs.Mount{Destination: "/new", Type: "tmpfs", Options: []string{"remount", "size=128k", "rw", "noexec"}},
		specs.Mount{Destination: "/bind", Options: []string{"bind", "remount", "ro", "rnodev"}},
		specs.Mount{Destination: "/proc", Options: []string{"remount", "ro"}},
		specs.Mount{Destination: "/", Options: []string{"remount", "ro", "nodev"}})
	out, _, err := b.run()
	must(t, err)
	for at, want := range map[string]string{"/new": "rw nosuid noexec size=128k", "/bind": "ro nosuid nodev", "/bind/sub": "rw nodev", "/proc": "ro nosuid", "/": "ro nodev"} {
		mount, filesystem := mountedAs(out, at)
		for _, w := range strings.Fields(want) {
			if !slices.Contains(mount, w) && (w == "rw" || w == "ro" || !slices.Contains(filesystem, w)) {
				t.Errorf("%s is mounted with %v, %v: want %q", at, mount, filesystem, want)
			}
		}
	}
	if host, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		if mount, _ := mountedAs(string(host), dir); !slices.Contains(mount, "rw") {
			t.Errorf("the host's own mount has changed: %v", mount)
		}
	}
	for want, m := range map[string]specs.Mount{"nothing is mounted": {Destination: "/etc", Options: []string{"remount", "ro"}},
		"its options stay": {Destination: "/", Type: "tmpfs", Options: []string{"remount", "size=1k"}}} {
		b := newBox(t, "true")
		b.spec.Mounts = append(b.spec.Mounts, m)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// needsMappedTmpfs: the trees of these tests are tmpfs.
func needsMappedTmpfs(t *testing.T) {
	t.Helper()
	if !kernelIs(6, 3) {
		t.Skip("Linux maps the ids of a tmpfs from 6.3 on")
	}
}

// TestIDMap: by the mount's own mappings or the container's, for the mount alone or for its tree, of new file systems too.
func TestIDMap(t *testing.T) {
	needsMappedTmpfs(t)
	container := []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
	shifted := []specs.LinuxIDMapping{{HostID: base + 1000, Size: 1000}}
	dir := tree(t, 0)
	rows := []struct {
		options    string
		maps       []specs.LinuxIDMapping
		top, below string // the owner that the container sees of what is the host's root
	}{
		{"rbind", nil, "65534", "65534"}, {"rbind", container, "0", "0"}, {"rbind,idmap", nil, "0", "65534"}, {"rbind,ridmap", nil, "0", "0"},
		{"rbind,idmap", container, "0", "65534"}, {"rbind,ridmap", shifted, "1000", "1000"}, {"rbind,idmap", shifted, "1000", "65534"}, {"rbind", shifted, "1000", "65534"},
	}
	all := newBox(t, "stat", "-c", "%u %g")
	want := ""
	for i, row := range rows {
		at := fmt.Sprint("/bind", i)
		all.spec.Mounts = append(all.spec.Mounts, specs.Mount{Destination: at, Source: dir, Options: strings.Split(row.options, ","), UIDMappings: row.maps, GIDMappings: row.maps})
		all.spec.Process.Args = append(all.spec.Process.Args, at, at+"/sub")
		want += row.top + " " + row.top + "\n" + row.below + " " + row.below + "\n"
	}
	if out, _, err := all.run(); err != nil || out != want {
		t.Errorf("%q, want %q, %v", out, want, err)
	}
	b := newBox(t, "stat", "-c", "%u", "/new").hostUsers()
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/new", Type: "tmpfs", Options: []string{"idmap"}, UIDMappings: shifted, GIDMappings: shifted})
	if out, _, err := b.run(); err != nil || strings.TrimSpace(out) != "822084584" { // base + 1000
		t.Errorf("a new file system: %q, %v", out, err)
	}
}

// TestIDMapThatCannotBe is refused in words, where an option asks for it or the mappings are not the container's.
func TestIDMapThatCannotBe(t *testing.T) {
	container := []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
	other := []specs.LinuxIDMapping{{HostID: base + 1, Size: 10}}
	for want, row := range map[string]struct {
		host bool
		m    specs.Mount
	}{
		"cannot do that":          {false, specs.Mount{Destination: "/x", Source: "/proc", Options: []string{"bind", "idmap"}}},
		"one mounted below it":    {false, specs.Mount{Destination: "/x", Source: "/proc", Options: []string{"bind"}, UIDMappings: other, GIDMappings: other}},
		"go together":             {false, specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"bind"}, UIDMappings: other}},
		"neither the mount nor":   {true, specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"bind", "idmap"}}},
		"a proc belongs to":       {false, specs.Mount{Destination: "/x", Type: "proc", Options: []string{"idmap"}}},
		"map the ids of /sys: in": {false, specs.Mount{Destination: "/x", Source: "/sys", Options: []string{"rbind", "ridmap"}, UIDMappings: container, GIDMappings: container}},
	} {
		b := newBox(t, "true")
		if row.host {
			b.hostUsers()
		}
		b.spec.Mounts = append(b.spec.Mounts, row.m)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	b := newBox(t, "true")
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/x", Source: "/proc", Options: []string{"bind"}, UIDMappings: container, GIDMappings: container})
	c, err := b.create(nil)
	must(t, err)
	if w := strings.Join(c.Warnings(), "\n"); !strings.Contains(w, "without mapping its ids") {
		t.Errorf("the container's own mappings without the option: warned of %q", w)
	}
}

// TestJoinedUserNamespace without mappings in the configuration: its maps are the kernel's.
func TestJoinedUserNamespace(t *testing.T) {
	needsMappedTmpfs(t)
	maps := []sysprog.Mapping{{Outside: base + 7, Count: 5000}}
	users, err := sysprog.UserNamespace(maps, maps)
	must(t, err)
	defer users.Close()
	b := newBox(t, "sh", "-c", "stat -c %u /dev /new /bind; cat /proc/self/uid_map")
	b.rootfs.IDMap.Base, b.rootfs.IDMap.Size = base+7, 5000
	must(t, os.Chown(b.upper, base+7, base+7))
	l := b.spec.Linux
	l.UIDMappings, l.GIDMappings = nil, nil
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == specs.UserNamespace {
			l.Namespaces[i].Path = fdPath(users)
		}
	}
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/new", Type: "tmpfs"}, specs.Mount{Destination: "/bind", Source: tree(t, 0), Options: []string{"bind", "idmap"}})
	out, _, err := b.run()
	must(t, err)
	if f := strings.Fields(out); !slices.Equal(f, []string{"0", "0", "0", "0", "822083591", "5000"}) {
		t.Errorf("%q", out)
	}
}

// fdPath is a file's name below /proc.
func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
