package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"wherry.dev/wherry/internal/mountinfo"
)

// hello prints what this process sees: the program of the built-in image. With --wait it then sleeps, to be looked at from outside.
func hello(_ context.Context, f flags) error {
	fmt.Print("Hello from a Wherry container. This is what a process sees from inside.\n\n")
	host, _ := os.Hostname()
	row("process id", fmt.Sprint(os.Getpid())+", of "+processes()+" that it can see")
	row("host name", host)
	row("user", fmt.Sprintf("%d, group %d", os.Getuid(), os.Getgid()))
	row("user ids", idMap())
	row("root file system", rootFilesystem())
	row("interfaces", interfaces())
	fmt.Print("\nNamespaces: what is its own (compare with ls -l /proc/self/ns outside).\n\n")
	for _, ns := range [][2]string{{"pid", "processes"}, {"net", "interfaces, ports, firewall"}, {"mnt", "mounts"}, {"uts", "host name"}, {"ipc", "shared memory, queues"},
		{"user", "user ids and their rights"}, {"cgroup", "view of its limits"}} {
		id, _ := os.Readlink("/proc/self/ns/" + ns[0])
		row(ns[0], fmt.Sprintf("%-20s %s", id, ns[1]))
	}
	fmt.Print("\nLimits and rights.\n\n")
	row("memory", bytesLimit(limit("memory/memory.limit_in_bytes", "memory.max")))
	row("processors", cpuLimit())
	row("processes", limit("pids/pids.max", "pids.max"))
	row("capabilities", statusLine("CapEff")+" (capsh --decode= names them)")
	row("seccomp", map[string]string{"0": "off", "1": "strict", "2": "system calls are filtered"}[statusLine("Seccomp")])
	row("new privileges", map[string]string{"0": "by set-user-ID programs", "1": "never"}[statusLine("NoNewPrivs")])
	fmt.Println()
	if len(f.args) > 0 && f.args[0] == "--wait" {
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
	return idRange(f)
}

// idRange says what a line of uid_map does: its fields are the first id here, the first one on the host, and how many there are.
func idRange(fields []string) string {
	var n [3]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(fields[i], 10, 64)
	}
	return fmt.Sprintf("%d to %d here are %d to %d on the host", n[0], n[0]+n[2]-1, n[1], n[1]+n[2]-1)
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

// processes counts those that procfs shows.
func processes() string {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return "an unknown number"
	}
	n := 0
	for _, e := range list {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			n++
		}
	}
	return strconv.Itoa(n)
}

func bytesLimit(text string) string {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return text
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// cpuLimit is quota by period, on cgroup v1 or v2.
func cpuLimit() string {
	quota, period := limit("cpu/cpu.cfs_quota_us"), limit("cpu/cpu.cfs_period_us")
	if v2 := limit("cpu.max"); v2 != "none" && v2 != "not visible" {
		quota, period, _ = strings.Cut(v2, " ")
	}
	q, err1 := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || p == 0 {
		return fmt.Sprintf("all %d", runtime.NumCPU())
	}
	return fmt.Sprintf("%.2f of %d", q/p, runtime.NumCPU())
}

func rootFilesystem() string {
	list, _ := mountinfo.Own()
	for _, m := range list {
		if m.At != "/" {
			continue
		}
		access := "writable"
		if slices.Contains(m.Flags, "ro") || slices.Contains(m.Options, "ro") {
			access = "read-only"
		}
		if m.Type == "overlay" {
			return "overlay: the image's layers, and a " + access + " one of its own"
		}
		return m.Type + ", " + access
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
