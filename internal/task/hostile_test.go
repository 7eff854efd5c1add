package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if g, err := cgroup.Open("/wherry-task-test"); err == nil {
		_ = g.Delete()
	}
	os.Exit(code)
}

// probe builds the program that misbehaves into a container's layer.
func probe(t *testing.T, o CreateOptions) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", filepath.Join(o.Rootfs.Lower[0], "bin/probe"), "../ociruntime/testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
}

func run(t *testing.T, o CreateOptions) *Task {
	t.Helper()
	tk := create(t, o)
	t.Cleanup(func() {
		if err := tk.Delete(context.Background()); err != nil {
			t.Error(err)
		}
		if g, err := cgroup.Open(o.Spec.Linux.CgroupsPath); err == nil {
			for _, dir := range g.Dirs() {
				if _, err := os.Stat(dir); err == nil {
					t.Errorf("%s is left", dir)
				}
			}
		}
	})
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tk
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func members(t *testing.T, o CreateOptions) []int {
	t.Helper()
	g, err := cgroup.Open(o.Spec.Linux.CgroupsPath)
	if err != nil {
		t.Fatal(err)
	}
	pids, _ := g.Procs()
	return pids
}

func limit(o *CreateOptions, memory, pids int64) {
	o.Spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}
	if memory > 0 {
		o.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &memory}
	}
}

// TestTracedStopIsNoEnd: a first process that has itself traced by its parent and stops is not dead, nor is what it has started.
func TestTracedStopIsNoEnd(t *testing.T) {
	o := options(t, oar(t), "lie", "probe", "lie")
	probe(t, o)
	tk := run(t, o)
	until(t, "the process has stopped", func() bool {
		b, _ := os.ReadFile("/proc/" + itoa(tk.Pid()) + "/status")
		return strings.Contains(string(b), "\nState:\tt (tracing stop)") || strings.Contains(string(b), "\nState:\tT")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if exit, err := tk.Wait(ctx); err == nil {
		t.Fatalf("a stopped process is said to have ended: %+v", exit)
	}
	if pids := members(t, o); len(pids) != 2 {
		t.Fatalf("in the group: %v", pids)
	}
	if err := tk.Kill(t.Context(), int(syscall.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 137 || exit.Signal != 9 {
		t.Fatalf("%v %+v", err, exit)
	}
	if pids := members(t, o); len(pids) != 0 {
		t.Fatalf("left: %v", pids)
	}
}

// TestForkBombEnds: what forks faster than anybody lists is killed as a whole, and the limit of processes holds meanwhile.
func TestForkBombEnds(t *testing.T) {
	o := options(t, oar(t), "bomb", "probe", "bomb")
	probe(t, o)
	limit(&o, 0, 200)
	tk := run(t, o)
	until(t, "the bomb grows", func() bool { return len(members(t, o)) > 20 })
	if err := tk.Kill(t.Context(), int(syscall.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 137 {
		t.Fatalf("%v %+v", err, exit)
	}
	if pids := members(t, o); len(pids) != 0 {
		t.Fatalf("left: %v", pids)
	}
}

func TestOOMNamesItsVictim(t *testing.T) {
	o := options(t, oar(t), "oom-first", "tail", "/dev/zero")
	limit(&o, 24<<20, 50)
	exit, err := run(t, o).Wait(t.Context())
	if err != nil || exit.Code != 137 || !exit.OOMKilled || exit.OOMVictim != "tail" {
		t.Fatalf("%v %+v", err, exit)
	}
	// The victim may be another than the first process, which goes on.
	o = options(t, oar(t), "oom-other", "sh", "-c", "tail /dev/zero; echo status $?; exit 4")
	limit(&o, 24<<20, 50)
	exit, err = run(t, o).Wait(t.Context())
	if err != nil || exit.Code != 4 || !exit.OOMKilled || exit.OOMVictim != "tail" {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); !strings.Contains(out, "status 137") {
		t.Fatalf("log: %q", out)
	}
	o = options(t, oar(t), "oom-none", "sh", "-c", "kill -9 $$; exit 6")
	limit(&o, 24<<20, 50)
	if exit, err = run(t, o).Wait(t.Context()); err != nil || exit.OOMKilled || exit.OOMVictim != "" {
		t.Fatalf("%v %+v", err, exit)
	}
}

// TestExecIntoFullMemory: an exec into a container without memory to spare costs at most a process of the container, never its shim.
func TestExecIntoFullMemory(t *testing.T) {
	o := options(t, oar(t), "full", "sleep", "1000")
	limit(&o, 1<<20, 50)
	tk := run(t, o)
	shim := parent(t, tk.Pid())
	for i := range 10 {
		p, err := tk.Exec(t.Context(), ExecOptions{ID: itoa(i), Process: &specs.Process{Args: []string{"tail", "/dev/zero"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
		if err != nil {
			continue
		}
		if _, err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(shim, 0); err != nil {
		t.Fatalf("the shim is gone: %v", err)
	}
	_ = tk.Kill(t.Context(), int(syscall.SIGKILL), true)
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Lost {
		t.Fatalf("%v %+v", err, exit)
	}
}

// TestOOMScoreIsNotTheShims: the shim guards itself; its containers do not inherit that.
func TestOOMScoreIsNotTheShims(t *testing.T) {
	o := options(t, oar(t), "score", "sleep", "1000")
	tk := run(t, o)
	read := func(pid int) string {
		b, _ := os.ReadFile("/proc/" + itoa(pid) + "/oom_score_adj")
		return strings.TrimSpace(string(b))
	}
	if got, want := read(tk.Pid()), read(os.Getpid()); got != want {
		t.Errorf("the container's score is %s, the engine's %s", got, want)
	}
	o = options(t, oar(t), "score-own", "sleep", "1000")
	adj := 300
	o.Spec.Process.OOMScoreAdj = &adj
	tk = run(t, o)
	if got := read(tk.Pid()); got != "300" {
		t.Errorf("the container's score is %s", got)
	}
	if got := read(parent(t, tk.Pid())); got == "300" {
		t.Error("the shim has its container's score")
	}
}

func TestStdin(t *testing.T) {
	o := options(t, oar(t), "stdin", "sh", "-c", "cat; echo end")
	o.Stdin = true
	tk := run(t, o)
	in, err := tk.Stdin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("given\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := tk.Wait(ctx); err == nil {
		t.Fatal("a client that goes has ended the container's input")
	}
	if err := tk.CloseStdin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); out != "given\nend\n" {
		t.Fatalf("log: %q", out)
	}
}

// TestExecStreamsBlock: Go's pipes do not block, which is the engine's affair; a program that reads before there is something waits.
func TestExecStreamsBlock(t *testing.T) {
	tk := run(t, options(t, oar(t), "exec-block", "sleep", "1000"))
	in, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	heard, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := tk.Exec(t.Context(), ExecOptions{ID: "x", In: in, Out: out, Err: out, Process: &specs.Process{Cwd: "/", Env: []string{"PATH=/bin"},
		Args: []string{"sh", "-c", "grep flags /proc/self/fdinfo/0 /proc/self/fdinfo/1 /proc/self/fdinfo/2; exec cat"}}})
	in.Close()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	flags := make([]byte, 4096)
	n, _ := heard.Read(flags)
	for line := range strings.Lines(string(flags[:n])) {
		var octal int
		if _, err := fmt.Sscanf(strings.Fields(line)[1], "%o", &octal); err != nil || octal&syscall.O_NONBLOCK != 0 {
			t.Errorf("%q: %v", line, err)
		}
	}
	_, _ = io.WriteString(say, "late\n")
	say.Close()
	if rest, _ := io.ReadAll(heard); n == 0 || !strings.HasSuffix(string(rest), "late\n") {
		t.Errorf("%q, then %q", flags[:n], rest)
	}
	heard.Close()
	if code, err := p.Wait(t.Context()); code != 0 || err != nil {
		t.Fatalf("%d %v", code, err)
	}
}

func TestExecTerminal(t *testing.T) {
	o := options(t, oar(t), "exec-tty", "sleep", "1000")
	tk := run(t, o)
	p, err := tk.Exec(t.Context(), ExecOptions{ID: "x", Process: &specs.Process{Args: []string{"sh", "-c", "tty; stty size; read x; stty size; echo got $x; id -u"}, Cwd: "/",
		Env: []string{"PATH=/bin"}, Terminal: true, ConsoleSize: &specs.Box{Height: 11, Width: 22}, User: specs.User{UID: 7, GID: 8}}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Console == nil {
		t.Fatal("no console")
	}
	if err := p.Resize(t.Context(), 44, 55); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Console.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(p.Console) // ends with EIO when the last process has closed it
	if code, err := p.Wait(t.Context()); err != nil || code != 0 {
		t.Fatalf("%v, code %d", err, code)
	}
	p.Console.Close()
	for _, want := range []string{"/dev/pts/0", "44 55", "got typed", "\n7\r"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func TestKillReachesAll(t *testing.T) {
	o := options(t, oar(t), "all", "sh", "-c", "trap 'echo first' TERM; sh -c 'trap \"echo second; exit\" TERM; echo ready; while :; do sleep 0.01; done' & wait; wait; exit 5")
	tk := run(t, o)
	until(t, "ready", func() bool { return strings.Contains(peek(t, o), "ready") })
	if err := tk.Kill(t.Context(), int(syscall.SIGTERM), true); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); !strings.Contains(out, "first") || !strings.Contains(out, "second") {
		t.Fatalf("log: %q", out)
	}
}

// TestCreatedAndNeverStarted: Delete takes a container that waits at its gate.
func TestCreatedAndNeverStarted(t *testing.T) {
	o := options(t, oar(t), "never", "sh", "-c", "echo ran")
	tk := create(t, o)
	pid := tk.Pid()
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Fatal("the process is left")
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Started || exit.Code != 137 {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); out != "" {
		t.Fatalf("it ran: %q", out)
	}
}

// TestShimDiesBeforeStart: a process at the gate must not go on when the one who opens it is gone.
func TestShimDiesBeforeStart(t *testing.T) {
	o := options(t, oar(t), "gate", "sh", "-c", "echo ran")
	tk := create(t, o)
	if err := syscall.Kill(parent(t, tk.Pid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || !exit.Lost || exit.Started {
		t.Fatalf("%v %+v", err, exit)
	}
	until(t, "the process is gone", func() bool { return len(members(t, o)) == 0 })
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := peek(t, o); out != "" {
		t.Fatalf("it ran: %q", out)
	}
}

// TestEngineBinaryCannotBeWritten: class 1 of the field's escapes (CVE-2019-5736). A container runs /proc/self/exe, which is the
// runtime; whoever opens that by /proc/PID/exe and waits until nobody runs it any more ("text file busy") must not be able to write.
func TestEngineBinaryCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "oar")
	binary, err := os.ReadFile(oar(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	o := options(t, path, "overwrite", "/proc/self/exe", "hello", "--wait")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var held []*os.File
	for _, pid := range []int{tk.Pid(), parent(t, tk.Pid())} {
		f, err := os.Open("/proc/" + itoa(pid) + "/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		held = append(held, f)
	}
	if b, err := io.ReadAll(held[0]); err != nil || !bytes.Equal(b, binary) {
		t.Fatalf("the container does not run the runtime's binary, the test proves nothing: %v", err)
	}
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range held {
		until(t, "nobody runs the binary", func() bool {
			w, err := os.OpenFile("/proc/self/fd/"+itoa(int(f.Fd())), os.O_WRONLY, 0)
			if err == nil {
				w.Close()
				t.Fatal("the engine's binary can be written to")
			}
			return !errors.Is(err, syscall.ETXTBSY)
		})
		if _, err := os.OpenFile("/proc/self/fd/"+itoa(int(f.Fd())), os.O_WRONLY, 0); !errors.Is(err, syscall.EROFS) {
			t.Errorf("open the engine's binary for writing: %v", err)
		}
	}
}

// TestDeathOnTheWayToTheGate: whether a start fails in the shim or in the child, quickly or late, the reason is told, by Create or Start.
func TestDeathOnTheWayToTheGate(t *testing.T) {
	path := oar(t)
	for range 20 {
		o := options(t, path, "gate", "true")
		o.Spec.Linux.Sysctl = map[string]string{"net.ipv4.no_such_thing": "1"}
		tk, err := Create(t.Context(), o)
		if err == nil {
			err = tk.Start(t.Context())
			if e := tk.Delete(t.Context()); e != nil {
				t.Error(e)
			}
		}
		if err == nil || !strings.Contains(err.Error(), "no_such_thing") {
			t.Fatalf("%v", err)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Fatal("the task's folder is left")
		}
	}
}

// TestStraysAreReaped: an exec may give its children to its parent, the shim, which has not made them.
func TestStraysAreReaped(t *testing.T) {
	o := options(t, oar(t), "strays", "sleep", "1000")
	probe(t, o)
	tk := run(t, o)
	shim := parent(t, tk.Pid())
	dead := func() (n int) {
		lists, _ := filepath.Glob("/proc/" + itoa(shim) + "/task/*/children")
		for _, f := range lists {
			b, _ := os.ReadFile(f)
			for _, child := range strings.Fields(string(b)) {
				if stat, _ := os.ReadFile("/proc/" + child + "/stat"); strings.Contains(string(stat), ") Z ") {
					n++
				}
			}
		}
		return n
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := tk.Exec(t.Context(), ExecOptions{ID: "x", Process: &specs.Process{Args: []string{"probe", "strays"}, Cwd: "/", Env: []string{"PATH=/bin"}}, Out: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(r); string(out) != "made 5\n" {
		t.Fatalf("%q", out)
	}
	r.Close()
	until(t, "the shim has five dead children", func() bool { return dead() == 5 })
	if code, err := p.Wait(t.Context()); code != 0 || err != nil {
		t.Fatalf("%d %v", code, err)
	}
	until(t, "the strays are reaped", func() bool { return dead() == 0 })
	if err := tk.Kill(t.Context(), int(syscall.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 137 || exit.Lost {
		t.Fatalf("%v %+v", err, exit)
	}
}
