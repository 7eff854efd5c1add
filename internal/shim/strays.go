package shim

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// strayAfter is how long a child has to be dead and unasked for to be nobody's: every child that the shim has made is waited for at once.
const strayAfter = 3 * time.Second

// ReapStrays reaps children that the shim has not made, until the context ends: a process of a container may make its own children its parent's
// (clone(2), CLONE_PARENT), and the parent of an exec, or of the first process without a pid namespace of its own, is the shim. Dead, they count
// against the container's limit of processes. died tells of the death of any child.
func ReapStrays(ctx context.Context, died <-chan os.Signal) {
	var seen map[int]bool
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
			if again == nil {
				again = time.After(strayAfter)
			}
			continue
		case <-again:
			again = nil
		}
		dead := deadChildren()
		for pid := range dead {
			if seen[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				delete(dead, pid)
			}
		}
		if seen = dead; len(seen) > 0 {
			again = time.After(strayAfter)
		}
	}
}

// deadChildren of this process, by number.
func deadChildren() map[int]bool {
	dead := map[int]bool{}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo == 0 {
		return dead // as nearly always
	}
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, text := range strings.Fields(string(b)) {
			stat, _ := os.ReadFile("/proc/" + text + "/stat")
			end := strings.LastIndexByte(string(stat), ')') // the name may hold anything
			if pid, err := strconv.Atoi(text); err == nil && end >= 0 && strings.HasPrefix(string(stat[end:]), ") Z") {
				dead[pid] = true
			}
		}
	}
	return dead
}
