package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shortagePause is how long a watch looks away after a shortage: a group that lives at its limit has many.
	shortagePause = 20 * time.Millisecond
	// killPatience is how long after a shortage the kernel may take to kill: version 1 tells before it does.
	killPatience = time.Second
)

// OOMWatch waits until the kernel kills processes of a group for want of memory. It belongs to one goroutine; Close ends its wait.
type OOMWatch struct {
	g      *Group
	signal *os.File // readable, or in error, when memory was short
	seen   uint64
}

// WatchOOM begins to watch a group: by an eventfd with version 1 (cgroup-v1/memory.rst, "OOM Control"), by poll(2) of memory.events with
// version 2. Kills from before count.
func WatchOOM(g *Group) (*OOMWatch, error) {
	var fd int
	var err error
	if g.pure() {
		fd, err = unix.Open(filepath.Join(g.dirs[unified], "memory.events"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	} else {
		fd, err = shortages(g)
	}
	if err != nil {
		return nil, fmt.Errorf("watch the memory of control group %s: %w", g.path, err)
	}
	return &OOMWatch{g: g, signal: os.NewFile(uintptr(fd), "shortage of memory")}, nil
}

// shortages registers an eventfd; the registration ends with it.
func shortages(g *Group) (int, error) {
	dir, ok := g.dirs["memory"]
	if !ok {
		return -1, errors.New("no memory controller")
	}
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), strconv.Itoa(fd)+" "+strconv.Itoa(int(control.Fd()))); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Next returns when there are more kills than it has told before, and how many there have been in all. It is an error when the group is gone or the
// watch is closed.
func (w *OOMWatch) Next() (kills uint64, err error) {
	raw, err := w.signal.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		if kills, err := w.look(); kills > 0 || err != nil {
			return kills, err
		}
		waited := false
		err := raw.Read(func(fd uintptr) bool {
			if waited {
				var count [8]byte
				_, _ = unix.Read(int(fd), count[:]) // an eventfd is readable until it has been read
				return true
			}
			waited = true
			return false
		})
		if err != nil {
			return 0, err
		}
		for end := time.Now().Add(killPatience); time.Now().Before(end); time.Sleep(shortagePause) {
			if kills, err := w.look(); kills > 0 || err != nil {
				return kills, err
			}
			if w.g.pure() { // tells of much that is no kill, and of kills afterwards
				time.Sleep(shortagePause)
				break
			}
		}
	}
}

// look is the number of kills where it has risen, else 0.
func (w *OOMWatch) look() (uint64, error) {
	kills, err := w.g.OOMKills()
	if err != nil {
		return 0, fmt.Errorf("control group %s: %w", w.g.path, fs.ErrNotExist)
	}
	if kills <= w.seen {
		return 0, nil
	}
	w.seen = kills
	return kills, nil
}

// Close ends the watch.
func (w *OOMWatch) Close() error { return w.signal.Close() }
