package sysprog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShownProcessEndsWithItsMaker: what is there to have its namespace opened is not left when who would open it is killed.
func TestShownProcessEndsWithItsMaker(t *testing.T) {
	const maker = "MAKES_ONE"
	if os.Getenv(maker) != "" {
		p := program(t)
		self, err := awaitOpening(p)
		must(t, err)
		defer self.Close()
		pr, err := p.Start(unix.CLONE_NEWUSER, false)
		must(t, err)
		fmt.Println(pr.Pid)
		time.Sleep(time.Minute)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), maker+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	pidfd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	defer unix.Close(pidfd)
	ended := func(within int) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, within)
		return n == 1 && err == nil
	}
	if ended(100) {
		t.Error("it has ended while its maker lives")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if !ended(20000) {
		t.Error("it is left")
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
}

// TestLimitsOfNamespacesAreTold: "no space left on device" sends people to their disks.
func TestLimitsOfNamespacesAreTold(t *testing.T) {
	for _, name := range []string{"clone into the new namespaces", "make the cgroup namespace"} {
		err := &Error{Name: name, Errno: unix.ENOSPC}
		if text := err.Error(); !strings.Contains(text, "user.max_") || !strings.HasPrefix(text, name) {
			t.Error(text)
		}
	}
	if err := NoProcess(fmt.Errorf("clone: %w", unix.ENOSPC)); errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "sysctl") {
		t.Error(err)
	}
	if err := (&Error{Name: "mount /x", Errno: unix.ENOSPC}).Error(); strings.Contains(err, "user.max_") {
		t.Error(err)
	}
}
