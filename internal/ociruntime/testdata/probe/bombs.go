package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Both bombs are made of bare system calls: a fork has one thread, and nothing of Go's runtime may run in it.

// fork returns 0 in the child; negative: none was made.
func fork() int {
	pid, _, errno := syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	return int(pid)
}

func pause() {
	wait := syscall.Timespec{Nsec: 5e6}
	rawSleep(&wait)
}

// strays makes children that are its parent's, and end at once.
func strays([]string) {
	const cloneParent = 0x8000
	made := 0
	for range 5 {
		switch pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, cloneParent|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); {
		case errno != 0:
		case pid == 0:
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		default:
			made++
		}
	}
	_, _ = os.Stdout.WriteString("made " + string(rune('0'+made)) + "\n")
}

// runner is a process that is never there when one looks: each instance leads a session of its own, forks the next and exits. The first process stays.
func runner([]string) {
	signal.Ignore(syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	pid := fork()
	for ; pid < 0; pid = fork() { // the dead of an earlier bomb may count until somebody has reaped them
		pause()
	}
	if pid > 0 {
		_, _ = os.Stdout.WriteString("gone off\n")
		for {
			time.Sleep(time.Hour)
		}
	}
	for {
		syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		if pid := fork(); pid > 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		} else if pid < 0 {
			pause()
		}
	}
}

// flood: every process forks for ever, and so does each of its children.
func flood([]string) {
	signal.Ignore(syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	for {
		if fork() < 0 {
			pause()
		}
	}
}

// crowd fills the table of processes with sleepers and says so; it goes on filling what becomes free.
func crowd([]string) {
	signal.Ignore(syscall.SIGCHLD, syscall.SIGTERM)
	said := false
	for {
		switch fork() {
		case 0:
			for {
				hour := syscall.Timespec{Sec: 3600}
				rawSleep(&hour)
			}
		case -1:
			if !said {
				_, _ = os.Stdout.WriteString("full\n")
				said = true
			}
			pause()
		}
	}
}
