package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
)

// posture prints what the process is confined to, one fact a line, in a fixed order; to a file where one is named, which is opened last.
// Nothing in it depends on the machine's size or load.
func posture(args []string) {
	if len(args) > 0 {
		if _, err := os.Stat(args[0]); err == nil { // health checks come again and again
			return
		}
	}
	var text bytes.Buffer
	describe(&text)
	if len(args) == 0 {
		_, _ = os.Stdout.Write(text.Bytes())
		return
	}
	if err := os.WriteFile(args[0]+".part", text.Bytes(), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	_ = os.Rename(args[0]+".part", args[0])
}

func describe(w io.Writer) {
	ownProcess(w)
	status := readStatus()
	for _, key := range []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigIgn", "SigBlk"} {
		fmt.Fprintln(w, "status", key, strings.Join(strings.Fields(status[key]), " "))
	}
	umask := syscall.Umask(0)
	fmt.Fprintf(w, "umask %04o\n", umask)
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		id, _ := os.Readlink("/proc/self/ns/" + ns)
		fmt.Fprintln(w, "namespace", ns, id) // the test replaces what is the host's
	}
	mounts(w)
	masked(w)
	devices(w)
	writable(w, "/proc/sys")
	writable(w, "/proc")
	writable(w, "/sys")
	readable(w)
	calls(w)
}

func readStatus() map[string]string {
	b, _ := os.ReadFile("/proc/self/status")
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[key] = value
	}
	return out
}

// mounts prints place, type and the flags that matter.
func mounts(w io.Writer) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)[0]
		if strings.HasPrefix(f[4], "/sys/fs/cgroup/") {
			f[4], kind = "/sys/fs/cgroup/*", "cgroup"
		}
		var flags []string
		for _, o := range strings.Split(f[5], ",") {
			if o == "ro" || o == "rw" || o == "nosuid" || o == "nodev" || o == "noexec" {
				flags = append(flags, o)
			}
		}
		shared := strings.Join(f[6:], " ")
		if strings.Contains(shared, "master:") {
			shared = "slave"
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("mount %s %s %s %s", f[4], kind, strings.Join(flags, ","), shared)))
	}
	sort.Strings(out)
	last := ""
	for _, l := range out {
		if l != last {
			fmt.Fprintln(w, l)
		}
		last = l
	}
}

// masked prints what is left of paths that tell about the host.
func masked(w io.Writer) {
	for _, p := range []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/interrupts", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		fi, err := os.Stat(p)
		switch {
		case err != nil:
			continue
		case fi.IsDir():
			list, _ := os.ReadDir(p)
			fmt.Fprintln(w, "masked", p, len(list), "entries")
		default:
			b := make([]byte, 16)
			f, err := os.Open(p)
			n := 0
			if err == nil {
				n, _ = f.Read(b)
			}
			fmt.Fprintln(w, "masked", p, fi.Mode().Type(), n, "bytes", err)
		}
	}
}

func devices(w io.Writer) {
	var out []string
	_ = filepath.WalkDir("/dev", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeDevice != 0 {
			fi, _ := d.Info()
			st := fi.Sys().(*syscall.Stat_t)
			out = append(out, fmt.Sprintf("device %s %v %d:%d", p, fi.Mode(), st.Rdev>>8&0xfff, st.Rdev&0xff))
		}
		return nil
	})
	sort.Strings(out)
	fmt.Fprintln(w, strings.Join(out, "\n"))
	f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	fmt.Fprintln(w, "open /dev/null", err)
	_ = f.Close()
	err = syscall.Mknod("/tmp/disk", syscall.S_IFBLK|0o600, 254<<8)
	fmt.Fprintln(w, "mknod of a disk", err)
	_ = os.Remove("/tmp/disk")
}

// writable prints the regular files below a folder that can be opened for writing. Numbered parts (processes, processors) become *.
func writable(w io.Writer, dir string) {
	found := map[string]bool{}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() && (dir == "/proc" && (p == "/proc/sys" || p == "/proc/self" || p == "/proc/thread-self") || strings.HasPrefix(p, "/sys/fs/cgroup")) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			return nil
		}
		f.Close()
		parts := strings.Split(p, "/")
		for i, part := range parts {
			parts[i] = strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return '*'
				}
				return r
			}, part)
			for strings.Contains(parts[i], "**") {
				parts[i] = strings.ReplaceAll(parts[i], "**", "*")
			}
		}
		if parts[1] == "proc" && parts[2] == "*" {
			return nil // processes are this one and its kind
		}
		found[strings.Join(parts, "/")] = true
		return nil
	})
	list := make([]string, 0, len(found))
	for p := range found {
		list = append(list, p)
	}
	sort.Strings(list)
	fmt.Fprintln(w, "writable below", dir, len(list) > 0)
	for _, p := range list {
		fmt.Fprintln(w, "writable", p)
	}
}

// readable prints whether files that tell attackers about the kernel or the host's hardware can be read.
func readable(w io.Writer) {
	for _, p := range []string{"/proc/kallsyms", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/vda", "/proc/sysrq-trigger", "/proc/1/environ", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/kpagecount"} {
		f, err := os.Open(p)
		if err == nil {
			f.Close()
		}
		fmt.Fprintln(w, "open", p, err)
	}
}

func calls(w io.Writer) {
	runtime.LockOSThread()
	for _, c := range attempts() {
		_, _, errno := syscall.RawSyscall6(c.nr, c.a, c.b, c.c, 0, 0, 0)
		verdict := errno.Error()
		if errno == 0 {
			verdict = "allowed"
		}
		fmt.Fprintln(w, "call", c.name, verdict)
	}
	sockets(w)
}

type attempt struct {
	name    string
	nr      uintptr
	a, b, c uintptr
}

func sockets(w io.Writer) {
	families := []struct {
		name         string
		family, kind int
	}{{"unix", 1, 1}, {"inet", 2, 1}, {"inet6", 10, 1}, {"netlink", 16, 3}, {"packet", 17, 3}, {"raw inet", 2, 3}, {"alg", 38, 5}, {"vsock", 40, 1}, {"xdp", 44, 3}, {"key", 15, 3}, {"bluetooth", 31, 3}, {"can", 29, 3}, {"tipc", 30, 2}}
	for _, f := range families {
		fd, errno := socket(f.family, f.kind)
		verdict := errno.Error()
		if errno == 0 {
			verdict = "allowed"
			_ = syscall.Close(fd)
		}
		fmt.Fprintln(w, "socket", f.name, verdict)
	}
}
