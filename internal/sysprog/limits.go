package sysprog

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NoProcess says what it means when a process cannot be made (clone(2), EAGAIN); it leaves other errors as they are.
func NoProcess(err error) error {
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return fmt.Errorf("%w: no more processes can be made: a limit is reached, the container's (--pids-limit), a control group's around it or the kernel's (pid_max)", err)
}
