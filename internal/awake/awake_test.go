package awake

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestAfter(t *testing.T) {
	for _, d := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, time.Second, 10*time.Second + 7, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			begun, called := time.Now(), make(chan time.Duration, 1)
			After(d, func() { called <- time.Since(begun) })
			if took := <-called; took != d {
				t.Errorf("a limit of %s passed after %s", d, took)
			}
		})
	}
}

func TestStop(t *testing.T) {
	for _, after := range []time.Duration{0, 3 * time.Second, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			called := false
			l := After(10*time.Second+1, func() { called = true })
			time.Sleep(after)
			l.Stop()
			time.Sleep(time.Minute)
			if called {
				t.Errorf("it was stopped after %s, and passed", after)
			}
		})
	}
}

// TestStandstill: a process that is stopped for longer than a limit of its own has nearly all of it left when it goes on.
func TestStandstill(t *testing.T) {
	const variable, limit = "WHERRY_TEST_AWAKE", 2 * time.Second
	if os.Getenv(variable) != "" {
		standing(limit)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStandstill$")
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	say := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	if said := say(); said != "begun" {
		t.Fatal(said)
	}
	_ = cmd.Process.Signal(unix.SIGSTOP)
	time.Sleep(limit + limit/4)
	_ = cmd.Process.Signal(unix.SIGCONT)
	if said := say(); said != "worked" {
		t.Errorf("a process stood still for longer than its limit: it %s before it could work", said)
	}
	_ = cmd.Wait()
}

// standing works for a quarter of the limit, in short steps that a standstill makes none of.
func standing(limit time.Duration) {
	After(limit, func() { _, _ = os.Stdout.WriteString("was late\n"); os.Exit(0) })
	_, _ = os.Stdout.WriteString("begun\n")
	for range 10 {
		time.Sleep(limit / 40)
	}
	_, _ = os.Stdout.WriteString("worked\n")
	os.Exit(0)
}
