package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is what /proc says of one (proc_pid_stat(5)).
type process struct {
	parent  int
	tty     int
	cpu     time.Duration
	started time.Duration // after the boot
	command string
}

// clock relates times after the boot to the wall's.
type clock struct {
	now    time.Time
	uptime time.Duration
}

const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs

func readClock() (clock, error) {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return clock{}, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	return clock{time.Now(), time.Duration(seconds * float64(time.Second))}, err
}

func readProcess(pid int) (process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(string(b))
	if err != nil {
		return p, fmt.Errorf("read %s/stat: %w", dir, err)
	}
	if line := readCommand(dir + "/cmdline"); len(line) > 0 {
		p.command = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
	}
	return p, nil
}

// maxCommand is how much of a process's arguments is shown: they may be megabytes, of thousands of processes.
const maxCommand = 4 << 10

func readCommand(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, maxCommand))
	if err != nil {
		return nil
	}
	return line
}

// parseStat reads the line of a process. Its name stands in parentheses and may hold some itself.
func parseStat(line string) (process, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return process{}, errors.New("no name in the line")
	}
	p := process{command: "[" + line[open+1:end] + "]"}
	f := strings.Fields(line[end+1:]) // from the third field on: the state
	if len(f) < 20 {
		return p, fmt.Errorf("%d fields only", len(f)+2)
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	p.parent, p.tty = int(number(4)), int(number(7))
	p.cpu = time.Duration(number(14)+number(15)) * tick
	p.started = time.Duration(number(22)) * tick
	return p, nil
}

// columns are PPID C STIME TTY TIME CMD as ps -ef shows them.
func (p process) columns(c clock) []string {
	lived := max(c.uptime-p.started, time.Second)
	began := c.now.Add(p.started - c.uptime)
	format := "15:04"
	if c.now.Sub(began) > 24*time.Hour {
		format = "Jan02"
	}
	tty := "?"
	if major, minor := p.tty>>8&0xfff, p.tty&0xff|p.tty>>12&0xfff00; major >= 136 && major < 144 { // Documentation/admin-guide/devices.txt
		tty = "pts/" + strconv.Itoa((major-136)<<8|minor)
	}
	s := int(p.cpu / time.Second)
	return []string{strconv.Itoa(p.parent), strconv.Itoa(min(int(100*p.cpu/lived), 99)), began.Format(format), tty,
		fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60), p.command}
}
