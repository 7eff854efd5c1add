package access

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// deepest is how many user namespaces the kernel puts into each other (user_namespaces(7)).
const deepest = 32

// Contained says that who connected to a unix socket is a process of a container. The number of its user alone does not say so: directory services
// give people numbers as high. A container's process is, beside that, in a user namespace that the engine's user made. People can make some of their
// own, which are theirs. Of who has such a number and is not to be seen any more nobody knows which of both it was: that is an error.
func Contained(socket uintptr, cred *unix.Ucred) (bool, error) {
	if cred.Uid < containerIDs || cred.Uid == ^uint32(0) {
		return false, nil
	}
	process, err := peerProcess(int(socket), int(cred.Pid))
	if err != nil {
		return false, unseen(cred, err)
	}
	defer unix.Close(process)
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", cred.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, unseen(cred, err)
	}
	// It is still there, or at least not waited for: the number was its own all the time.
	gone := unix.PidfdSendSignal(process, 0, nil, 0)
	owner, below := maker(ns)
	if gone != nil {
		return false, unseen(cred, gone)
	}
	return below && int64(owner) == int64(os.Geteuid()), nil
}

func unseen(cred *unix.Ucred, err error) error {
	return fmt.Errorf("process %d of user %d has connected, and is not there to be asked whether it is a container's: let the process that connects wait for the answer: %w",
		cred.Pid, cred.Uid, err)
}

// peerProcess is the process that connected, as a pidfd. Kernels before 6.5 only tell the number that it had then.
func peerProcess(socket, pid int) (int, error) {
	fd, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == unix.ENOPROTOOPT {
		return unix.PidfdOpen(pid, 0)
	}
	return fd, err
}

// maker is the user who made the user namespace right below ours that ns is or lies in; false where that is ours itself, or not below it. It
// closes ns.
func maker(ns int) (owner uint32, below bool) {
	var ours, st unix.Stat_t
	err := unix.Stat("/proc/self/ns/user", &ours)
	for i := 0; err == nil && i <= deepest; i++ {
		if err = unix.Fstat(ns, &st); err != nil || st.Ino == ours.Ino && st.Dev == ours.Dev {
			break
		}
		if owner, err = unix.IoctlGetUint32(ns, unix.NS_GET_OWNER_UID); err != nil {
			break
		}
		var parent int
		if parent, err = unix.IoctlRetInt(ns, unix.NS_GET_PARENT); err != nil {
			break
		}
		_ = unix.Close(ns)
		ns, below = parent, true
	}
	_ = unix.Close(ns)
	return owner, below && err == nil
}
