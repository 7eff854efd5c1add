package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
)

// Who is not root makes containers as root of a user namespace of his own:
//
//	oar run (user 1000)            oar --inside 1000 run (root of it)          the container
//	  clones a child, which makes
//	  the user namespace and a mount
//	  namespace, maps ids, executes ──▶ all that root's oar does ──────────▶ in a user namespace of its own below that
//	  passes signals on, waits                                              one, with the same ids
//
// The container's namespace is one further, so that its root has no rights over the runtime that makes it, as with the machine's root.
// Commands that only look at a container, signal or remove it do so from outside: who made a user namespace has all rights in it.

// elsewhere runs this command again where it has the rights that a container's making takes; done says that it has been run, or cannot be.
func (r *store) elsewhere(where func() (sysprog.Inside, error)) (done bool, err error) {
	if r.inside != "" {
		return false, nil
	}
	var in sysprog.Inside
	admin, err := isAdministrator()
	switch {
	case err != nil:
		return true, err
	case admin && (!r.nested || ownsMounts()):
		return false, nil
	case !admin:
		if in, err = where(); err != nil {
			return true, err
		}
	}
	return true, runInside(r, in, !admin)
}

// runInside executes this binary anew and ends as it does.
func runInside(r *store, in sysprog.Inside, users bool) error {
	binary, err := ownBinary()
	if err != nil {
		return err
	}
	args := []string{os.Args[0], "--root", r.root}
	if users {
		args = append(args, "--inside", strconv.Itoa(os.Geteuid()))
	}
	signals := catchSignals()
	pidfd, err := in.Execute(binary, append(args, os.Args[1:]...), os.Environ())
	if err != nil {
		return explainInside(err)
	}
	defer pidfd.Close()
	status, err := await(pidfd, signals)
	if err != nil {
		return err
	}
	return exitCode(status.Code)
}

// await passes signals on until the process has ended, but not those that it has got as well: what is typed at a terminal reaches the whole
// foreground.
func await(pidfd *os.File, signals chan os.Signal) (ociruntime.Status, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		all := time.After(allSignalsAfter)
		for {
			select {
			case <-all:
				signal.Notify(signals)
			case s := <-signals:
				typed := s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGTSTP
				if !typed || !inForeground() {
					passSignal(pidfd, nil, s.(unix.Signal))
				}
			case <-done:
				return
			}
		}
	}()
	return ociruntime.Reap(pidfd)
}

func inForeground() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer f.Close()
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// explainInside says what a refusal of the kernel means.
func explainInside(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("make a user namespace for this container: %w: the kernel, a security module or the container around this one permits none "+
			"to this user (look at kernel.apparmor_restrict_unprivileged_userns and kernel.unprivileged_userns_clone in sysctl -a); root can run the container", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("make a user namespace for this container: %w: there may be no more of them (user.max_user_namespaces in sysctl -a)", err)
	}
	return fmt.Errorf("go into a user namespace: %w", err)
}

// isAdministrator says that this process has CAP_SYS_ADMIN in its user namespace.
func isAdministrator() (bool, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return false, fmt.Errorf("read the own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0, nil
}

// ownsMounts says that this process's mount namespace belongs to its user namespace: only then it may mount (unshare --user alone makes
// none).
func ownsMounts() bool {
	mounts, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	defer mounts.Close()
	fd, err := unix.IoctlRetInt(int(mounts.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	defer owner.Close()
	theirs, err := owner.Stat()
	ours, e := os.Stat("/proc/self/ns/user")
	return err == nil && e == nil && os.SameFile(ours, theirs)
}

// ownBinary is the path of the program that runs: it must be there to be executed in another mount namespace.
func ownBinary() (string, error) {
	const self = "/proc/self/exe"
	name, err := os.Readlink(self)
	if err != nil {
		return "", err
	}
	running, err := os.Stat(self)
	if err != nil {
		return "", err
	}
	if there, err := os.Stat(name); err != nil || !os.SameFile(running, there) {
		return "", fmt.Errorf("the runtime's own binary is not at %s any more: run it again by its new path", name)
	}
	return name, nil
}

// ownerOf is the id of the user whose containers these are.
func ownerOf(r *store) string {
	if r.inside != "" {
		return r.inside
	}
	return strconv.Itoa(os.Geteuid())
}

// limitsOptional says that a container may do without a control group where none can be made.
func limitsOptional(r *store) bool {
	return r.rootless == "true" || r.rootless == "auto" && (r.nested || os.Geteuid() != 0)
}

// userRoot is where the states of this user's containers lie when --root does not say.
func userRoot(nested bool) (string, error) {
	uid := os.Geteuid()
	if uid == 0 && !nested {
		return defaultRoot, nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "oar"), nil
	}
	if dir := "/run/user/" + strconv.Itoa(uid); checkOwn(dir) == nil {
		return filepath.Join(dir, "oar"), nil
	}
	dir := "/tmp/oar-" + strconv.Itoa(uid)
	if err := checkOwn(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return dir, nil
}

// checkOwn refuses a folder that somebody else could have made or could change.
func checkOwn(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s must be a folder of this user's that nobody else may write to: remove it, or name another with --root: %w", dir, fs.ErrPermission)
	}
	return nil
}

// makeRoot makes the folder of the states; others' folders are none to keep what commands trust.
func makeRoot(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("make the folder of the containers' states: %w: XDG_RUNTIME_DIR or --root is to name a folder of this user's", err)
	}
	if err != nil {
		return err
	}
	return checkOwn(dir)
}
