package archive

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOnDisk: sizes about pages and buffers come whole, where direct reads work and where they do not.
func TestOnDisk(t *testing.T) {
	for where, dir := range map[string]string{"disk": t.TempDir(), "memory": "/dev/shm"} {
		for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, 3<<20 + 4096} {
			f, err := os.CreateTemp(dir, "wherry-ondisk-")
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
			if _, err := f.Write(want); err != nil {
				t.Fatal(err)
			}
			r, err := FromDisk(f)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d bytes: %d, %v", where, size, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}
}

// TestOnDiskSeesTheDisk: a file that was read a moment ago changes below the file system.
func TestOnDiskSeesTheDisk(t *testing.T) {
	dir := t.TempDir()
	disk, at := filepath.Join(dir, "disk"), filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"truncate", "-s", "8M", disk}, {"mkfs.ext4", "-q", disk}, {"mount", "-o", "loop", disk, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	name := filepath.Join(at, "file")
	before, after := bytes.Repeat([]byte("good"), 10000), bytes.Repeat([]byte("lost"), 10000)
	if err := os.WriteFile(name, before, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if out, err := exec.Command("sync", "-f", name).CombinedOutput(); err != nil {
		t.Fatalf("sync: %v: %s", err, out)
	}
	whole, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	where := bytes.Index(whole, before)
	if where < 0 {
		t.Fatal("the file is not on its disk in one piece")
	}
	d, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteAt(after, int64(where)); err != nil {
		t.Fatal(err)
	}
	if cached, err := os.ReadFile(name); err != nil || !bytes.Equal(cached, before) {
		t.Fatalf("the page cache does not have what the file was: %v", err)
	}
	r, err := FromDisk(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, after) {
		t.Errorf("it is not read from the disk: %v", err)
	}
}
