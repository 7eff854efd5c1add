package sysprog

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// BareCover is a place in a namespace of BareMounts that nothing is mounted on: clones of it cover what is not to be seen.
const BareCover = "/cover"

// BareKernel are the places of its file systems of the kernel's.
func BareKernel() []string { return []string{"/proc", "/sys"} }

// BareMounts makes a mount namespace that shows nothing of the host, and returns it, held by the file alone. Namespaces of containers are copied
// from it: a copy of the host's takes as long as the host has mounts, and pivot_root(2), which leaves them, looks at every thread of the machine.
//
// Its root is an empty file system, read-only for everybody. A user namespace may mount a procfs and a sysfs only where it sees one (fs/namespace.c,
// mount_too_revealing), so there is one of each: of namespaces of processes and of network that are gone.
//
// It belongs to a user namespace of its own. In a copy that another one has nothing of it can be unmounted then (mount_namespaces(7)), not by the host's
// root either: below it lies the kernel's initial root file system. That is the host's own root where the host runs from it.
func BareMounts() (*os.File, error) {
	host, initial, err := initialRoot()
	if err != nil {
		return nil, err
	}
	free, err := freeMounts(host, initial)
	if err != nil {
		return nil, err
	}
	locked, err := lockedMounts(free)
	if err != nil && initial {
		free.Close()
		return nil, fmt.Errorf("the host runs from its initial RAM disk, which lies below all containers: %w", err)
	}
	if err != nil {
		return free, nil //nolint:nilerr // a host without user namespaces: who may unmount all of it there is the host's root
	}
	free.Close()
	return locked, nil
}

// lockedMounts copies a mount namespace into a user namespace.
func lockedMounts(free *os.File) (*os.File, error) {
	p, err := New(1024)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	p.Call("enter the mounts", unix.SYS_SETNS, int(free.Fd()), unix.CLONE_NEWNS)
	p.Fork("copy the mounts", unix.CLONE_NEWUSER|unix.CLONE_NEWNS, -1)
	return namespaceOf(p, "lock a bare mount namespace", "mnt")
}

// initialRoot says whether the host's root is the initial file system, which pivot_root(2) does not take away, and what is mounted on it.
func initialRoot() (above []string, is bool, err error) {
	initial, err := mountinfo.Own("rootfs") // who has another root sees none
	if err != nil || len(initial) == 0 {
		return nil, false, err
	}
	mounts, err := mountinfo.Own()
	if err != nil {
		return nil, false, err
	}
	for _, m := range mounts {
		switch {
		case m.At != "/":
			above = append(above, m.At)
		case m.Type != "rootfs":
			return nil, false, nil // something covers it
		}
	}
	return above, true, nil
}

// freeMounts makes a namespace of this process's user namespace. Where the host's root is the initial one all that is mounted on it goes, and
// the new root covers it: who enters the namespace is at what is mounted last on its first root.
func freeMounts(host []string, initial bool) (*os.File, error) {
	p, err := New(4096 + OpSize*len(host) + len(strings.Join(host, "padded  ")))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	none, dot, slash := p.String(""), p.String("."), p.String("/")
	here := unix.AT_FDCWD & 0xffffffff
	const plain = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	mount := func(fstype string, options ...string) Word {
		fs := p.Store(p.Call("open "+fstype, unix.SYS_FSOPEN, p.String(fstype), unix.FSOPEN_CLOEXEC))
		for i := 0; i < len(options); i += 2 {
			p.Call("set an option of "+fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, p.String(options[i]), p.String(options[i+1]), 0)
		}
		p.Call("make a "+fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, nil, nil, 0)
		return p.Store(p.Call("mount a "+fstype, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, plain))
	}
	p.Call("cut mounts off from the host's", unix.SYS_MOUNT, none, slash, none, unix.MS_PRIVATE|unix.MS_REC, nil)
	root := mount("tmpfs", "mode", "755", "size", "4k", "nr_inodes", "8")
	for _, at := range append(BareKernel(), BareCover) {
		p.Call("make a place", unix.SYS_MKDIRAT, root, p.String(at[1:]), 0o755)
	}
	for i := len(host) - 1; initial && i >= 0; i-- {
		p.Call("unmount the host's "+host[i], unix.SYS_UMOUNT2, p.String(host[i]), unix.MNT_DETACH)
	}
	p.Call("attach the root", unix.SYS_MOVE_MOUNT, root, none, here, slash, unix.MOVE_MOUNT_F_EMPTY_PATH)
	p.Call("enter the root", unix.SYS_FCHDIR, root)
	if initial {
		p.Call("change to the root", unix.SYS_CHROOT, dot)
	} else {
		p.Call("pivot to the root", unix.SYS_PIVOT_ROOT, dot, dot)
		p.Call("unmount the host's root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	}
	p.Call("go to the root", unix.SYS_CHDIR, slash)
	for i, fstype := range []string{"proc", "sysfs"} {
		p.Call("attach the "+fstype, unix.SYS_MOVE_MOUNT, mount(fstype), none, here, p.String(BareKernel()[i]), unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	p.Call("make the root read-only", unix.SYS_MOUNT, none, slash, none, unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, nil)
	made := p.Store(p.Call("say that all is made", unix.SYS_GETPID))
	self, err := awaitOpening(p)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	pr, err := p.Start(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET, false)
	if err != nil {
		return nil, fmt.Errorf("make a bare mount namespace: %w", err)
	}
	defer pr.Discard()
	if _, err := pr.Await(made); err != nil {
		return nil, fmt.Errorf("make a bare mount namespace: %w", err)
	}
	return os.Open("/proc/" + strconv.Itoa(pr.Pid) + "/ns/mnt")
}
