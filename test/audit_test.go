package test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// inventory is what an engine could leave on a machine: by kind, the names.
type inventory map[string][]string

// audit lists what is there now, seen from outside the tests' namespaces.
func audit() (inventory, error) {
	inv := inventory{}
	var errs []error
	add := func(kind string, names []string, err error) {
		sort.Strings(names)
		inv[kind] = names
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", kind, err))
		}
	}
	names, err := processes()
	add("process", names, err)
	names, err = fileLines("/proc/self/mountinfo", func(f []string) string { return f[4] })
	add("mount", names, err)
	names, err = commandLines("ip", "-o", "link")
	add("link", names, err)
	names, err = commandLines("ip", "netns")
	add("network namespace", names, err)
	names, err = commandLines("nft", "list", "tables")
	add("nftables table", names, err)
	names, err = cgroups()
	add("cgroup", names, err)
	names, err = files()
	add("file", names, err)
	return inv, errors.Join(errs...)
}

// auditAfter compares with the state before; what is still going away gets a moment.
func auditAfter(before inventory) error {
	return eventually(time.Minute, func() error {
		after, err := audit()
		if err != nil {
			return err
		}
		var left []string
		for kind, names := range after {
			have := map[string]int{}
			for _, n := range before[kind] {
				have[n]++
			}
			for _, n := range names {
				if have[n]--; have[n] < 0 {
					left = append(left, kind+" "+n)
				}
			}
		}
		if len(left) == 0 {
			return nil
		}
		sort.Strings(left)
		return errors.New("left behind:\n  " + strings.Join(left, "\n  "))
	})
}

// processes lists those that only an engine under test starts: shims, what names its folder, and whatever lives in a control group of its.
func processes() ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		group, _ := os.ReadFile(dir + "/cgroup")
		if strings.HasPrefix(string(cmdline), "oar\x00") || strings.Contains(string(cmdline), run()) || strings.Contains(string(group), "/"+run()+"/") {
			out = append(out, filepath.Base(dir)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return out, nil
}

func fileLines(path string, pick func([]string) string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		out = append(out, pick(strings.Fields(s.Text())))
	}
	return out, s.Err()
}

func commandLines(name string, args ...string) ([]string, error) {
	b, err := exec.Command(name, args...).Output()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range strings.Split(string(b), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, strings.Join(strings.Fields(l)[:min(2, len(strings.Fields(l)))], " "))
		}
	}
	return out, nil
}

// cgroups are all control groups that this run has named, and those below them, wherever they are: a request may name any parent.
func cgroups() ([]string, error) {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(p, run()) {
			out = append(out, p)
		}
		return nil // groups come and go
	})
	return out, err
}

// files lists the places where engines keep things.
func files() ([]string, error) {
	var out []string
	for _, pattern := range []string{"/run/*", "/var/run/netns/*", "/var/lib/*", "/var/tmp/" + run() + "*", "/dev/shm/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	return out, nil
}
