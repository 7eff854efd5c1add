package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Kill kills every process of the group and of those below it, forks that race with it included.
func (g *Group) Kill() error {
	dir, ok := g.dirs[unified]
	switch {
	case !Exists(g):
		return nil
	case !ok:
		return killOneByOne(g)
	}
	err := writeFile(filepath.Join(dir, "cgroup.kill"), "1")
	if err == nil {
		return nil
	}
	if _, e := os.Stat(dir); errors.Is(e, fs.ErrNotExist) {
		return nil // a group that is gone has nothing to kill
	}
	if errors.Is(err, fs.ErrNotExist) { // before kernel 5.14
		return killOneByOne(g)
	}
	return err
}

const (
	killRounds = 100
	// stillEnough is how long the processes may take to stand still before they are killed as they run.
	stillEnough = 200 * time.Millisecond
)

// killOneByOne is for hosts that cannot kill a group as one. What stands still forks no more: nothing is born between the list and the kills. They
// die when they are let go.
func killOneByOne(g *Group) error {
	for range killRounds {
		freeze(g, true)
		n, err := Signal(g, unix.SIGKILL)
		freeze(g, false)
		if err != nil || n == 0 {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("control group %s still has processes after %d rounds of SIGKILL", g.path, killRounds)
}

// freeze has the group stand still, or go on, as far as that works.
func freeze(g *Group, frozen bool) {
	f, ok := freezerOf(g, frozen)
	if !ok || writeFile(f.file, f.value) != nil {
		return
	}
	for end := time.Now().Add(stillEnough); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if done, err := f.done(); done || err != nil {
			return
		}
	}
}

// signalsAtOnce bounds how many processes are held by descriptor at a time.
const signalsAtOnce = 256

// Signal sends a signal to every process of the group and of those below it, and says how many there were. No other process gets it, be its
// number a dead member's: a process that is held by its descriptor keeps its number, and is listed afterwards only if it is a member.
func Signal(g *Group, signal unix.Signal) (n int, err error) {
	if !Exists(g) {
		return 0, nil
	}
	err = filepath.WalkDir(g.anyDir(), func(dir string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.IsDir() {
			return err
		}
		pids, err := procs(dir)
		if err != nil {
			return err
		}
		n += len(pids)
		for some := range slices.Chunk(pids, signalsAtOnce) {
			if err := signalMembers(dir, some, signal); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func signalMembers(dir string, pids []int, signal unix.Signal) error {
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			held[pid] = fd
		} else if !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("hold process %d: %w", pid, err)
		}
	}
	members, err := procs(dir)
	if err != nil {
		return err
	}
	for _, pid := range members {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}
