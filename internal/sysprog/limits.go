package sysprog

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NoProcess says what it means when a process, or its namespaces, cannot be made (clone(2), EAGAIN, ENOSPC); it leaves other errors as they are.
func NoProcess(err error) error {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: no more processes can be made: a limit is reached, the container's (--pids-limit), a control group's around it or the kernel's (pid_max)", err)
	case errors.Is(err, unix.ENOSPC):
		return NoNamespace(err)
	}
	return err
}

// NoNamespace says what ENOSPC means of a namespace that cannot be made, or of a mount that cannot be cloned, which takes one, too. The error is none of
// a full disk any more.
func NoNamespace(err error) error {
	return fmt.Errorf("%v: this is not about a disk: the kernel's limit of namespaces (user.max_mnt_namespaces, user.max_user_namespaces and the like) or of mounts "+
		"(fs.mount-max) is reached: raise it with sysctl, or remove containers", err)
}
