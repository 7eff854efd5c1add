package ociruntime

import (
	"slices"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// The root file system of a host that runs from its initial RAM disk has no parent, and pivot_root(2) refuses to take it away. The way out
// is switch_root(8)'s: the container's root is moved over it. What was there stays below, out of reach as long as nobody takes the top
// away, which wants CAP_SYS_ADMIN; so the host's procfs and sysfs, which would give the kernel away, do not stay.

// hideKernel removes the host's procfs and sysfs from the container's mount namespace.
func hideKernel(w *writer) error {
	list, err := mountinfo.Own("proc", "sysfs")
	if err != nil {
		return err
	}
	slices.Reverse(list) // those on top first
	for _, m := range list {
		_, own := within(m.At, w.s.attachAt())
		if m.At != "/" && !own {
			removeMount(w, m)
		}
	}
	return nil
}

// moveRoot takes pivot's place. The program stands in the new root.
func moveRoot(w *writer) error {
	if w.s.ns.user == nil { // as late as hooks of the creation, which may look for them, allow
		if err := hideKernel(w); err != nil {
			return err
		}
	}
	w.Call("move the root file system over /", unix.SYS_MOVE_MOUNT, w.root, w.none, here, w.String("/"), unix.MOVE_MOUNT_F_EMPTY_PATH)
	if w.root != any(descriptor(w.s.layout.root)) { // a clone lay over it
		detach(w, "unmount the first tree of mounts", descriptor(w.s.layout.root))
	}
	for _, f := range w.s.layout.aside {
		detach(w, "unmount what parts were taken of", descriptor(f))
	}
	return nil
}

// removeMount unmounts one of the host's in the container's namespace, or covers it where that is not the container's to do: what comes
// from another user namespace stays together.
func removeMount(w *writer, m mountinfo.Mount) {
	at := w.String(m.At)
	unmount := w.Call("unmount the host's "+m.At, unix.SYS_UMOUNT2, at, unix.MNT_DETACH)
	why := w.Store(unmount)
	w.Tolerate(unmount, 0, unix.EINVAL, unix.EPERM, unix.ENOENT)
	w.JumpIfEqual(why, 0, 1)
	cover := w.Call("cover the host's "+m.At, unix.SYS_MOUNT, w.String("tmpfs"), at, w.String("tmpfs"), unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, w.String("size=4k,nr_inodes=1"))
	w.Tolerate(cover, 0, unix.ENOENT)
}

// detach unmounts a mount by its descriptor, through the working directory, which is the new root again afterwards.
func detach(w *writer, name string, mount int) {
	w.Call(name, unix.SYS_FCHDIR, mount)
	w.Call(name, unix.SYS_UMOUNT2, w.String("."), unix.MNT_DETACH)
	w.Call("enter the root file system", unix.SYS_FCHDIR, w.root)
}
