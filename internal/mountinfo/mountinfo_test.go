package mountinfo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

func TestParse(t *testing.T) {
	text := "68 40 254:0 /root/k /a\\040b\\134 rw,relatime master:1 - ext4 /dev/vda rw\n" +
		"69 40 0:9 / /t rw shared:3 master:1 - tmpfs  rw,size=4k,lowerdir=/c\\054d\n" +
		"70 40 0:9 / /form\ffeed\u00a0x ro - tmpfs none ro\n"
	if some, err := Parse(text, "proc", "tmpfs"); err != nil || len(some) != 2 || some[0].ID != 69 {
		t.Errorf("those of some types: %+v, %v", some, err)
	}
	list, err := Parse(text)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if m := list[0]; m.ID != 68 || m.At != `/a b\` || m.Part != "/root/k" || m.Type != "ext4" || m.Source != "/dev/vda" || m.Flags[1] != "relatime" || !slices.Equal(m.Options, []string{"rw"}) {
		t.Errorf("%+v", m)
	}
	if m := list[1]; m.Source != "" || !slices.Equal(m.Peers, []string{"shared:3", "master:1"}) || len(list[2].Peers) > 0 || !slices.Equal(m.Options, []string{"rw", "size=4k", "lowerdir=/c,d"}) {
		t.Errorf("a mount without a source: %+v", m)
	}
	if m := list[2]; m.At != "/form\ffeed\u00a0x" || m.Flags[0] != "ro" {
		t.Errorf("white space that the kernel does not escape: %+v", m)
	}
	for in, want := range map[string]string{`/plain`: "/plain", `\134`: `\`, `/half\0`: `/half\0`, `/no\999`: `/no\999`} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, text := range []string{"1 2\n", "x 40 254:0 / / rw - ext4 /dev/vda rw\n", "68 40 254:0 / / rw - ext4\n"} {
		if list, err := Parse(text); err == nil {
			t.Errorf("%q: %+v", text, list)
		}
	}
}

// TestLongLines: somebody who may mount makes lines of any length, and what stands behind them is read all the same.
func TestLongLines(t *testing.T) {
	list, err := inOwnMounts(t.TempDir(), func(top int) error {
		deep := top
		for range 300 {
			name := strings.Repeat("long", 60)
			if err := unix.Mkdirat(deep, name, 0o700); err != nil {
				return err
			}
			next, err := unix.Openat(deep, name, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(next)
			deep = next
		}
		if err := unix.Mkdirat(top, "near", 0o700); err != nil {
			return err
		}
		near, err := unix.Openat(top, "near", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(near)
		return errors.Join(mountOn(deep), mountOn(near))
	})
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, m := range list {
		longest = max(longest, len(m.At))
	}
	if last := list[len(list)-1]; longest < 64<<10 || filepath.Base(last.At) != "near" {
		t.Errorf("the longest name has %d bytes, the last one is %s", longest, last.At)
	}
}

// TestTable: one that was opened says once that it has changed, and is read as it is then.
func TestTable(t *testing.T) {
	dir := t.TempDir()
	table, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	has := func() bool {
		list, err := table.Read("tmpfs")
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(m Mount) bool { return m.At == dir })
	}
	if table.Changed() || has() {
		t.Error("it has changed before anything was mounted")
	}
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	if !table.Changed() || !has() {
		t.Error("a mount is not seen")
	}
	if table.Changed() {
		t.Error("it is told twice")
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if !table.Changed() || has() {
		t.Error("an unmount is not seen")
	}
}

// inOwnMounts gives make a file system of its own, in a mount namespace of its own, and reads that one's table.
func inOwnMounts(dir string, make func(top int) error) (list []Mount, err error) {
	err = threads.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("top", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		top, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(top)
		if err := make(top); err != nil {
			return err
		}
		text, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err == nil {
			list, err = Parse(string(text))
		}
		return err
	})
	return list, err
}

func mountOn(at int) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	return unix.MoveMount(m, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func TestOwn(t *testing.T) {
	list, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(m Mount) bool { return m.At == "/proc" && m.Type == "proc" })
	if at < 0 {
		t.Fatalf("no /proc in %s", fmt.Sprint(list))
	}
	if _, err := os.Stat(list[at].At); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("68 40 254:0 /root/k /a\\040b rw,relatime master:1 - ext4 /dev/vda rw\n")
	f.Add("1 2\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Parse(text)
		if err == nil && len(list) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts of %q", len(list), text)
		}
	})
}
