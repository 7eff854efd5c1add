package task

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// follow collects what is told of a task until its end.
func follow(t *testing.T, tk *Task) (told chan OOM, ended chan Exit) {
	t.Helper()
	told, ended = make(chan OOM, 16), make(chan Exit, 1)
	go func() {
		if exit, err := tk.Follow(t.Context(), func(o OOM) { told <- o }); err == nil {
			ended <- exit
		}
	}()
	return told, ended
}

// TestShortageIsToldAtOnce: a process that is killed for want of memory is news while its container lives, once, also over lives of the engine.
func TestShortageIsToldAtOnce(t *testing.T) {
	o := options(t, oar(t), "short", "sh", "-c", "while read x; do tail /dev/zero; echo killed $?; done; exit 3")
	o.Stdin = true
	limit(&o, 24<<20, 50)
	tk := run(t, o)
	stdin, err := tk.Stdin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	told, ended := follow(t, tk)
	more := func() {
		if _, err := stdin.WriteString("x\n"); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(3) { // when the third is told, the second has been noted
		more()
		select {
		case o := <-told:
			if o.Kills != n+1 || o.Victim != "tail" {
				t.Fatalf("%+v", o)
			}
		case exit := <-ended:
			t.Fatalf("it ended: %+v", exit)
		case <-time.After(20 * time.Second):
			t.Fatal("nobody is told of the kill")
		}
	}
	tk.Close()
	back, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	told, ended = follow(t, back)
	more()
	for o := range told { // the third may be told again: perhaps the life before ended before it had it noted
		if o.Kills < 3 || o.Kills > 4 {
			t.Fatalf("%+v", o)
		}
		if o.Kills == 4 {
			break
		}
	}
	if err := back.CloseStdin(t.Context()); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if exit := <-ended; exit.Code != 3 || !exit.OOMKilled || exit.OOMUntold {
		t.Fatalf("%+v", exit)
	}
	if len(told) > 0 {
		t.Fatalf("told again: %+v", <-told)
	}
}

// TestExecsOutliveTheEngine: what was started by exec goes on without its client, which has its streams, and its exit code is kept.
func TestExecsOutliveTheEngine(t *testing.T) {
	o := options(t, oar(t), "outlive", "sleep", "1000")
	tk := run(t, o)
	exec := func(id, script string, terminal bool) *Process {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		t.Cleanup(func() { r.Close() })
		p, err := tk.Exec(t.Context(), ExecOptions{ID: id, Note: []byte(`"about ` + id + `"`), Out: w, Err: w,
			Process: &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: terminal}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		if terminal {
			p.Console.Close()
		}
		r.Close() // as the kernel does with a dead engine's
		return p
	}
	if code, err := exec("known", "exit 5", false).Wait(t.Context()); code != 5 || err != nil {
		t.Fatalf("%d %v", code, err)
	}
	// More than a pipe or a terminal holds, after the engine has gone.
	much := "sleep 0.2; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; "
	exec("pipes", much+"exit 6", false)
	exec("terminal", much+"exit 7", true)
	exec("runs", "sleep 1000", false)
	tk.Close()
	back, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	until(t, "two have ended", func() bool {
		execs, err := back.Execs(t.Context())
		if err != nil || len(execs) != 4 {
			t.Fatalf("%v %+v", err, execs)
		}
		ended := 0
		for _, e := range execs {
			switch {
			case string(e.Note) != `"about `+e.ID+`"`:
				t.Fatalf("the note of %s is %s", e.ID, e.Note)
			case e.ID == "known" && (e.Process != nil || e.Code != 5 || !e.Told), e.ID == "runs" && e.Process == nil:
				t.Fatalf("%+v", e)
			case e.ID == "pipes" && e.Process == nil && e.Code == 6 && !e.Told, e.ID == "terminal" && e.Process == nil && e.Code == 7:
				ended++
			case (e.ID == "pipes" || e.ID == "terminal") && e.Process == nil:
				t.Fatalf("%+v", e)
			}
		}
		return ended == 2
	})
	execs, _ := back.Execs(t.Context())
	for _, e := range execs {
		if e.ID != "runs" {
			continue
		}
		if err := e.Process.Kill(t.Context(), int(syscall.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if code, err := e.Process.Wait(t.Context()); code != 143 || err != nil {
			t.Fatalf("%d %v", code, err)
		}
	}
	// The container ends, and its shim with it: all is written down.
	back.Close()
	if err := syscall.Kill(tk.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the end is written down", func() bool { _, err := os.Stat(o.Dir + "/exit.json"); return err == nil })
	last, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if execs, err := last.Execs(t.Context()); err != nil || len(execs) != 4 || execs[0].Process != nil {
		t.Fatalf("%v %+v", err, execs)
	}
}

// TestFailingExecsLeaveNothing: neither descriptors nor processes, in the shim and here.
func TestFailingExecsLeaveNothing(t *testing.T) {
	o := options(t, oar(t), "failing", "sleep", "1000")
	tk := run(t, o)
	shim := parent(t, tk.Pid())
	count := func(pid int) int {
		list, err := os.ReadDir("/proc/" + itoa(pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	threads := func(pid int) int {
		list, _ := os.ReadDir("/proc/" + itoa(pid) + "/task")
		return len(list)
	}
	one := func(i int) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		program := &specs.Process{Args: []string{"no-such-program"}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: i%3 == 1}
		switch i % 3 {
		case 2:
			program.Args, program.Cwd = []string{"true"}, "/no/such/folder"
		}
		p, err := tk.Exec(t.Context(), ExecOptions{ID: itoa(i), Note: []byte("{}"), Process: program, In: r, Out: w, Err: w})
		if err == nil {
			_, _ = p.Wait(t.Context())
			t.Fatalf("exec %d has started", i)
		}
	}
	for i := range 10 {
		one(i)
	}
	before, own, busy := count(shim), count(os.Getpid()), threads(shim)
	for i := range 300 {
		one(10 + i)
	}
	until(t, "as many descriptors as before", func() bool { return count(shim) <= before && count(os.Getpid()) <= own })
	if now := threads(shim); now > busy+8 {
		t.Errorf("the shim has %d threads, before %d", now, busy)
	}
	if execs, err := tk.Execs(t.Context()); err != nil || len(execs) != 0 {
		t.Errorf("%v %d execs are remembered that never ran", err, len(execs))
	}
	if pids := members(t, o); len(pids) != 1 {
		t.Errorf("in the group: %v", pids)
	}
}

// TestExecsLeaveNothing: what ran has its descriptors closed and its last ones remembered, no more.
func TestExecsLeaveNothing(t *testing.T) {
	o := options(t, oar(t), "leaving", "sleep", "1000")
	tk := run(t, o)
	shim := parent(t, tk.Pid())
	list := func() int { l, _ := os.ReadDir("/proc/" + itoa(shim) + "/fd"); return len(l) }
	one := func(i int, script string) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p, err := tk.Exec(t.Context(), ExecOptions{ID: itoa(i), Note: []byte("{}"), Out: w, Err: w,
			Process: &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: i%2 == 1}})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		if p.Console != nil {
			p.Console.Close()
		}
	}
	one(0, "true")
	one(1, "true")
	before := list()
	one(2, "sleep 1000 & echo left behind") // keeps its two outlets for as long as it lives
	for i := range 60 {
		one(3+i, "echo x; exit 1")
	}
	until(t, "as many descriptors as before", func() bool { return list() <= before+2 })
	execs, err := tk.Execs(t.Context())
	if err != nil || len(execs) != 32 {
		t.Errorf("%v %d execs are remembered", err, len(execs))
	}
}
