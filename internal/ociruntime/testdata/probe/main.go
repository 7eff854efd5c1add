// Command probe runs inside containers under test and prints what it sees, or misbehaves as told.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	commands := map[string]func([]string){"lie": lie, "fds": fds, "posture": posture, "bomb": bomb, "eat": eat, "zombies": zombies, "runner": runner, "flood": flood, "crowd": crowd, "strays": strays,
		"overwrite": overwrite, "agent": agent, "mount-agents": mountAgents, "keyring": keyring, "neighbours": neighbours, "processes": processes, "thread": thread}
	commands["swap"], commands["scarce"] = swap, scarce
	commands[os.Args[1]](os.Args[2:])
}

// lie has itself traced by its parent and stops: waitid(2) tells the parent of that as if it were an end.
func lie([]string) {
	runtime.LockOSThread()
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	fmt.Println("child", child != nil, err) // before any signal stops this, also those by which Go's scheduler interrupts what takes long
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PTRACE, syscall.PTRACE_TRACEME, 0, 0); errno != 0 {
		fmt.Println("traceme:", errno)
		os.Exit(3)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	select {}
}

// fds prints the open descriptors and what they are.
func fds([]string) {
	for _, line := range openFiles() {
		fmt.Println(line)
	}
}

func openFiles() (out []string) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	own := fmt.Sprint(dir.Fd())
	sort.Strings(names)
	for _, n := range names {
		to, _ := os.Readlink("/proc/self/fd/" + n)
		if n == own || strings.Contains(to, "eventpoll") || strings.Contains(to, "eventfd") || strings.Contains(to, "/cpu.") { // the Go runtime's
			continue
		}
		kind, _, _ := strings.Cut(to, ":")
		out = append(out, n+" "+kind)
	}
	return out
}

// bomb forks as fast as it may, and each of its children does.
func bomb([]string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for {
		p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		_ = p.Release()
	}
}

// eat takes memory until it is killed.
func eat([]string) {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		_ = all
	}
}

// thread changes directory in a thread of its own and prints whether that has outlived it.
func thread([]string) {
	runtime.LockOSThread() // the other one is not the first, which stays as long as the process does
	tid, failed := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		failed <- syscall.Chdir("/tmp")
	}()
	task := fmt.Sprintf("/proc/self/task/%d", <-tid)
	for {
		select {
		case err := <-failed:
			fmt.Println("it went on:", err)
			return
		case <-time.After(time.Millisecond):
		}
		if _, err := os.Stat(task); os.IsNotExist(err) {
			fmt.Println("it is gone, the process lives")
			return
		}
	}
}

// zombies prints how many there are.
func zombies([]string) {
	n := 0
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range list {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), ") Z ") {
			n++
		}
	}
	fmt.Println(n)
}
