package sysprog

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mapping is one line of a uid_map or gid_map (user_namespaces(7)).
type Mapping struct{ Inside, Outside, Count uint32 }

func mapText(maps []Mapping) string {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Count)
	}
	return b.String()
}

// UserNamespace makes a user namespace with these maps and returns it, held by the file alone.
//
// The kernel counts what is made inside (inotify instances, namespaces, pending signals, bytes of message queues: ucounts) for the namespace's
// own user and, all the way up, for those who made it. The maker is who root inside is outside, so that no namespace takes from another, nor
// from this process's user.
func UserNamespace(uids, gids []Mapping) (*os.File, error) {
	p, err := New(512)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	flags, forks := uint64(unix.CLONE_NEWUSER), false
	if i := slices.IndexFunc(uids, func(m Mapping) bool { return m.Inside == 0 }); i >= 0 && int64(uids[i].Outside) != int64(os.Geteuid()) {
		flags, forks = 0, true
		cloneAs(p, uids[i].Outside)
	}
	self, err := awaitOpening(p)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	pr, err := p.Start(flags, forks)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer pr.Discard()
	proc := "/proc/" + strconv.Itoa(pr.Pid)
	if err := os.WriteFile(proc+"/uid_map", []byte(mapText(uids)), 0); err != nil {
		return nil, fmt.Errorf("map users into a user namespace: %w", err)
	}
	if err := os.WriteFile(proc+"/gid_map", []byte(mapText(gids)), 0); err != nil {
		return nil, fmt.Errorf("map groups into a user namespace: %w", err)
	}
	return os.Open(proc + "/ns/user")
}

// cloneAs appends that a user makes the user namespace, with all the capabilities of this process: some hosts permit it to nobody without.
func cloneAs(p *Program, uid uint32) {
	header := p.words([]uint64{unix.LINUX_CAPABILITY_VERSION_3})
	sets := p.Bytes(make([]byte, 24)) // struct __user_cap_data_struct, two of them
	p.Call("read its capabilities", unix.SYS_CAPGET, header, sets)
	p.Call("become the user who is root inside", unix.SYS_SETRESUID, -1, int(uid), -1)
	p.Call("keep its capabilities", unix.SYS_CAPSET, header, sets)
	p.Fork("clone into a user namespace", unix.CLONE_NEWUSER, -1)
}

// NetworkNamespace makes a network namespace that belongs to a user namespace and returns it, held by the file alone.
func NetworkNamespace(user *os.File) (*os.File, error) {
	p, err := New(256)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	p.Call("join the user namespace", unix.SYS_SETNS, int(user.Fd()), unix.CLONE_NEWUSER)
	p.Fork("clone into a network namespace", unix.CLONE_NEWNET, -1)
	return namespaceOf(p, "make a network namespace", "net")
}

// namespaceOf runs a program whose last step is a fork, and opens a namespace of the process that it has made, which ends then.
func namespaceOf(p *Program, doing, kind string) (*os.File, error) {
	self, err := awaitOpening(p)
	if err != nil {
		return nil, err
	}
	defer self.Close()
	pr, err := p.Start(0, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	defer pr.Discard()
	return os.Open("/proc/" + strconv.Itoa(pr.Pid) + "/ns/" + kind)
}

// awaitOpening appends a wait. The process is killed when what it shows has been opened; should this process be killed before, nobody is
// left to do so, and its end ends the wait. The file is closed when the program has started.
func awaitOpening(p *Program) (*os.File, error) {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of this process: %w", err)
	}
	poll := uint64(uint32(self)) | unix.POLLIN<<32 // struct pollfd
	p.Call("wait until it has been opened", unix.SYS_PPOLL, p.words([]uint64{poll}), 1, nil, nil, 8)
	p.Fail("wait until it has been opened", int(unix.ECHILD))
	return os.NewFile(uintptr(self), "pidfd"), nil
}
