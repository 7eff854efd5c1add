package rootfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// topDir is FS_TOPDIR_FL of linux/fs.h, which x/sys does not have.
const topDir = 0x20000

// Spread asks ext4 to put the directories below dir into groups of blocks that are not their parent's, as those of a home are (chattr(1), "T").
// Without a journal ext4 does not give out an inode again for minutes after it was deleted, and looks at each of those for every file that it
// makes in their group: where containers come and go in one group, that becomes most of what a writable layer costs. Other file systems know no
// such thing, and need none.
func Spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
}
