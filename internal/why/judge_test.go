package why

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestJudge(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	docker, no, call := &Client{Pid: 7, Program: "docker"}, false, 41
	kill, term := int(unix.SIGKILL), int(unix.SIGTERM)
	stop := []Ask{{For: AskStop, Signal: term, At: at, By: docker, Handled: &no}, {For: AskStop, Signal: kill, At: at.Add(time.Second), By: docker}}
	ended := func(code, signal int) Evidence {
		return Evidence{Started: at.Add(-time.Minute), Ended: at.Add(time.Second), Code: code, Signal: signal, Program: "app"}
	}
	with := func(e Evidence, fn func(*Evidence)) Evidence { fn(&e); return e }
	killed := ended(137, kill)
	for _, row := range []struct {
		name string
		e    Evidence
		want Cause
		says string // in the summary
	}{
		{"code 0", ended(0, 0), Finished, "exit code 0"},
		{"code 1", with(ended(1, 0), func(e *Evidence) { e.Lines = []string{"hello", "ERROR: no database", "bye"} }), Failed, "ERROR: no database"},
		{"from outside", killed, HostKilled, "not known"},
		{"from outside, known", with(killed, func(e *Evidence) { e.Sender = &Sender{Signal: kill, From: FromHost, Pid: 9, Program: "kill"} }), HostKilled, "kill on the host (pid 9, user 0)"},
		{"from a neighbour", with(ended(143, term), func(e *Evidence) { e.Sender = &Sender{Signal: term, From: FromInside, Pid: 9, Program: "sh"} }), InsideKilled, "sh (pid 9"},
		{"from nobody knows", with(killed, func(e *Evidence) { e.HostPids = true }), Signalled, "not known"},
		{"kill", with(killed, func(e *Evidence) { e.Asks = []Ask{{For: AskKill, Signal: kill, By: docker}} }), Killed, "docker (pid 7, user 0)"},
		{"kill, and the client is gone", with(killed, func(e *Evidence) { e.Asks = []Ask{{For: AskKill, Signal: kill, By: &Client{}}} }), Killed, "a client of the engine"},
		{"stop", with(ended(143, term), func(e *Evidence) { e.Asks = stop[:1] }), Stopped, "ended by SIGTERM"},
		{"stop, handled", with(ended(3, 0), func(e *Evidence) { e.Asks = stop[:1] }), Stopped, "exit code 3, 1s after SIGTERM"},
		{"stop, ignored", with(killed, func(e *Evidence) { e.Asks = stop }), StopTimeout, "not ended 1s after SIGTERM"},
		{"restart without time", with(killed, func(e *Evidence) {
			e.Asks = []Ask{{For: AskRestart, Signal: term, At: at, By: docker}, {For: AskRestart, Signal: kill, At: at.Add(time.Millisecond), By: docker}}
		}), Stopped, "asked for restart without any time"},
		{"stop without time", with(killed, func(e *Evidence) { e.Asks = stop[1:] }), Stopped, "-t 0"},
		{"a signal that does not end, before", with(ended(1, 0), func(e *Evidence) { e.Asks = []Ask{{For: AskKill, Signal: int(unix.SIGHUP), By: docker}} }), Failed, "exit code 1"},
		{"rm -f", with(killed, func(e *Evidence) { e.Asks = []Ask{{For: AskRemove, Signal: kill, By: docker}} }), Removed, "rm -f"},
		{"shutdown", with(ended(3, 0), func(e *Evidence) { e.Asks = []Ask{{For: AskShutdown, Signal: term, At: at}} }), Stopped, "the machine was being shut down, and the engine ended it before"},
		{"shutdown, ignored", with(killed, func(e *Evidence) {
			e.Asks = []Ask{{For: AskShutdown, Signal: term, At: at}, {For: AskShutdown, Signal: kill, At: at.Add(time.Second)}}
		}), Stopped, "it had not ended 1s after SIGTERM, and was killed"},
		{"checkpoint", with(killed, func(e *Evidence) {
			e.Asks = append(stop[:1:1], Ask{For: AskDump, At: at, By: docker, Checkpoint: "before"})
		}), Checkpointed, "docker (pid 7, user 0) had it written into the checkpoint before"},
		{"unhealthy", with(killed, func(e *Evidence) {
			e.Asks = []Ask{{For: AskUnhealthy, Signal: kill}}
			e.Health = &Health{Status: "unhealthy", Streak: 3, Code: 1, Output: "no answer\nmore"}
		}), Unhealthy, "3 times in a row, and the engine ended it, as --on-unhealthy wants: the last probe ended with 1: no answer"},
		{"memory", with(killed, func(e *Evidence) {
			e.Memory = &Memory{Limit: 64 << 20, Peak: 64 << 20, Kills: 1, Victim: "app", VictimPid: 5, First: true}
		}), OOM, "limit of 64 MiB"},
		{"memory, while it is stopped", with(killed, func(e *Evidence) { e.Asks, e.Memory = stop, &Memory{Kills: 1, Victim: "child"} }), StopTimeout, ""},
		{"memory, another process", with(ended(3, 0), func(e *Evidence) { e.Memory = &Memory{Limit: 1 << 30, Kills: 2, Victim: "worker"} }), OOMChild, "worker"},
		{"memory, another process, and all is well", with(ended(0, 0), func(e *Evidence) { e.Memory = &Memory{Kills: 2, Victim: "worker"} }), Finished, ""},
		{"memory of the machine", with(killed, func(e *Evidence) { e.Memory = &Memory{Kills: 1, Host: true, Victim: "app"} }), HostOOM, "the machine was out of memory"},
		{"segfault", with(ended(139, int(unix.SIGSEGV)), func(e *Evidence) { e.Sender = &Sender{Signal: 11, From: FromKernel, Address: 16} }), Crashed, "address 0x10"},
		{"abort", ended(134, int(unix.SIGABRT)), Crashed, "abort"},
		{"segfault of a child", ended(139, 0), ChildCrashed, "a program that app ran"},
		{"segfault of a child, known", with(ended(139, 0), func(e *Evidence) {
			e.Inner = &Inner{Pid: 8, Program: "worker", By: Sender{Signal: 11, From: FromKernel}}
		}), ChildCrashed, "worker (pid 8)"},
		{"kill of a child", with(ended(137, 0), func(e *Evidence) {
			e.Inner = &Inner{Pid: 8, Program: "worker", By: Sender{Signal: kill, From: FromHost, Pid: 9, Program: "kill"}}
		}), ChildKilled, "by kill on the host (pid 9, user 0)"},
		{"a signal for another end", with(ended(137, 0), func(e *Evidence) { e.Inner = &Inner{By: Sender{Signal: 11}} }), Failed, "137"},
		{"a forbidden call", with(ended(159, int(unix.SIGSYS)), func(e *Evidence) { e.Sender = &Sender{Signal: 31, From: FromKernel, Call: &call} }), Seccomp, "number 41"},
		{"processor time", ended(152, int(unix.SIGXCPU)), Limited, "processor time"},
		{"disk", with(ended(1, 0), func(e *Evidence) { e.Lines = []string{"write: No space left on device", "bye"} }), DiskFull, "No space left"},
		{"processes", with(ended(2, 0), func(e *Evidence) {
			e.Processes, e.Lines = &Processes{Limit: 5, Refused: 3}, []string{"sh: can't fork"}
		}), ProcessLimit, "limit of 5 processes"},
		{"processes of a group above", with(ended(2, 0), func(e *Evidence) {
			e.Processes, e.Lines = &Processes{Refused: 3}, []string{"sh: can't fork"}
		}), ProcessLimit, "app could not make another process: the container has no limit of its own, but a group above it has"},
		{"a shell's 127", with(ended(127, 0), func(e *Evidence) { e.Lines = []string{"sh: nosuch: not found"} }), NotFound, "nosuch"},
		{"not started", Evidence{Ended: at, Code: 126, Failure: &Failure{Kind: WrongArchitecture, Text: "it is a program for arm64"}}, WrongArchitecture, "arm64"},
		{"restart of the machine", with(ended(255, 0), func(e *Evidence) { e.Rebooted = true }), Rebooted, "restarted"},
		{"no supervisor", with(killed, func(e *Evidence) { e.Lost = true }), Lost, "supervisor"},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := Judge(row.e)
			if v.Cause != row.want || !strings.Contains(v.Summary, row.says) {
				t.Errorf("%s: %s\n%q; not %s with %q", v.Cause, v.Summary, v.Facts, row.want, row.says)
			}
			if again := Judge(row.e); again.Summary != v.Summary || len(again.Facts) != len(v.Facts) {
				t.Errorf("judged again: %+v", again)
			}
		})
	}
}

// TestJudgeAnything: any evidence gives a verdict with a sentence.
func TestJudgeAnything(t *testing.T) {
	for code := range 256 {
		for signal := range 65 {
			if v := Judge(Evidence{Code: code, Signal: signal}); v.Cause == "" || v.Summary == "" {
				t.Fatalf("code %d, signal %d: %+v", code, signal, v)
			}
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 bytes", 1023: "1023 bytes", 24 << 20: "24 MiB", 3 << 29: "1.5 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}

func TestCheckpointsAreStartedAgain(t *testing.T) {
	for dir, want := range map[string]string{"": "wherry start --checkpoint before and its name", "/srv/c": "wherry start --checkpoint before --checkpoint-dir /srv/c and its name"} {
		v := Judge(Evidence{Asks: []Ask{{For: AskDump, Checkpoint: "before", Dir: dir}}})
		if !strings.HasPrefix(v.Advice, want) {
			t.Errorf("%q: %s", dir, v.Advice)
		}
	}
}

// TestRefusalsAreHinted: who is told that it may not is told by what, and what gives leave.
func TestRefusalsAreHinted(t *testing.T) {
	for line, want := range map[string]string{
		"ip: RTNETLINK answers: Operation not permitted": "--cap-add",
		"mount: permission denied (are you root?)":       "--cap-add",
		"Error: EPERM: operation not permitted, chown":   "--cap-add",
		"touch: /x: Read-only file system":               "--tmpfs",
		"cat: can't open '/secret': Permission denied":   "owner and mode",
		"no such table": "wherry logs",
	} {
		e := Evidence{Code: 1, Lines: []string{"starting", line, "bye"}}
		if v := Judge(e); v.Cause != Failed || !strings.Contains(v.Advice, want) || !strings.Contains(v.Summary, line) {
			t.Errorf("%s: %+v", line, v)
		}
	}
}
