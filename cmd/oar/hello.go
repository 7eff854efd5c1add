package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// hello prints what this process sees: the program of the built-in image. With --wait it then sleeps, to be looked at from outside.
func hello(_ context.Context, args []string) error {
	fmt.Print("Hello from a Wherry container. This is what a process sees from inside.\n\n")
	host, _ := os.Hostname()
	row("process id", fmt.Sprint(os.Getpid()))
	row("host name", host)
	row("user", fmt.Sprintf("%d, group %d", os.Getuid(), os.Getgid()))
	row("user ids", idMap())
	for _, ns := range []string{"pid", "net", "mnt", "uts", "ipc", "user", "cgroup"} {
		id, _ := os.Readlink("/proc/self/ns/" + ns)
		row(ns+" namespace", id)
	}
	row("memory limit", limit("memory/memory.limit_in_bytes", "memory.max"))
	row("process limit", limit("pids/pids.max", "pids.max"))
	row("cpu quota", limit("cpu/cpu.cfs_quota_us", "cpu.max"))
	row("root file system", rootFilesystem())
	row("interfaces", interfaces())
	row("capabilities", statusLine("CapEff"))
	row("seccomp", map[string]string{"0": "off", "1": "strict", "2": "filtered"}[statusLine("Seccomp")])
	fmt.Println()
	if len(args) > 0 && args[0] == "--wait" {
		time.Sleep(time.Hour)
	}
	return nil
}

func row(name, value string) { fmt.Printf("  %-18s %s\n", name, value) }

func idMap() string {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return fmt.Sprintf("%s to %s+%s here are %s… on the host", f[0], f[0], f[2], f[1])
}

func limit(paths ...string) string {
	for _, p := range paths {
		b, err := os.ReadFile("/sys/fs/cgroup/" + p)
		if err != nil {
			continue
		}
		v := strings.TrimSpace(string(b))
		if v == "9223372036854771712" || v == "-1" || strings.HasPrefix(v, "max") {
			return "none"
		}
		return v
	}
	return "not visible"
}

func rootFilesystem() string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && f[4] == "/" {
			layers := strings.Count(after, "lowerdir") + strings.Count(after, "::")
			return fmt.Sprintf("%s (%d layer entries)", strings.Fields(after)[0], layers)
		}
	}
	return "unknown"
}

func interfaces() string {
	list, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, i := range list {
		addresses, _ := i.Addrs()
		var text []string
		for _, a := range addresses {
			text = append(text, a.String())
		}
		out = append(out, strings.TrimSpace(i.Name+" "+strings.Join(text, " ")))
	}
	return strings.Join(out, "; ")
}

func statusLine(key string) string {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
