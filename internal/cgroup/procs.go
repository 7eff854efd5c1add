package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Procs lists the processes of the group and of those below it. A group that is gone has none, with an error that is fs.ErrNotExist.
func (g *Group) Procs() ([]int, error) {
	if !Exists(g) {
		return nil, nil
	}
	pids, err := procsBelow(g.anyDir())
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// procs lists those of one directory. A threaded group has none: its processes are in the list of one above.
func procs(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func procsBelow(dir string) ([]int, error) {
	pids, err := procs(dir)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Nlink <= 2 { // the kernel counts a directory's directories
		return pids, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pids, nil
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		more, err := procsBelow(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) { // one that was removed meanwhile
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}
