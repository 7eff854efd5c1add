package rootfs

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// AsRoot calls fn as the root of a range of ids, with the rights of this process, on this thread alone. An overlay works in its directories
// as whoever has mounted it; where these are mapped, the host's root is nobody in them, and the kernel leaves the overlay read-only.
func (m IDMap) AsRoot(fn func() error) error {
	if m.Size == 0 {
		return fn()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var rights [2]unix.CapUserData
	if err := unix.Capget(&head, &rights[0]); err != nil {
		return fmt.Errorf("read the rights of this thread: %w", err)
	}
	before := rights
	uid, err := unix.SetfsuidRetUid(int(m.Base))
	if err != nil {
		return err
	}
	gid, err := unix.SetfsgidRetGid(int(m.Base))
	if err != nil {
		return err
	}
	defer func() {
		_ = unix.Setfsgid(gid)
		_ = unix.Setfsuid(uid)
		_ = unix.Capset(&head, &before[0])
	}()
	// Another user for files is one without root's rights on them (capabilities(7)): they are taken again.
	if err := unix.Capset(&head, &rights[0]); err != nil {
		return fmt.Errorf("keep the rights of this thread: %w", err)
	}
	return fn()
}
