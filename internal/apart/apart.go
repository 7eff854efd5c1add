// Package apart runs a package's tests in namespaces of their own: what they mount and plumb ends with them, and nobody else meets it.
package apart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

const inside = "WHERRY_TESTS_APART"

// Tests is all of a TestMain: it executes the test program again in new namespaces (CLONE_NEWNS, CLONE_NEWNET), calls run there, which is
// testing.M's, and ends with its exit status. A new network namespace's loopback interface is up. Without root run is called where it is: what
// needs more says so.
func Tests(namespaces uintptr, run func() int) {
	if os.Geteuid() != 0 {
		os.Exit(run())
	}
	if os.Getenv(inside) != "" {
		if namespaces&unix.CLONE_NEWNET != 0 {
			if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
				end(fmt.Errorf("set the loopback interface up: %w: %s", err, out))
			}
		}
		os.Exit(run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: namespaces, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		end(fmt.Errorf("run the tests in namespaces of their own: %w", err))
	}
	os.Exit(0)
}

func end(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
