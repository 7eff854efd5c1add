package ociruntime

import (
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// isBare says that the container's mount namespace begins as a copy of a bare one: its root file system is attached there, over an empty one, and needs
// no pivot. Hooks of the creation, what parts are taken of, and clocks, which are set by way of /proc, need the host's mounts.
func isBare(s *start) bool {
	return s.o.Mounts != nil && s.o.Rootfs != nil && !s.o.NoPivot && s.ns.create&unix.CLONE_NEWNS != 0 && !s.hasCreateHooks() && len(s.layout.aside) == 0 &&
		len(s.spec.Linux.TimeOffsets) == 0
}

// coverKernel covers the kernel's file systems below the root. Those of the container have been made: a user namespace that it makes itself sees all of
// the parts that are masked in those otherwise, and may mount what it sees.
func coverKernel(w *writer) {
	for _, at := range sysprog.BareKernel() {
		flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
		cover := w.Store(w.Call("clone a cover", unix.SYS_OPEN_TREE, here, w.String(sysprog.BareCover), flags))
		w.Call("cover "+at+" below the root", unix.SYS_MOVE_MOUNT, cover, w.none, here, w.String(at), unix.MOVE_MOUNT_F_EMPTY_PATH)
		w.Call("close a cover", unix.SYS_CLOSE, cover)
	}
}
