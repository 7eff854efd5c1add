package task

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/shim"
)

// doubtAfter is how long a shim may take to answer until it is looked whether there is one.
const doubtAfter = 500 * time.Millisecond

// state asks the shim what it has. errGone, too, where it is dead and its socket is not: a process of an exec that came to stand still, as the
// container was paused, before it had become its program keeps all that the shim had open.
func state(ctx context.Context, t *Task) (shim.Response, error) {
	asking, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go func() { // ends with the answer
		tick := time.NewTicker(doubtAfter)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-asking.Done():
				return
			}
			if orphaned(t) {
				giveUp(fmt.Errorf("its processes have lost it: %w", errGone))
			}
		}
	}()
	resp, _, err := t.call(asking, shim.Request{Method: shim.MethodState})
	return resp, err
}

// orphaned says that the container has processes, and the shim is the parent of none of them: it is that of the first one as long as it lives.
func orphaned(t *Task) bool {
	if t.config.Cgroup == "" {
		return false
	}
	g, err := cgroup.Open(t.config.Cgroup)
	if err != nil {
		return false
	}
	pids, err := g.Procs()
	return err == nil && len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool {
		parent, err := parentOf(pid)
		return err != nil || !slices.Contains(pids, parent) && isShim(parent, t.dir)
	})
}

// parentOf reads a process's parent. Its name may hold anything.
func parentOf(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return strconv.Atoi(fields[1])
}

func isShim(pid int, dir string) bool {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && string(bytes.TrimSpace(name)) == shim.Name(dir)
}

// Abandon kills the shim of a task in dir that does not answer any more (somebody has stopped it): the task is then lost, and Wait returns. The
// caller has seen that the container's processes are dead. pid is the first one: a stopped shim has not reaped it.
func Abandon(dir string, pid int) error {
	parent, err := parentOf(pid)
	if err != nil {
		return fmt.Errorf("find the shim of container %s: %w", filepath.Base(dir), err)
	}
	if parent <= 1 || !isShim(parent, dir) {
		return fmt.Errorf("the parent %d of container %s is not its shim", parent, filepath.Base(dir))
	}
	return unix.Kill(parent, unix.SIGKILL)
}
