package access

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// deepest is how many user namespaces the kernel puts into each other (user_namespaces(7)).
const deepest = 32

// Contained says that who connected to a unix socket is a process of a container. The number of its user alone does not say so: directory services
// give people numbers as high. A container's process is, beside that, in a user namespace that was made for a container (forContainer). People can
// make some of their own, which are theirs. Of who has such a number and is not to be seen any more nobody knows which of both it was: that is an error.
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
	below, owner := belowOurs(ns)
	defer below.Close()
	switch {
	case gone != nil:
		return false, unseen(cred, gone)
	case below == nil:
		return false, nil
	}
	return forContainer(below, owner)
}

// forContainer: a container's user namespace is made by the engine's user, or in the name of the first id of its range (sysprog.UserNamespace),
// who is root inside and has all the others beside him. In one that a person has made for himself he is alone.
func forContainer(ns *os.File, owner uint32) (bool, error) {
	if int64(owner) == int64(os.Geteuid()) {
		return true, nil
	}
	if owner < containerIDs {
		return false, nil
	}
	uids, _, err := sysprog.Mappings(ns)
	return len(uids) == 1 && uids[0].Outside == owner && uids[0].Count > 1, err
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

// belowOurs is the user namespace right below ours that ns is or lies in, and the user who made it; nil where that is ours itself, or not below
// it. It takes ns.
func belowOurs(ns int) (below *os.File, owner uint32) {
	at := os.NewFile(uintptr(ns), "user namespace")
	defer func() { at.Close() }()
	var ours, st unix.Stat_t
	err := unix.Stat("/proc/self/ns/user", &ours)
	for i := 0; err == nil && i <= deepest; i++ {
		if err = unix.Fstat(int(at.Fd()), &st); err != nil || st.Ino == ours.Ino && st.Dev == ours.Dev {
			break
		}
		below.Close() // nil closes nothing
		if owner, err = unix.IoctlGetUint32(int(at.Fd()), unix.NS_GET_OWNER_UID); err != nil {
			break
		}
		var parent int
		if parent, err = unix.IoctlRetInt(int(at.Fd()), unix.NS_GET_PARENT); err != nil {
			break
		}
		below, at = at, os.NewFile(uintptr(parent), "user namespace")
	}
	if err != nil {
		below.Close()
		return nil, 0
	}
	return below, owner
}
