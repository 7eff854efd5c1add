package signals

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T) *Watch {
	t.Helper()
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// start runs a shell script that the test can let go on, and watches it.
func start(t *testing.T, w *Watch, script string) (*exec.Cmd, func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read line; "+script)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	// The kernel closes what is close-on-exec, for which Start waits, before a program has its name.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		if err != nil || time.Now().After(end) {
			t.Fatalf("it is called %q, %v", name, err)
		}
		if string(name) == "sh\n" {
			break
		}
	}
	if err := w.Add(cmd.Process.Pid, 0); err != nil {
		t.Fatal(err)
	}
	return cmd, func() {
		in.Close()
		_ = cmd.Wait()
	}
}

func TestSenders(t *testing.T) {
	w := open(t)
	t.Run("this process", func(t *testing.T) {
		cmd, finish := start(t, w, "sleep 60")
		pid := cmd.Process.Pid
		if s, ok := w.To(pid, 9); ok {
			t.Errorf("before: %+v", s)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		finish()
		s, ok := w.To(pid, 9)
		if !ok || s.Sender.Pid != os.Getpid() || s.Kernel || s.UID != 0 || s.Target.Pid != pid || s.Target.Name != "sh" || s.Parent.Pid != os.Getppid() {
			t.Errorf("%+v, %v", s, ok)
		}
		w.Forget(pid, 0)
		if s, ok := w.To(pid, 9); ok {
			t.Errorf("after it was forgotten: %+v", s)
		}
	})
	t.Run("itself", func(t *testing.T) {
		cmd, finish := start(t, w, "kill -TERM $$")
		finish()
		if s, ok := w.To(cmd.Process.Pid, 15); !ok || s.Sender.Pid != cmd.Process.Pid || s.Kernel {
			t.Errorf("%+v, %v", s, ok)
		}
	})
	t.Run("another program", func(t *testing.T) {
		cmd, finish := start(t, w, "/bin/kill -KILL $$")
		finish()
		if s, ok := w.To(cmd.Process.Pid, 9); !ok || s.Sender.Name != "kill" || s.Parent.Pid != cmd.Process.Pid {
			t.Errorf("%+v, %v", s, ok)
		}
	})
	t.Run("a signal that is ignored is no other's", func(t *testing.T) {
		cmd, finish := start(t, w, "trap '' TERM; kill -TERM $$; exec kill -KILL $$")
		finish()
		if s, ok := w.To(cmd.Process.Pid, 15); ok {
			t.Errorf("%+v", s)
		}
	})
}

func TestFault(t *testing.T) {
	w := open(t)
	cmd, finish := start(t, w, `exec perl -e 'unpack("p", pack("J", 4096))'`)
	finish()
	status := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal })
	if status.Signal() != unix.SIGSEGV {
		t.Fatalf("it ended otherwise: %v", cmd.ProcessState)
	}
	s, ok := w.To(cmd.Process.Pid, 11)
	if !ok || !s.Kernel || s.Address != 4096 || s.Sender.Name != "perl" || s.Call != -1 {
		t.Errorf("%+v, %v", s, ok)
	}
}

// TestParse: what nobody has written is no signal.
func TestParse(t *testing.T) {
	if s, err := parse(make([]byte, slotSize)); err == nil {
		t.Errorf("%+v", s)
	}
	if s, err := parse(nil); err == nil {
		t.Errorf("%+v", s)
	}
}

// FuzzLayout reads type information that may be anything.
func FuzzLayout(f *testing.F) {
	f.Add([]byte{0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 4, 0, 0, 0, 0, 0, 'a', 0, 0})
	f.Add([]byte{0x9f, 0xeb})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := readLayout(bytes.NewReader(b)); err == nil && l.tgid == l.comm {
			t.Errorf("%+v", l)
		}
	})
}

// BenchmarkOpen is the engine's start's, on a goroutine of its own.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		w, err := Open()
		if err != nil {
			b.Fatal(err)
		}
		w.Close()
	}
}

// BenchmarkSignal is what a signal costs that nobody has asked about.
func BenchmarkSignal(b *testing.B) {
	cmd := exec.Command("sh", "-c", "trap : USR1; while :; do read x || exit; done")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	send := func(b *testing.B) {
		for b.Loop() {
			_ = cmd.Process.Signal(unix.SIGUSR1)
		}
	}
	b.Run("without", send)
	w, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("with", send)
	w.Close()
	in.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
