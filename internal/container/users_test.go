package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rootWith makes a folder with files.
func rootWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func accountsIn(layers ...string) accounts {
	return accounts{open: func(name string) (*os.File, error) { return openInLayers(layers, name) }}
}

const passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nweb:x:101:102:Web:/srv/web:/bin/sh\nodd:x:103\n7:x:0:0::/root:\n4294967296:x:0:0::/root:\n"
const groups = "root:x:0:\n1:x:0:\n8:x:0:\nbin:x:1:root,web\nstaff:x:50:web\nweb:x:102:\n"

func TestFindUser(t *testing.T) {
	a := accountsIn(rootWith(t, map[string]string{"etc/passwd": passwd, "etc/group": groups}))
	for _, row := range []struct {
		text     string
		extra    []string
		uid, gid uint32
		groups   []uint32
		home     string
	}{
		{"", nil, 0, 0, []uint32{0, 1}, "/root"},
		{"root", nil, 0, 0, []uint32{0, 1}, "/root"},
		{"web", nil, 101, 102, []uint32{1, 50, 102}, "/srv/web"},
		{"101", nil, 101, 102, []uint32{1, 50, 102}, "/srv/web"},
		{"web:staff", nil, 101, 50, []uint32{50}, "/srv/web"},
		{"web:9999", nil, 101, 9999, []uint32{9999}, "/srv/web"},
		{"12345", nil, 12345, 0, []uint32{0}, "/"},
		{"12345:6", []string{"staff", "77"}, 12345, 6, []uint32{6, 50, 77}, "/"},
		{"7", nil, 7, 0, []uint32{0}, "/"}, // an entry of that name gives nobody another number
		{"7:1", []string{"8"}, 7, 1, []uint32{1, 8}, "/"},
		{"0101", nil, 101, 102, []uint32{1, 50, 102}, "/srv/web"},
	} {
		who, err := a.find(row.text, row.extra)
		if err != nil || who.user.UID != row.uid || who.user.GID != row.gid || who.home != row.home || !slices.Equal(who.user.AdditionalGids, row.groups) {
			t.Errorf("%q: %+v %v, want %+v", row.text, who, err, row)
		}
	}
	for text, want := range map[string]string{"nobody": "no matching entries in passwd", "root:nogroup": "no matching entries in group", "odd": "damaged", "-1": "must be in range 0-2147483647", "4294967295": "must be in range", "4294967296": "must be in range", "99999999999999999999": "99999999999999999999", "0:4294967295": "must be in range"} {
		if _, err := a.find(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if who, err := accountsIn(t.TempDir()).find("8:9", nil); err != nil || who.user.UID != 8 || who.user.GID != 9 {
		t.Errorf("numbers need no files: %+v %v", who, err)
	}
}

// TestHostileAccounts: a pipe, a link out of the image and a huge file stop nobody and read nothing of the host's.
func TestHostileAccounts(t *testing.T) {
	dir := rootWith(t, map[string]string{"etc/group": ""})
	if err := unix.Mkfifo(filepath.Join(dir, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := accountsIn(dir).find("root", nil); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := accountsIn(dir).find("0", nil); err != nil {
		t.Errorf("a number with a pipe: %v", err)
	}
	dir = rootWith(t, map[string]string{"etc/group": "", "inner/passwd": "inner:x:5:5::/:\n"})
	if err := os.Symlink("/inner/passwd", filepath.Join(dir, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if who, err := accountsIn(dir).find("inner", nil); err != nil || who.user.UID != 5 {
		t.Errorf("a link inside the image: %+v %v", who, err)
	}
	outside := rootWith(t, map[string]string{"secret": "spy:x:6:6::/:\n"})
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../.."+outside+"/secret", filepath.Join(dir, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if who, err := accountsIn(dir).find("spy", nil); err == nil {
		t.Errorf("a file of the host was read: %+v", who)
	}
	big := rootWith(t, map[string]string{"etc/passwd": passwd})
	if err := os.Truncate(filepath.Join(big, "etc/passwd"), 600<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := accountsIn(big).find("web", nil); err == nil || !strings.Contains(err.Error(), "are the most") {
		t.Errorf("a huge file: %v", err)
	}
}

// TestAccountsAreBounded: class 7 (CVE-2024-9676, CVE-2025-4437): what is kept and looked at of an image's files has a limit, and a device in
// a file's place is not opened: its number here has no driver, so an open would say so.
func TestAccountsAreBounded(t *testing.T) {
	full := strings.Repeat(":", maxAccounts-len(passwd)) + "\n"
	if who, err := accountsIn(rootWith(t, map[string]string{"etc/passwd": passwd + full[1:]})).find("web", nil); err != nil || who.user.UID != 101 {
		t.Errorf("as much as there may be: %+v %v", who, err)
	}
	if _, err := accountsIn(rootWith(t, map[string]string{"etc/passwd": passwd + full})).find("web", nil); err == nil || !strings.Contains(err.Error(), "are the most") {
		t.Errorf("one byte more: %v", err)
	}
	dir := rootWith(t, map[string]string{"etc/group": ""})
	if err := unix.Mknod(filepath.Join(dir, "etc/passwd"), unix.S_IFCHR|0o644, int(unix.Mkdev(4000, 7))); err != nil {
		t.Fatal(err)
	}
	if _, err := accountsIn(dir).find("web", nil); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a device: %v", err)
	}
	if _, err := accountsIn(dir).find("7", nil); err != nil {
		t.Errorf("a number with a device: %v", err)
	}
	var members strings.Builder
	for gid := range maxGroups + 1 {
		fmt.Fprintf(&members, "g:x:%d:u\n", gid+1)
	}
	dir = rootWith(t, map[string]string{"etc/passwd": "u:x:1:1::/:", "etc/group": members.String()})
	if _, err := accountsIn(dir).find("u", nil); err == nil || !strings.Contains(err.Error(), "the most that a process can have") {
		t.Errorf("%d groups: %v", maxGroups+1, err)
	}
}

func TestLayersHideEachOther(t *testing.T) {
	top := rootWith(t, map[string]string{"etc/passwd": "top", "opaque/new": "new"})
	bottom := rootWith(t, map[string]string{"etc/passwd": "bottom", "etc/group": "bottom", "gone": "x", "opaque/old": "old", "was/dir": "x"})
	for _, name := range []string{"gone"} {
		if err := unix.Mknod(filepath.Join(top, name), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(filepath.Join(top, "opaque"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "was"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/passwd": "top", "/etc/group": "bottom", "opaque/new": "new", "was": "a file", "gone": "-", "opaque/old": "-", "was/dir": "-", "nothing/there": "-"} {
		f, err := openInLayers([]string{top, bottom}, name)
		got := "-"
		if err == nil {
			b := make([]byte, 16)
			n, _ := f.Read(b)
			got = string(b[:n])
			f.Close()
		}
		if got != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
}

func FuzzFindUser(f *testing.F) {
	f.Add("root:0", passwd, groups)
	f.Add("web", "web:x:-1:99999999999999:::::", "a:b:c:web,,")
	f.Add(":", ":::\n:::", "\x00")
	f.Fuzz(func(t *testing.T, text, users, list string) {
		a := accountsIn(rootWith(t, map[string]string{"etc/passwd": users, "etc/group": list}))
		who, err := a.find(text, nil)
		if err == nil && (who.user.UID > 1<<31-1 || who.user.GID > 1<<31-1 || len(who.home) == 0 || who.home[0] != '/') {
			t.Errorf("%q: %+v", text, who)
		}
	})
}
