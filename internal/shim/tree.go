package shim

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// treeRounds bounds how often a group is looked through for processes that were made meanwhile.
const treeRounds = 16

// killTree kills a process of a group, which leads a session, with its descendants and its session's processes. Each is stopped when it is
// found, so that it makes no more, and the group is looked through until there is none left to find.
func killTree(g *cgroup.Group, root int) {
	found := map[int]bool{}
	for range treeRounds {
		more := treeIn(g, root, found)
		for _, pid := range more {
			found[pid] = true
			_ = unix.Kill(pid, unix.SIGSTOP)
		}
		if len(more) == 0 {
			break
		}
	}
	for pid := range found {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// treeIn are the processes of the tree that have not been found yet.
func treeIn(g *cgroup.Group, root int, found map[int]bool) (more []int) {
	pids, err := g.Procs()
	if err != nil {
		return nil
	}
	parents := map[int]int{}
	member := map[int]bool{root: true}
	for _, pid := range pids {
		parent, session, ok := familyOf(pid)
		if !ok {
			continue
		}
		parents[pid] = parent
		if session == root {
			member[pid] = true
		}
	}
	for grew := true; grew; {
		grew = false
		for pid, parent := range parents {
			if member[parent] && !member[pid] {
				member[pid], grew = true, true
			}
		}
	}
	for pid := range member {
		if _, there := parents[pid]; there && !found[pid] {
			more = append(more, pid)
		}
	}
	return more
}

// familyOf is a process's parent and session (proc_pid_stat(5)). Its name may hold anything.
func familyOf(pid int) (parent, session int, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 4 || f[0] == "Z" {
		return 0, 0, false
	}
	parent, err1 := strconv.Atoi(f[1])
	session, err2 := strconv.Atoi(f[3])
	return parent, session, err1 == nil && err2 == nil
}
