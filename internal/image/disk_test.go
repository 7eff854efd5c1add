package image

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/snapshot"
)

// TestCheckReadsTheDisk: what the disk has lost is found, also while the page cache still knows it.
func TestCheckReadsTheDisk(t *testing.T) {
	for _, row := range []struct {
		layers snapshot.Format
		file   string // below the store's root
		kind   string
	}{
		{snapshot.EROFS, "content/blobs/sha256/*", "blob"},
		{snapshot.EROFS, "snapshots/snapshots/*/layer.erofs", "layer"},
		{snapshot.Overlay, "snapshots/snapshots/*/fs/noise", "layer"},
	} {
		t.Run(string(row.layers)+" "+row.kind, func(t *testing.T) {
			disk, err := os.CreateTemp("", "wherry-disk-")
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			at := disk.Name() + "-at"
			for _, args := range [][]string{{"truncate", "-s", "32M", disk.Name()}, {"mkdir", at}, {"mkfs.ext4", "-q", disk.Name()}, {"mount", "-o", "loop", disk.Name(), at}} {
				run(t, args...)
			}
			t.Cleanup(func() { run(t, "umount", at); run(t, "rm", "-rf", disk.Name(), at) })
			t.Setenv("TMPDIR", at)
			s := openAs(t, row.layers)
			noise := make([]byte, 100_000)
			_, _ = rand.Read(noise)
			imported(t, s, "a:1", file1("noise", hex.EncodeToString(noise))) // its blob has other bytes
			if r, list := checked(t, s, CheckOptions{}); len(list) != 0 || r.Layers != 1 {
				t.Fatalf("%+v %+v", r, list)
			}
			run(t, "sync", "-f", at)
			found, _ := filepath.Glob(filepath.Join(s.root, row.file))
			harmed := false
			for _, name := range found {
				b, err := os.ReadFile(name) // the cache has it
				if err != nil {
					t.Fatal(err)
				}
				if len(b) < len(noise)/2 {
					continue
				}
				whole, err := os.ReadFile(disk.Name())
				if err != nil {
					t.Fatal(err)
				}
				part := b[40_000:41_000]
				where := bytes.Index(whole, part)
				if where < 0 {
					t.Fatalf("%s is not on the disk", name)
				}
				if _, err := disk.WriteAt(bytes.Repeat([]byte("lost"), len(part)/4), int64(where)); err != nil {
					t.Fatal(err)
				}
				harmed = true
			}
			if !harmed {
				t.Fatalf("nothing to harm in %v", found)
			}
			_, list := checked(t, s, CheckOptions{})
			if len(list) == 0 || list[0].Kind != row.kind {
				t.Errorf("%+v", list)
			}
		})
	}
}

// TestCheckOnAFullDisk: what cannot be looked at for want of room is not called damaged.
func TestCheckOnAFullDisk(t *testing.T) {
	for _, form := range []snapshot.Format{snapshot.EROFS, snapshot.Overlay} {
		t.Run(string(form), func(t *testing.T) {
			at, err := os.MkdirTemp("", "wherry-full-")
			if err != nil {
				t.Fatal(err)
			}
			disk := at + ".img"
			for _, args := range [][]string{{"truncate", "-s", "32M", disk}, {"mkfs.ext4", "-q", disk}, {"mount", "-o", "loop", disk, at}} {
				run(t, args...)
			}
			t.Cleanup(func() { run(t, "umount", at); run(t, "rm", "-r", disk, at) })
			t.Setenv("TMPDIR", at)
			s := openAs(t, form)
			imported(t, s, "a:1", file1("noise", strings.Repeat("some text\n", 600_000)))
			rest := filepath.Join(at, "rest")
			var fs unix.Statfs_t
			if err := unix.Statfs(at, &fs); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(rest, make([]byte, int64(fs.Bavail)*fs.Bsize-2<<20), 0o600); err != nil { // less is left than the layer has
				t.Fatal(err)
			}
			report, err := Check(t.Context(), s, CheckOptions{Damage: func(d Damage) { t.Errorf("%+v", d) }})
			if !room.Lacks(err) || !strings.Contains(err.Error(), "--quick") || report.Damaged != 0 {
				t.Errorf("%+v %v", report, err)
			}
			if err := os.Remove(rest); err != nil {
				t.Fatal(err)
			}
			if r, list := checked(t, s, CheckOptions{}); len(list) != 0 || r.Layers != 1 {
				t.Errorf("%+v %+v", r, list)
			}
		})
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// TestReadOnlyDisk: a store whose file system has become read-only says so, and blames neither what is sent nor what it has.
func TestReadOnlyDisk(t *testing.T) {
	at, err := os.MkdirTemp("", "wherry-disk-")
	if err != nil {
		t.Fatal(err)
	}
	disk := at + ".img"
	for _, args := range [][]string{{"truncate", "-s", "32M", disk}, {"mkfs.ext4", "-q", disk}, {"mount", "-o", "loop,errors=remount-ro", disk, at}} {
		run(t, args...)
	}
	t.Cleanup(func() { run(t, "umount", at); run(t, "rm", "-r", disk, at) })
	t.Setenv("TMPDIR", at)
	s := openAs(t, snapshot.Overlay)
	t.Cleanup(func() { run(t, "umount", "-l", at); run(t, "mount", "-t", "tmpfs", "none", at) }) // first of all: what is there cannot be removed
	imported(t, s, "a:1", file1("noise", strings.Repeat("some text\n", 600)))
	run(t, "sync", "-f", at)
	run(t, "mount", "-o", "remount,abort", at) // as after an error of the disk
	if _, err := loaded(t, s, legacy(t, "team/app:1"), TransferOptions{}); !isReadOnly(err) || errdefs.IsInvalidArgument(err) {
		t.Errorf("load: %v", err)
	}
	for _, quick := range []bool{true, false} {
		report, err := Check(t.Context(), s, CheckOptions{Quick: quick, Damage: func(d Damage) { t.Errorf("%+v", d) }})
		if report.Damaged != 0 || !isReadOnly(err) {
			t.Errorf("check, quick %t: %+v %v", quick, report, err)
		}
	}
}
