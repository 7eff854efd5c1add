package why

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rule gives a verdict where it fits the evidence.
type rule func(*Evidence) (Verdict, bool)

// rules in the order in which they are tried: what is certain stands before what is likely.
func rules() []rule {
	return []rule{
		notStarted, rebooted, lost, checkpointed, shutDown, unhealthy, hostShortOfMemory, shortOfMemory, asked, forbidden, limited, shortOfProcesses, crashed, signalled,
		finished, childShortOfMemory, innerDeath, diskFull, shells, failed,
	}
}

// Judge names the cause of an end.
func Judge(e Evidence) Verdict {
	for _, r := range rules() {
		if v, ok := r(&e); ok {
			v.Facts = append(v.Facts, e.common(v.Cause)...)
			return v
		}
	}
	return Verdict{Cause: Failed, Summary: fmt.Sprintf("it ended with exit code %d", e.Code)}
}

// common are facts that help with any cause.
func (e *Evidence) common(c Cause) (facts []string) {
	if !e.Started.IsZero() && !e.Ended.IsZero() {
		facts = append(facts, fmt.Sprintf("it ran for %s, until %s", took(e.Ended.Sub(e.Started)), e.Ended.UTC().Format(time.RFC3339)))
	}
	if m := e.Memory; m != nil && m.Limit > 0 && m.Peak > 0 && c != OOM && c != OOMChild && m.Peak >= m.Limit/10*9 {
		facts = append(facts, fmt.Sprintf("its memory came to %s of %s", size(m.Peak), size(m.Limit)))
	}
	if h := e.Health; h != nil && h.Status == "unhealthy" && c != Unhealthy {
		facts = append(facts, "it was unhealthy: "+h.text())
	}
	return facts
}

func notStarted(e *Evidence) (Verdict, bool) {
	if e.Failure == nil {
		return Verdict{}, false
	}
	advice := map[Cause]string{
		NotFound:           "check the command's spelling and the image's PATH; wherry run --rm -it --entrypoint sh IMAGE shows what is there",
		NotExecutable:      "make it executable in the image: RUN chmod +x FILE, or COPY --chmod=755",
		MissingInterpreter: "use an image of the libc that the program was built for (musl: Alpine; glibc: Debian), build it static, or install the interpreter",
		WrongArchitecture:  "use an image for this machine's platform: wherry pull --platform, or build for it",
		ScriptCRLF:         "convert the script with dos2unix, and keep git from doing it again: *.sh text eol=lf in .gitattributes",
		NotAProgram:        "begin a script with #!/bin/sh, or run it by its interpreter",
		NoUser:             "add the user in the image, or give its number: --user 1000",
		NoDirectory:        "make the directory in the image, or give another one with --workdir",
		NotStarted:         "mend what the text names, and start it again",
	}
	v := Verdict{Cause: e.Failure.Kind, Summary: "it could not be started: " + e.Failure.Text, Advice: advice[e.Failure.Kind]}
	if e.Code != 0 {
		v.Facts = []string{fmt.Sprintf("exit code %d", e.Code)}
	}
	return v, true
}

func rebooted(e *Evidence) (Verdict, bool) {
	return Verdict{Cause: Rebooted, Summary: "the machine was restarted, or lost power, while it ran",
		Facts:  []string{"the kernel's boot id is another one than at its start", "how its program ended is not known: the exit code 255 is the engine's"},
		Advice: "give it --restart unless-stopped to have it come back by itself"}, e.Rebooted
}

func lost(e *Evidence) (Verdict, bool) {
	return Verdict{Cause: Lost, Summary: "its supervisor, the process \"oar\" beside it, was killed, and the engine ended what was left of the container",
		Facts:  []string{"nobody was there to see how its program ended: the exit code 137 is the engine's"},
		Advice: "look for who kills processes named oar: an out-of-memory killer of the host (dmesg), or a script; what ran was not at fault"}, e.Lost
}

// checkpointed is an end that belongs to a checkpoint: its processes are on the disk.
func checkpointed(e *Evidence) (Verdict, bool) {
	a := e.lastAsk()
	if a == nil || a.For != AskDump {
		return Verdict{}, false
	}
	start, at := "wherry start --checkpoint "+a.Checkpoint, a.At.UTC().Format(time.RFC3339)
	if a.Dir != "" {
		start += " --checkpoint-dir " + a.Dir
	}
	return Verdict{Cause: Checkpointed, Summary: fmt.Sprintf("%s had it written into the checkpoint %s, and it ended with that", a.By.text(), a.Checkpoint),
		Facts:  []string{fmt.Sprintf("the checkpoint was whole at %s", at)},
		Advice: start + " and its name has it go on from there; wherry start alone begins it anew"}, true
}

// shutDown is an end with the host's.
func shutDown(e *Evidence) (Verdict, bool) {
	a := e.lastAsk()
	if a == nil || a.For != AskShutdown {
		return Verdict{}, false
	}
	v := Verdict{Cause: Stopped, Summary: "the machine was being shut down, and the engine ended it before", Facts: []string{e.how()},
		Advice: "give it --restart unless-stopped to have it come back by itself"}
	if first := &e.Asks[0]; e.Signal == int(unix.SIGKILL) && first.For == a.For && first.Signal != a.Signal {
		v.Summary += fmt.Sprintf(": it had not ended %s after %s, and was killed", took(a.At.Sub(first.At)), Name(first.Signal))
		v.Advice = stubborn(first)
	}
	return v, true
}

func unhealthy(e *Evidence) (Verdict, bool) {
	a := e.lastAsk()
	if a == nil || a.For != AskUnhealthy {
		return Verdict{}, false
	}
	v := Verdict{Cause: Unhealthy, Summary: "its health check failed, and the engine ended it, as --on-unhealthy wants",
		Advice: "run the check by hand with wherry exec; where the program is only slow, give it more --health-timeout, --health-retries or --health-start-period"}
	if h := e.Health; h != nil {
		v.Summary = fmt.Sprintf("its health check failed%s, and the engine ended it, as --on-unhealthy wants: %s", inARow(h.Streak), h.text())
	}
	v.Facts = []string{e.how(), fmt.Sprintf("the engine sent %s at %s", Name(a.Signal), a.At.UTC().Format(time.RFC3339))}
	return v, true
}

func inARow(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" %d times in a row", n)
}

// lastAsk is what was asked last of what can end a container.
func (e *Evidence) lastAsk() *Ask {
	if len(e.Asks) == 0 {
		return nil
	}
	return &e.Asks[len(e.Asks)-1]
}

// sent is the ask for a signal, the last one.
func (e *Evidence) sent(signal int) *Ask {
	for i := len(e.Asks) - 1; i >= 0; i-- {
		if e.Asks[i].Signal == signal {
			return &e.Asks[i]
		}
	}
	return nil
}

// asked is an end that a client of the engine wanted.
func asked(e *Evidence) (Verdict, bool) {
	a := e.lastAsk()
	if a == nil {
		return Verdict{}, false
	}
	if e.Signal == 0 {
		return e.obeyed()
	}
	if a = e.sent(e.Signal); a == nil {
		return Verdict{}, false
	}
	by := a.By.text()
	v := Verdict{Facts: []string{e.how(), fmt.Sprintf("%s asked for %s at %s", by, a.For, a.At.UTC().Format(time.RFC3339))}}
	first := &e.Asks[0]
	switch {
	case a.For == AskKill:
		v.Cause, v.Summary = Killed, fmt.Sprintf("%s ended it with kill (%s)", by, Name(a.Signal))
		v.Advice = "ask who runs that program; it was not the container's own fault, nor a lack of memory"
	case a.For == AskRemove:
		v.Cause, v.Summary = Removed, by+" removed it by force (rm -f)"
	case e.Signal == int(unix.SIGKILL) && first.For == a.For && first.Signal != a.Signal && a.At.Sub(first.At) >= noTime:
		v.Cause = StopTimeout
		v.Summary = fmt.Sprintf("%s asked for %s, it had not ended %s after %s, and the engine killed it (no lack of memory)", by, a.For, took(a.At.Sub(first.At)), Name(first.Signal))
		v.Advice = stubborn(first)
		if first.Handled != nil && !*first.Handled {
			v.Facts = append(v.Facts, fmt.Sprintf("its first process, %s, has no handler for %s, and the kernel gives such a signal to no process with the number 1", e.program(), Name(first.Signal)))
		}
	case e.Signal == int(unix.SIGKILL):
		v.Cause, v.Summary = Stopped, fmt.Sprintf("%s asked for %s without any time to end (-t 0), and the engine killed it", by, a.For)
	default:
		v.Cause, v.Summary = Stopped, fmt.Sprintf("%s asked for %s, and it ended by %s", by, a.For, Name(e.Signal))
	}
	return v, true
}

// noTime is less than any time that somebody gives a container to end.
const noTime = 100 * time.Millisecond

func stubborn(first *Ask) string {
	if first.Handled != nil && !*first.Handled {
		return "run it with --init, have the program handle " + Name(first.Signal) + ", begin its shell script's last line with exec, or name the signal that it knows with --stop-signal"
	}
	return "give it more time with --stop-timeout, or see in its output what keeps it"
}

// obeyed is an end by itself after it was asked to.
func (e *Evidence) obeyed() (Verdict, bool) {
	a := e.lastAsk()
	if !a.ends() {
		return Verdict{}, false
	}
	by := a.By.text()
	v := Verdict{Cause: Stopped, Summary: fmt.Sprintf("%s asked for %s, and it ended with exit code %d, %s after %s", by, a.For, e.Code, took(e.Ended.Sub(a.At)), Name(a.Signal)),
		Facts: []string{fmt.Sprintf("%s sent %s at %s", by, Name(a.Signal), a.At.UTC().Format(time.RFC3339))}}
	if a.For == AskKill {
		v.Cause = Killed
	}
	return v, true
}

// ends says that the signal is one that is sent to end a process.
func (a *Ask) ends() bool {
	switch unix.Signal(a.Signal) {
	case unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH, unix.SIGCHLD:
		return a.For != AskKill // some programs stop by one of them
	}
	return true
}

func finished(e *Evidence) (Verdict, bool) {
	v := Verdict{Cause: Finished, Summary: "its program came to its end, with exit code 0"}
	if m := e.Memory; m != nil && m.Kills > 0 {
		v.Facts = m.facts()
	}
	return v, e.Signal == 0 && e.Code == 0
}

// failed is what is left: a program that says itself that something is wrong.
func failed(e *Evidence) (Verdict, bool) {
	v := Verdict{Cause: Failed, Summary: fmt.Sprintf("%s ended by itself, with exit code %d", e.program(), e.Code),
		Advice: "see its output (wherry logs) for what it had to complain about"}
	if line := telling(e.Lines); line != "" {
		v.Summary += ", after it had said: " + line
		v.Advice = cmp.Or(refusal(line), v.Advice)
	}
	if a := e.lastAsk(); a != nil {
		v.Facts = append(v.Facts, fmt.Sprintf("%s had sent it %s (%s) %s before", a.By.text(), Name(a.Signal), a.For, took(e.Ended.Sub(a.At))))
	}
	if n := e.Code - 128; e.Code > 128 && Name(n) != "" {
		v.Facts = append(v.Facts, fmt.Sprintf("a code over 128 is what a shell ends with when a signal ended the program that it ran: %d is %s", n, Name(n)))
	}
	return v, true
}

func (e *Evidence) program() string {
	if e.Program == "" {
		return "its program"
	}
	return e.Program
}

// how says how the first process ended.
func (e *Evidence) how() string {
	if e.Signal == 0 {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return fmt.Sprintf("exit code %d: ended by %s (signal %d)", e.Code, Name(e.Signal), e.Signal)
}

// refusal is what to do about what the kernel, or what the container may, has refused a program, as its last words say; "" where they speak of
// something else.
func refusal(line string) string {
	says := func(words ...string) bool { return lineWith([]string{line}, words...) != "" }
	switch {
	case says("operation not permitted", "eperm", "are you root"):
		return "the container may not do that: it lacks a capability (--cap-add gives one: NET_ADMIN for networks, SYS_ADMIN for mounts, SYS_PTRACE to look into other processes), " +
			"or seccomp refuses the call (--security-opt seccomp=unconfined, in a trial, tells whether it is that); --strict takes more away"
	case says("read-only file system", "erofs"):
		return "what it writes to is read-only, its root file system by --read-only, or a mount by :ro: give it a --tmpfs or a volume at that place"
	case says("permission denied", "eacces"):
		return "the user that it runs as (-u, or USER of its image) may not use that file: look at its owner and mode there (wherry exec, or wherry run with --entrypoint ls)"
	}
	return ""
}

// telling is the line of output that most likely says what went wrong: the last that speaks of an error, else the last one.
func telling(lines []string) string {
	last := ""
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		if line == "" {
			continue
		}
		if last == "" {
			last = line
		}
		lower := strings.ToLower(line)
		for _, word := range []string{"error", "fatal", "panic", "exception", "failed", "cannot", "can't", "refused", "denied", "not found", "no such",
			"not permitted", "read-only file system"} {
			if strings.Contains(lower, word) {
				return line
			}
		}
	}
	return last
}
