package why

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shortOfMemory is a first process that the kernel killed because of the container's limit.
func shortOfMemory(e *Evidence) (Verdict, bool) {
	m := e.Memory
	if m == nil || m.Kills == 0 || e.Signal != int(unix.SIGKILL) || !m.First && e.sent(int(unix.SIGKILL)) != nil {
		return Verdict{}, false
	}
	if s := e.Sender; s != nil && !m.First && (s.From == FromHost || s.From == FromInside) {
		return Verdict{}, false
	}
	v := Verdict{Cause: OOM, Summary: "it came to its memory limit" + m.limit() + ", and the kernel killed " + m.victim(e.program()), Facts: append([]string{e.how()}, m.facts()...),
		Advice: "give it more with --memory (wherry update --memory works while it runs), or find what grows"}
	return v, true
}

// childShortOfMemory is another process that was killed so; the first one went on, and then ended.
func childShortOfMemory(e *Evidence) (Verdict, bool) {
	m := e.Memory
	if m == nil || m.Kills == 0 || e.Signal != 0 || e.Code == 0 {
		return Verdict{}, false
	}
	return Verdict{Cause: OOMChild, Summary: fmt.Sprintf("it came to its memory limit%s, the kernel killed %s in it, and then %s ended with exit code %d", m.limit(), m.victim("a process"), e.program(), e.Code),
		Facts: m.facts(), Advice: "give it more with --memory, or find what grows"}, true
}

// hostShortOfMemory is a kill for want of memory of the whole machine.
func hostShortOfMemory(e *Evidence) (Verdict, bool) {
	m := e.Memory
	if m == nil || !m.Host || e.Signal != int(unix.SIGKILL) {
		return Verdict{}, false
	}
	return Verdict{Cause: HostOOM, Summary: "the machine was out of memory, and the kernel chose " + m.victim(e.program()) + " to kill", Facts: append([]string{e.how()}, m.facts()...),
		Advice: "the container's own limit was not in the way: give containers limits (--memory) that fit the machine, or the machine more memory"}, true
}

func (m *Memory) limit() string {
	if m.Limit == 0 {
		return ""
	}
	return " of " + size(m.Limit)
}

func (m *Memory) victim(otherwise string) string {
	switch {
	case m.Victim == "":
		return otherwise
	case m.VictimPid == 0:
		return m.Victim
	}
	return fmt.Sprintf("%s (pid %d)", m.Victim, m.VictimPid)
}

func (m *Memory) facts() (facts []string) {
	text := fmt.Sprintf("the kernel killed %s for want of memory", times(int(m.Kills)))
	if m.Kills == 0 {
		text = "the kernel's log names the kill"
	}
	if m.Peak > 0 {
		text += ", its memory came to " + size(m.Peak) + " at the most"
	}
	facts = append(facts, text)
	var top []string
	for _, p := range m.Top {
		top = append(top, fmt.Sprintf("%s (pid %d) %s", p.Name, p.Pid, size(p.Resident)))
	}
	if len(top) > 0 {
		facts = append(facts, "the largest processes then: "+strings.Join(top, ", "))
	}
	return facts
}

// shortOfProcesses is a program that could not make processes or threads.
func shortOfProcesses(e *Evidence) (Verdict, bool) {
	p := e.Processes
	if p == nil || p.Refused == 0 || e.Signal == 0 && e.Code == 0 {
		return Verdict{}, false
	}
	line := lineWith(e.Lines, "fork", "thread", "resource temporarily unavailable", "clone")
	if line == "" && e.Signal != 0 && e.Signal != int(unix.SIGABRT) {
		return Verdict{}, false
	}
	v := Verdict{Cause: ProcessLimit, Summary: fmt.Sprintf("it came to its limit of %d processes, and %s could not make another one", p.Limit, e.program()),
		Facts:  []string{e.how(), fmt.Sprintf("the kernel refused a new process or thread %s", times(int(p.Refused)))},
		Advice: "raise --pids-limit (wherry update --pids-limit works while it runs), or find what makes so many"}
	if p.Limit == 0 { // the kernel counts what a group above refuses, too
		v.Summary = fmt.Sprintf("%s could not make another process: the container has no limit of its own, but a group above it has, or the machine", e.program())
		v.Advice = "see pids.max of the control groups above it (--cgroup-parent, the engine's service: TasksMax), kernel.pid_max and kernel.threads-max, or find what makes so many"
	}
	if line != "" {
		v.Summary += ": " + line
	}
	return v, true
}

// diskFull is a program that says that it could not write.
func diskFull(e *Evidence) (Verdict, bool) {
	line := lineWith(e.Lines, "no space left on device", "disk quota exceeded", "enospc", "edquot")
	if line == "" || e.Signal != 0 || e.Code == 0 {
		return Verdict{}, false
	}
	return Verdict{Cause: DiskFull, Summary: fmt.Sprintf("%s ended with exit code %d because a disk was full: %s", e.program(), e.Code, line), Facts: []string{e.how()},
		Advice: "wherry system df shows what takes room, wherry system prune frees what is not needed; where it has a --storage-opt size or a tmpfs, give that more"}, true
}

// lineWith is the last line that has one of the words.
func lineWith(lines []string, words ...string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		lower := strings.ToLower(lines[i])
		for _, w := range words {
			if strings.Contains(lower, w) {
				return strings.TrimSpace(lines[i])
			}
		}
	}
	return ""
}

func (h *Health) text() string {
	output := strings.TrimSpace(h.Output)
	if first, _, more := strings.Cut(output, "\n"); more {
		output = first + " …"
	}
	if output == "" {
		return fmt.Sprintf("the last probe ended with %d and said nothing", h.Code)
	}
	return fmt.Sprintf("the last probe ended with %d: %s", h.Code, output)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// size writes bytes as people write limits.
func size(n uint64) string {
	for _, unit := range []struct {
		bytes uint64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.bytes {
			text := fmt.Sprintf("%.1f", float64(n)/float64(unit.bytes))
			return strings.TrimSuffix(text, ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// took writes a duration with two digits or so.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
