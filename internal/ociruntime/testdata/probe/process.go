package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"syscall"
)

// ownProcess prints what belongs to the process itself: descriptors, environment, limits, score, keyring, bits of security.
func ownProcess(w io.Writer) {
	for _, line := range openFiles() {
		fmt.Fprintln(w, "descriptor", line)
	}
	env := os.Environ()
	sort.Strings(env)
	for _, kv := range env {
		fmt.Fprintln(w, "environment", kv)
	}
	if f, err := os.Open("/proc/self/limits"); err == nil {
		for s := bufio.NewScanner(f); s.Scan(); {
			fmt.Fprintln(w, "rlimit", strings.Join(strings.Fields(s.Text()), " ")) // the test replaces what is its creator's
		}
		f.Close()
	}
	for _, name := range []string{"oom_score_adj", "personality"} {
		b, err := os.ReadFile("/proc/self/" + name)
		fmt.Fprintln(w, name, strings.TrimSpace(string(b)), plainOrNone(err))
	}
	serial, _, errno := syscall.Syscall(keyctlNumber, 0 /* GET_KEYRING_ID */, ^uintptr(2) /* the session's */, 0)
	if errno != 0 {
		fmt.Fprintln(w, "session keyring", errno)
	} else {
		fmt.Fprintln(w, "session keyring", int32(serial))
	}
	for _, o := range []struct {
		name   string
		option uintptr
	}{{"securebits", 27}, {"dumpable", 3}} {
		bits, _, _ := syscall.Syscall(syscall.SYS_PRCTL, o.option, 0, 0)
		fmt.Fprintln(w, o.name, bits)
	}
	session, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	fmt.Fprintln(w, "leads a session", int(session) == os.Getpid())
}

func plainOrNone(err error) string {
	if err == nil {
		return ""
	}
	return plain(err)
}
