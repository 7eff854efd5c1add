package rootfs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSpread: on ext4 the flag is set, and stays; elsewhere nothing happens.
func TestSpread(t *testing.T) {
	dir := t.TempDir()
	Spread(dir + "/not there")
	for range 2 {
		Spread(dir)
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if has := err == nil && flags&topDir != 0; has != (st.Type == unix.EXT4_SUPER_MAGIC) {
			t.Errorf("flags %#x, %v, on a file system of type %#x", flags, err, st.Type)
		}
	}
}
