package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/rootfs"
)

// Top lists the container's processes with the host's ps and the given arguments ("" means "-ef"). Nothing of the image is run.
func (s *Service) Top(ctx context.Context, id, psArgs string) (container.TopResponse, error) {
	v, done, err := s.view(ctx, id)
	if err != nil {
		return container.TopResponse{}, err
	}
	defer done()
	if !v.Running {
		return container.TopResponse{}, fmt.Errorf("container %s is not running: start it first: %w", v.ID, errdefs.ErrConflict)
	}
	top, err := processes(ctx, &v, psArgs)
	if err == nil {
		v.Publish(s.events, events.ActionTop, nil)
	}
	return top, err
}

func processes(ctx context.Context, v *containers.View, psArgs string) (container.TopResponse, error) {
	pids, err := v.Cgroup.Procs()
	if err != nil {
		return container.TopResponse{}, fmt.Errorf("list the processes of container %s: %w", v.Name, err)
	}
	args := strings.Fields(psArgs)
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, only, err := ps(ctx, args, pids)
	if (errors.Is(err, exec.ErrNotFound) || errors.Is(err, unix.EAGAIN)) && slices.Equal(args, []string{"-ef"}) {
		return builtin(v, pids)
	}
	if err != nil {
		return container.TopResponse{}, err
	}
	top, err := pick(out, pids)
	if err != nil {
		return top, err
	}
	if !only {
		if err := certain(args, top.Titles); err != nil {
			return container.TopResponse{}, err
		}
	}
	inside(&top, v.Rootfs.IDMap, ownFormat(args))
	return top, nil
}

// ps runs the host's, at first for the container's processes only, which some arguments exclude.
func ps(ctx context.Context, args []string, pids []int) (out string, only bool, err error) {
	path, err := exec.LookPath("ps")
	if err != nil {
		return "", false, fmt.Errorf("top needs the program ps on the host: install procps: %w: %w", exec.ErrNotFound, errdefs.ErrFailedPrecondition)
	}
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.Itoa(pid)
	}
	out, err = output(ctx, path, append(slices.Clone(args), "-q", strings.Join(list, ",")))
	only = err == nil && !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "q") })
	if err != nil {
		out, err = output(ctx, path, args)
	}
	if err != nil {
		return "", false, fmt.Errorf("ps %s: %w: %w", strings.Join(args, " "), err, errdefs.ErrInvalidArgument)
	}
	return out, only, nil
}

// oneWord are the titles of ps's columns that hold one word, and are no other column's.
const oneWord = " F S UID USER RUID RUSER EUID EUSER GID GROUP PPID PGID PGRP SID SESS STAT NI PRI %CPU %MEM VSZ RSS SZ C CLS LWP NLWP PSR TT TTY TIME ELAPSED "

// certain says whether a table of all the host's processes shows for sure which are the container's. A column in front of their numbers that holds
// several words, or one with the title of another, would have other processes taken for them: by the year in which they were started.
func certain(args, titles []string) error {
	for _, a := range args {
		if i := strings.IndexByte(a, '='); i >= 0 && strings.HasPrefix(a, "--") {
			a = a[i+1:]
		}
		if strings.Contains(a, "=") {
			return fmt.Errorf("ps %s: a column with another title may go for another one: leave out %s, or what sorts: %w", strings.Join(args, " "), a, errdefs.ErrInvalidArgument)
		}
	}
	for _, title := range titles[:slices.Index(titles, "PID")] {
		if !strings.Contains(oneWord, " "+title+" ") {
			return fmt.Errorf("ps %s: the column %s may hold several words: have pid in front of it: %w", strings.Join(args, " "), title, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Reveals says whether these arguments may have ps show the environment of processes. It does for BSD's option e, for which it also takes -e where the
// rest makes no sense otherwise, and for a column.
func Reveals(psArgs string) bool {
	args := strings.Fields(psArgs)
	if len(args) == 1 && args[0] == "-ef" || len(args) == 2 && args[0] == "-eo" && !strings.Contains(args[1], "env") {
		return false
	}
	for i, a := range args {
		word := strings.HasPrefix(a, "--") || i == 1 && args[0] == "-o"
		if strings.Contains(a, "env") || !word && strings.Contains(a, "e") {
			return true
		}
	}
	return false
}

func output(ctx context.Context, path string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var out, complaint bounded
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if out.full {
			return "", errTooMuch
		}
		if line, _, _ := strings.Cut(strings.TrimSpace(complaint.text.String()), "\n"); line != "" {
			return "", errors.New(line)
		}
		return "", err
	}
	return out.text.String(), nil
}

// maxTable bounds what is taken of ps's output, in which the processes' own arguments stand.
const maxTable = 16 << 20

var errTooMuch = fmt.Errorf("the processes' arguments fill more than %d MiB: ask for fewer columns, as in -eo pid,comm", maxTable>>20)

// bounded keeps what fits and ends who writes more.
type bounded struct {
	text bytes.Buffer
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.full = b.full || b.text.Len()+len(p) > maxTable; b.full {
		return 0, errTooMuch
	}
	return b.text.Write(p)
}

// pick takes the container's processes out of ps's table. The last column may hold spaces.
func pick(table string, pids []int) (container.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(table, "\n"), "\n")
	top := container.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := slices.Index(top.Titles, "PID")
	if column < 0 {
		return top, fmt.Errorf("the column PID is missing in what ps says: add pid to the columns that are asked for: %w", errdefs.ErrInvalidArgument)
	}
	want := map[string]bool{}
	for _, pid := range pids {
		want[strconv.Itoa(pid)] = true
	}
	ours := false // the line before, which lines of threads ("-") belong to
	for _, line := range lines[1:] {
		fields := cells(line, len(top.Titles))
		if len(fields) <= column {
			continue
		}
		if pid := fields[column]; pid != "-" {
			ours = want[pid]
		}
		if ours {
			top.Processes = append(top.Processes, fields)
		}
	}
	return top, nil
}

// cells splits a line into at most n columns.
func cells(line string, n int) []string {
	var out []string
	rest := strings.TrimSpace(line)
	for len(out) < n-1 && rest != "" {
		i := strings.IndexAny(rest, " \t")
		if i < 0 {
			break
		}
		out = append(out, rest[:i])
		rest = strings.TrimLeft(rest[i:], " \t")
	}
	if rest != "" {
		out = append(out, rest)
	}
	return out
}

// ownFormat says that the arguments name columns.
func ownFormat(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(a, "--format") || strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.ContainsAny(a, "oO") || a == "o" || a == "O"
	})
}

// inside shows users as the container knows them: the host's ids of its range mean nothing to people. Root is called by name where ps
// shows names.
func inside(top *container.TopResponse, ids rootfs.IDMap, numbers bool) {
	if ids.Size == 0 {
		return
	}
	pidAt := slices.Index(top.Titles, "PID")
	for i, title := range top.Titles {
		which := -1 // of the four in /proc/PID/status: real, effective, saved, file system
		switch title {
		case "RUSER", "RUID":
			which = 0
		case "USER", "UID", "EUSER", "EUID":
			which = 1
		}
		if which < 0 {
			continue
		}
		names := strings.HasSuffix(title, "USER") || title == "UID" && !numbers
		for _, p := range top.Processes {
			host, ok := userOf(p[pidAt], which)
			if !ok || i >= len(p) || uint32(host)-ids.Base >= ids.Size {
				continue
			}
			p[i] = userName(ids.Inside(host), names)
		}
	}
}

func userName(id int, names bool) string {
	if id == 0 && names {
		return "root"
	}
	return strconv.Itoa(id)
}

// userOf reads one of a process's user ids (proc_pid_status(5)).
func userOf(pid string, which int) (int, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			f := strings.Fields(rest)
			if which >= len(f) {
				return 0, false
			}
			id, err := strconv.Atoi(f[which])
			return id, err == nil
		}
	}
	return 0, false
}

// builtin is ps -ef for hosts that have no ps, or no room for one more process.
func builtin(v *containers.View, pids []int) (container.TopResponse, error) {
	top := container.TopResponse{Titles: strings.Fields("UID PID PPID C STIME TTY TIME CMD"), Processes: [][]string{}}
	now, err := readClock()
	if err != nil {
		return top, err
	}
	slices.Sort(pids)
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		user := "?"
		if id, ok := userOf(strconv.Itoa(pid), 1); ok {
			user = userName(v.Rootfs.IDMap.Inside(id), true)
		}
		top.Processes = append(top.Processes, append([]string{user, strconv.Itoa(pid)}, p.columns(now)...))
	}
	return top, nil
}
