package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxRecords bounds how much of the kernel's log is read: its ring buffer has fewer.
const maxRecords = 1 << 16

// OOMReport is what the kernel's log says of a kill for want of memory.
type OOMReport struct {
	Victim string // name of the process that was killed; "": the log does not say it any more, or may not be read
	Pid    int    // its number on the host
	Host   bool   // it was the machine that was short of memory, not a group
	Top    []OOMProcess
}

// OOMProcess is one of the processes that there were then.
type OOMProcess struct {
	Pid      int
	Name     string
	Resident uint64 // bytes
}

// topProcesses is how many are kept of them.
const topProcesses = 5

// OOMReport tells of the last kill in the group that is not older than a moment, by the log's clock (CLOCK_MONOTONIC; 0: of any age).
func (g *Group) OOMReport(since time.Duration) (last OOMReport) {
	var table oomTable
	eachRecord(func(record string) {
		if report, ok := table.read(record, g.path); ok && stamp(record) >= since {
			last = report
		}
	})
	return last
}

// eachRecord hands out what is in the kernel's log, oldest first.
func eachRecord(fn func(record string)) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	log := os.NewFile(uintptr(fd), "/dev/kmsg")
	defer log.Close()
	record := make([]byte, 8192) // one read is one record
	for range maxRecords {
		n, err := unix.Read(fd, record)
		if err == unix.EPIPE { // overwritten while it was read: the next one follows
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		fn(string(record[:n]))
	}
}

// stamp is a record's time: "priority,number,microseconds,flags;text" (Documentation/ABI/testing/dev-kmsg).
func stamp(record string) time.Duration {
	head, _, _ := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if len(fields) < 3 {
		return 0
	}
	us, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || us > int64(time.Duration(1<<62)/time.Microsecond) {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// oomTable gathers the processes that the kernel lists before it names the victim (mm/oom_kill.c, dump_tasks):
//
//	[  pid  ]   uid  tgid total_vm      rss … name
//	[    123]     0   123      456      321 … tail
type oomTable struct {
	columns int // of the header, from uid to name
	rows    []OOMProcess
}

// maxRows bounds a table: a machine may have a great many processes.
const maxRows = 4096

// read takes one record in; a report comes with the one that names a victim in the group.
func (t *oomTable) read(record, group string) (report OOMReport, ok bool) {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	switch {
	case strings.HasPrefix(text, "[  pid  ]"):
		t.columns, t.rows = len(strings.Fields(text))-3, nil
	case strings.HasPrefix(text, "[") && t.columns > 0:
		if p, ok := t.row(text); ok && len(t.rows) < maxRows {
			t.rows = append(t.rows, p)
		}
	case strings.Contains(text, "oom-kill:constraint="):
		rows := t.rows
		*t = oomTable{}
		if report.Victim, report.Pid, ok = oomRecord(text, group); !ok {
			return report, false
		}
		slices.SortStableFunc(rows, func(a, b OOMProcess) int { return int(min(max(int64(b.Resident)-int64(a.Resident), -1), 1)) })
		report.Host = strings.Contains(text, ",global_oom,")
		report.Top = rows[:min(len(rows), topProcesses)]
		return report, true
	}
	return report, false
}

func (t *oomTable) row(text string) (p OOMProcess, ok bool) {
	number, rest, _ := strings.Cut(text[1:], "]")
	f := strings.Fields(rest)
	if len(f) < t.columns || len(f) < 5 {
		return p, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(number))
	pages, err2 := strconv.ParseUint(f[3], 10, 40)
	p = OOMProcess{Pid: pid, Name: strings.Join(f[t.columns-1:], " "), Resident: pages * uint64(os.Getpagesize())}
	return p, err == nil && err2 == nil
}

// oomRecord reads the line that mm/oom_kill.c prints for each kill: "…oom-kill:constraint=…,oom_memcg=/a,task_memcg=/a/b,task=name,pid=1,
// uid=0". The name is the process's own choice: what stands around it is found from outside.
func oomRecord(line, group string) (task string, pid int, ok bool) {
	_, line, ok = strings.Cut(line, "oom-kill:constraint=")
	if !ok {
		return "", 0, false
	}
	_, rest, ok := strings.Cut(line, ",task_memcg=")
	if !ok {
		return "", 0, false
	}
	memcg, rest, ok := strings.Cut(rest, ",task=")
	if !ok || !strings.HasSuffix(memcg, group) && !strings.Contains(memcg, group+"/") {
		return "", 0, false
	}
	end := strings.LastIndex(rest, ",pid=")
	if end < 0 {
		return "", 0, false
	}
	number, _, _ := strings.Cut(rest[end+len(",pid="):], ",")
	pid, _ = strconv.Atoi(number)
	return rest[:end], pid, true
}
