package cgroup

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxRecords bounds how much of the kernel's log is read: its ring buffer has fewer.
const maxRecords = 1 << 16

// OOMVictim is the name of the process that the kernel killed last because of the group's memory limit, "" where the kernel's log does
// not say it any more or may not be read.
func (g *Group) OOMVictim() string {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	log := os.NewFile(uintptr(fd), "/dev/kmsg")
	defer log.Close()
	victim := ""
	record := make([]byte, 8192) // one read is one record
	for range maxRecords {
		n, err := unix.Read(fd, record)
		if err == unix.EPIPE { // overwritten while it was read: the next one follows
			continue
		}
		if err != nil || n <= 0 {
			return victim
		}
		if name, ok := oomRecord(string(record[:n]), g.path); ok {
			victim = name
		}
	}
	return victim
}

// oomRecord reads the line that mm/oom_kill.c prints for each kill: "…oom-kill:constraint=…,oom_memcg=/a,task_memcg=/a/b,task=name,pid=1,
// uid=0". The name is the process's own choice: what stands around it is found from outside.
func oomRecord(line, group string) (task string, ok bool) {
	_, line, ok = strings.Cut(line, "oom-kill:constraint=")
	if !ok {
		return "", false
	}
	_, rest, ok := strings.Cut(line, ",task_memcg=")
	if !ok {
		return "", false
	}
	memcg, rest, ok := strings.Cut(rest, ",task=")
	if !ok || !strings.HasSuffix(memcg, group) && !strings.Contains(memcg, group+"/") {
		return "", false
	}
	end := strings.LastIndex(rest, ",pid=")
	if end < 0 {
		return "", false
	}
	return rest[:end], true
}
