package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// execResult is what one exec printed and how it ended.
type execResult struct {
	out, errs string
	code      int
	err       error
}

// exec runs a program in a container with all output attached.
func (e *engine) exec(id string, q container.ExecCreateRequest, stdin io.Reader) execResult {
	e.t.Helper()
	q.AttachStdout, q.AttachStderr, q.AttachStdin = true, true, stdin != nil
	x, err := e.ExecCreate(context.Background(), id, q)
	if err != nil {
		e.t.Fatalf("create an exec of %v: %v", q.Cmd, err)
	}
	var out, errs bytes.Buffer
	o := ExecStreams{Stdout: &out, Stderr: &errs, Stdin: stdin}
	err = e.ExecStart(context.Background(), x, o)
	about, inspectErr := e.ExecInspect(x)
	if inspectErr != nil || about.Running || about.ExitCode == nil {
		e.t.Fatalf("exec of %v has returned and is %+v, %v", q.Cmd, about, inspectErr)
	}
	return execResult{out.String(), errs.String(), *about.ExitCode, err}
}

func TestExec(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}, c: container.Config{Env: []string{"A=image", "B=b"}, Hostname: "inside", WorkingDir: "/tmp"}})
	for _, row := range []struct {
		name  string
		q     container.ExecCreateRequest
		stdin string
		want  execResult
	}{
		{"streams and code", container.ExecCreateRequest{Cmd: sh("cat; echo e >&2; exit 5")}, "typed\n", execResult{"typed\n", "e\n", 5, nil}},
		{"no input", container.ExecCreateRequest{Cmd: sh("cat; readlink /proc/self/fd/0")}, "", execResult{"/dev/null\n", "", 0, nil}},
		{"a signal", container.ExecCreateRequest{Cmd: sh("kill -TERM $$")}, "", execResult{"", "", 143, nil}},
		{"environment", container.ExecCreateRequest{Cmd: sh("echo $A $B $C $HOME $HOSTNAME $TERM."), Env: []string{"A=exec", "C=c"}}, "", execResult{"exec b c /root inside .\n", "", 0, nil}},
		{"working directory", container.ExecCreateRequest{Cmd: sh("pwd")}, "", execResult{"/tmp\n", "", 0, nil}},
		{"another directory", container.ExecCreateRequest{Cmd: sh("pwd"), WorkingDir: "/data"}, "", execResult{"/data\n", "", 0, nil}},
		{"a user by name", container.ExecCreateRequest{Cmd: sh("id -u; id -g; echo $HOME"), User: "web"}, "", execResult{"101\n102\n/home\n", "", 0, nil}},
		{"numbers", container.ExecCreateRequest{Cmd: sh("id -u; id -g; grep CapEff /proc/self/status"), User: "7:8"}, "", execResult{"7\n8\nCapEff:\t0000000000000000\n", "", 0, nil}},
		{"its streams block", container.ExecCreateRequest{Cmd: sh("for i in 0 1 2; do grep flags /proc/self/fdinfo/$i; done")}, "x", execResult{"flags:\t00\nflags:\t01\nflags:\t01\n", "", 0, nil}},
		{"its init is pid 1", container.ExecCreateRequest{Cmd: sh("cat /proc/1/comm")}, "", execResult{"sleep\n", "", 0, nil}},
	} {
		var stdin io.Reader
		if row.stdin != "" {
			stdin = strings.NewReader(row.stdin)
		}
		if got := e.exec(id, row.q, stdin); got != row.want {
			t.Errorf("%s: %+v; want %+v", row.name, got, row.want)
		}
	}
	full := e.exec(id, container.ExecCreateRequest{Cmd: sh("grep CapBnd /proc/self/status"), Privileged: true}, nil).out
	own := e.exec(id, container.ExecCreateRequest{Cmd: sh("grep CapBnd /proc/self/status")}, nil).out
	first := e.exec(id, container.ExecCreateRequest{Cmd: sh("grep CapBnd /proc/1/status")}, nil).out
	if own != first || own == full {
		t.Errorf("capabilities: %q, of pid 1 %q, privileged %q", own, first, full)
	}
}

func TestExecsThatDoNotStart(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	for _, row := range []struct {
		q    container.ExecCreateRequest
		code int
		says string
	}{
		{container.ExecCreateRequest{Cmd: []string{"nosuchprogram"}}, 127, `exec: "nosuchprogram": executable file not found in $PATH`},
		{container.ExecCreateRequest{Cmd: []string{"/no/such"}}, 127, "no such file"},
		{container.ExecCreateRequest{Cmd: []string{"/etc/plain"}}, 126, "permission denied"},
		{container.ExecCreateRequest{Cmd: []string{"/etc"}}, 126, "permission denied"},
		{container.ExecCreateRequest{Cmd: []string{"crlf"}}, 127, "CRLF"},
		{container.ExecCreateRequest{Cmd: []string{"orphan"}}, 127, "/no/such/interpreter"},
		{container.ExecCreateRequest{Cmd: []string{"true"}, WorkingDir: "/nowhere"}, 126, "/nowhere"},
		{container.ExecCreateRequest{Cmd: []string{"true"}, User: "70000"}, 126, "70000 is outside"},
	} {
		got := e.exec(id, row.q, nil)
		if got.code != row.code || got.err == nil || !strings.Contains(got.err.Error(), row.says) || !errdefs.IsInvalidArgument(got.err) {
			t.Errorf("%v: code %d, %v; want %d and %q", row.q.Cmd, got.code, got.err, row.code, row.says)
		}
	}
	for user, says := range map[string]string{
		"nobodyhere": "unable to find user nobodyhere: no matching entries in passwd file",
		"0:nogroup":  "unable to find group nogroup: no matching entries in group file",
		"4294967296": "unable to find user 4294967296: uids and gids must be in range 0-2147483647",
	} {
		_, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh("true"), User: user})
		if !errdefs.IsInvalidArgument(err) || err.Error() != says {
			t.Errorf("user %s: %v", user, err)
		}
	}
	if _, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command: %v", err)
	}
	if _, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh("true"), DetachKeys: "ctrl-!"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad keys: %v", err)
	}
	if err := e.ExecStart(context.Background(), "nosuch", ExecStreams{}); !errdefs.IsNotFound(err) {
		t.Errorf("no such exec: %v", err)
	}
}

func TestExecWantsARunningContainer(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{name: "box", cmd: []string{"sleep", "1000"}})
	q := container.ExecCreateRequest{Cmd: sh("true")}
	if _, err := e.ExecCreate(ctx, id, q); !errdefs.IsConflict(err) {
		t.Errorf("of a created container: %v", err)
	}
	e.start(id)
	x, err := e.ExecCreate(ctx, id, q)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Pause(ctx, id, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ExecCreate(ctx, id, q); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "Container "+e.rec(id).Name+" is paused") {
		t.Errorf("of a paused container: %v", err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{}); !errdefs.IsConflict(err) {
		t.Errorf("start in a paused container: %v", err)
	}
	if err := e.Unpause(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{}); err != nil {
		t.Errorf("after that it can still be started: %v", err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{}); !errdefs.IsConflict(err) {
		t.Errorf("a second start: %v", err)
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ExecInspect(x); !errdefs.IsNotFound(err) {
		t.Errorf("inspect an exec of a removed container: %v", err)
	}
}

// TestExecLeavesChildrenAlone: an exec ends with its process. What that leaves behind neither keeps the client nor is ended.
func TestExecLeavesChildrenAlone(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	got := e.exec(id, container.ExecCreateRequest{Cmd: sh("echo before; (trap '' HUP; while :; do echo more; touch /tmp/alive; sleep 0.02; done) & exit 4")}, nil)
	if got.code != 4 || !strings.HasPrefix(got.out, "before\n") || got.err != nil {
		t.Fatalf("%.100q %+v", got.out, got.err)
	}
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"rm", "/tmp/alive"}}, nil)
	e.eventually("the child goes on printing", func() bool {
		return e.exec(id, container.ExecCreateRequest{Cmd: []string{"test", "-e", "/tmp/alive"}}, nil).code == 0
	})
}

// slowWriter takes a while for each piece, and counts.
type slowWriter struct {
	wait  time.Duration
	total int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.wait)
	w.total += len(p)
	return len(p), nil
}

// TestExecOutputIsWhole: what the process has printed comes, also to a client that is slower than the drain, while a child holds the pipe.
func TestExecOutputIsWhole(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	for _, script := range []string{"head -c 200000 /dev/zero", "sleep 60 & head -c 200000 /dev/zero"} {
		x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh(script), AttachStdout: true})
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowWriter{wait: 150 * time.Millisecond}
		if err := e.ExecStart(context.Background(), x, ExecStreams{Stdout: slow}); err != nil || slow.total != 200000 {
			t.Errorf("%s: %d bytes of 200000, %v", script, slow.total, err)
		}
	}
}

func TestExecEvents(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"sh", "-c", "exit 3"}}, nil)
	got := e.happened(id, "exitCode")
	want := []string{"exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die exitCode=3"}
	if len(got) < 3 || !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestExecTerminal(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: sh("stty size; read x; stty size; echo $TERM; exit 6"), Tty: true, AttachStdin: true, AttachStdout: true, ConsoleSize: &[2]uint{20, 50}})
	if err != nil {
		t.Fatal(err)
	}
	in, typed := io.Pipe()
	defer typed.Close()
	out := &watched{}
	done := make(chan error, 1)
	go func() { done <- e.ExecStart(ctx, x, ExecStreams{Stdin: in, Stdout: out}) }()
	e.eventually("the first size is there", func() bool { return strings.Contains(out.String(), "20 50\r\n") })
	if err := e.ExecResize(ctx, x, 33, 77); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(typed, "go\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "33 77\r\nxterm\r\n") {
		t.Errorf("%q", out.String())
	}
	if about, err := e.ExecInspect(x); err != nil || about.ExitCode == nil || *about.ExitCode != 6 || !about.ProcessConfig.Tty {
		t.Errorf("%+v %v", about, err)
	}
	if err := e.ExecResize(ctx, x, 1, 1); !errdefs.IsConflict(err) {
		t.Errorf("resize after the end: %v", err)
	}
}

// TestResizeWithoutTerminal: clients send sizes without a look at what they send them to.
func TestResizeWithoutTerminal(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	if err := e.Resize(ctx, id, 33, 77); err != nil {
		t.Errorf("container: %v", err)
	}
	x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); err != nil {
		t.Fatal(err)
	}
	if err := e.ExecResize(ctx, x, 33, 77); err != nil {
		t.Errorf("exec: %v", err)
	}
	if got := e.happened(id); slices.Contains(got, "resize") {
		t.Errorf("events %q", got)
	}
}

// watched is a buffer that may be looked at while it is written.
type watched struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// TestExecDetach: the keys let go of the process, a client that vanishes does too, and the process ends by itself with its own code.
func TestExecDetach(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	for _, row := range []struct {
		name string
		tty  bool
		let  func(typed io.Writer, vanish func())
	}{
		{"keys", true, func(typed io.Writer, _ func()) { _, _ = io.WriteString(typed, "\x01d") }},
		{"vanishing", true, func(_ io.Writer, vanish func()) { vanish() }},
		{"vanishing without a terminal", false, func(_ io.Writer, vanish func()) { vanish() }},
	} {
		ctx, vanish := context.WithCancel(context.Background())
		x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: sh("echo up; while ! test -e /tmp/go; do sleep 0.02; done; rm /tmp/go; head -c 300000 /dev/zero; exit 9"), Tty: row.tty,
			AttachStdin: true, AttachStdout: true, DetachKeys: "ctrl-a,d"})
		if err != nil {
			t.Fatal(err)
		}
		in, typed := io.Pipe()
		out := &watched{}
		done := make(chan error, 1)
		go func() { done <- e.ExecStart(ctx, x, ExecStreams{Stdin: in, Stdout: out}) }()
		e.eventually("the program prints", func() bool { return strings.Contains(out.String(), "up") })
		row.let(typed, vanish)
		<-done
		if about, err := e.ExecInspect(x); err != nil || !about.Running || about.Pid == 0 || about.ExitCode != nil {
			t.Fatalf("%s: %+v %v", row.name, about, err)
		}
		e.exec(id, container.ExecCreateRequest{Cmd: []string{"touch", "/tmp/go"}}, nil)
		e.eventually(row.name+": the program ends", func() bool {
			about, err := e.ExecInspect(x)
			return err == nil && !about.Running && *about.ExitCode == 9
		})
		typed.Close()
		vanish()
	}
	if got := e.happened(id); !slices.Contains(got, "exec_detach") {
		t.Errorf("events %q", got)
	}
}

// TestExecDiesWithItsContainer: the exec ends, and whoever is attached to it is let go.
func TestExecDiesWithItsContainer(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh("echo up; sleep 1000"), AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	out := &watched{}
	done := make(chan error, 1)
	go func() { done <- e.ExecStart(context.Background(), x, ExecStreams{Stdout: out}) }()
	e.eventually("the program prints", func() bool { return out.String() != "" })
	if got, err := e.Inspect(context.Background(), id); err != nil || !slices.Equal(got.ExecIDs, []string{x}) {
		t.Errorf("inspect shows the execs %v, %v", got.ExecIDs, err)
	}
	if err := e.Kill(context.Background(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if about, err := e.ExecInspect(x); err != nil || about.ExitCode == nil || *about.ExitCode != 137 {
		t.Errorf("%+v %v", about, err)
	}
}

// TestExecStorm: 500 execs, and afterwards the engine has as many descriptors and goroutines as before, and remembers a bounded number.
func TestExecStorm(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	e.exec(id, container.ExecCreateRequest{Cmd: sh("echo warm")}, nil)
	before, shim, goroutines := e.openFiles("self"), e.shimOf(id), e.goroutines()
	shimBefore, memory := e.openFiles(shim), e.anonymous(shim)
	const each = 125
	var wg sync.WaitGroup
	failures := make(chan string, 4*each)
	for w := range 4 {
		wg.Go(func() {
			for i := range each {
				want := fmt.Sprintf("%d.%d\n", w, i)
				x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: []string{"echo", strings.TrimSpace(want)}, AttachStdout: true, Tty: w == 0})
				var out bytes.Buffer
				if err == nil {
					err = e.ExecStart(context.Background(), x, ExecStreams{Stdout: &out})
				}
				if err != nil || strings.ReplaceAll(out.String(), "\r\n", "\n") != want {
					failures <- fmt.Sprintf("%q instead of %q, %v", out.String(), want, err)
				}
			}
		})
	}
	wg.Wait()
	close(failures)
	for f := range failures {
		t.Fatal(f)
	}
	e.eventually("descriptors and goroutines are back", func() bool {
		return e.openFiles("self") <= before+spareFiles && e.goroutines() <= goroutines && e.openFiles(shim) <= shimBefore
	})
	e.eventually("the shim's memory is back", func() bool { return e.anonymous(shim) < memory+3<<10 })
	for range execsKept {
		if _, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
	}
	e.execs.mu.Lock()
	kept, idle := len(e.execs.byID), len(e.execs.idle)
	e.execs.mu.Unlock()
	if kept != execsKept || idle != execsKept {
		t.Errorf("%d and %d execs are remembered", kept, idle)
	}
}

// TestLargeExecsAreBounded: execs that nobody starts do not take the engine's memory, and one that no kernel would run is refused.
func TestLargeExecsAreBounded(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	large := func(bytes int) (string, error) {
		return e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: []string{"true"}, Env: []string{"LARGE=" + strings.Repeat("x", bytes)}})
	}
	if _, err := large(execMost); !errdefs.IsInvalidArgument(err) {
		t.Errorf("more than a program can be given: %v", err)
	}
	var last string
	for range 2 * execBytes / (4 << 20) {
		var err error
		if last, err = large(4 << 20); err != nil {
			t.Fatal(err)
		}
	}
	size := func() (size, idle int) {
		e.execs.mu.Lock()
		defer e.execs.mu.Unlock()
		for _, x := range e.execs.byID {
			size += x.size
		}
		return size, e.execs.size
	}
	if all, idle := size(); all > execBytes || all < execBytes/2 || idle != all {
		t.Errorf("requests of %d bytes are remembered, %d are counted", all, idle)
	}
	if err := e.ExecStart(context.Background(), last, ExecStreams{}); err == nil {
		t.Error("a variable of 4 MiB was taken by the kernel")
	}
	if all, idle := size(); idle != all {
		t.Errorf("after one has ended %d bytes are remembered, %d are counted", all, idle)
	}
}

// shimOf is the pid of a container's shim, the parent of its first process.
func (e *engine) shimOf(id string) string {
	e.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.rec(id).Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	pid, _, _ := strings.Cut(rest, "\n")
	return pid
}

// anonymous is how many KiB a process has of its own.
func (e *engine) anonymous(pid string) int {
	e.t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		e.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nRssAnon:")
	kib, _, _ := strings.Cut(rest, "kB")
	return number(e.t, kib)
}

// spareFiles are the descriptors that the engine has for a spare shim, which comes some time after a start: connection, process, network namespace.
const spareFiles = 5

// openFiles counts a process's descriptors.
func (e *engine) openFiles(pid string) int {
	e.t.Helper()
	list, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		e.t.Fatal(err)
	}
	return len(list)
}

// goroutines counts those of the service.
func (e *engine) goroutines() int {
	e.lives.mu.Lock()
	defer e.lives.mu.Unlock()
	return len(e.lives.cancels)
}

// TestExecsAndTheEnd: whatever an exec is doing when its container is killed, its client is answered, and nothing is left behind.
func TestExecsAndTheEnd(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"true"}}, nil)
	files := e.openFiles("self")
	var wg sync.WaitGroup
	begun := make(chan struct{}, 200)
	var mu sync.Mutex
	var answers []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, fmt.Sprintf(format, args...))
	}
	for i := range 60 {
		wg.Go(func() {
			begun <- struct{}{}
			for {
				x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh("echo up; sleep 0.0" + fmt.Sprint(i)), AttachStdout: true, AttachStdin: true, Tty: i%5 == 0})
				if err != nil {
					if !errdefs.IsConflict(err) {
						note("create: %v", err)
					}
					return
				}
				in, typed := io.Pipe()
				err = e.ExecStart(context.Background(), x, ExecStreams{Stdin: in, Stdout: io.Discard})
				typed.Close()
				if err != nil && !errdefs.IsConflict(err) {
					note("start: %v", err)
				}
				if about, inspectErr := e.ExecInspect(x); inspectErr != nil || about.Running || about.ExitCode == nil && err == nil {
					note("inspect: %+v %v after %v", about, inspectErr, err)
				}
			}
		})
	}
	for range 60 {
		<-begun
	}
	if err := e.Kill(context.Background(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, a := range answers {
		t.Error(a)
	}
	e.eventually("the container has ended", func() bool { return e.rec(id).Status == Exited })
	e.eventually("all is given back", func() bool { return e.goroutines() == 0 && e.openFiles("self") <= files+spareFiles })
	e.start(id)
	if got := e.exec(id, container.ExecCreateRequest{Cmd: []string{"echo", "again"}}, nil); got.out != "again\n" {
		t.Errorf("in the next life: %+v", got)
	}
}

// TestExecTooLargeForItsShim: what does not fit a message to the shim is refused, and the container goes on.
func TestExecTooLargeForItsShim(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: sh("sleep 3600")})
	x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: sh("true"), Env: []string{"A=" + strings.Repeat("<", 3<<20)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
	if got := e.exec(id, container.ExecCreateRequest{Cmd: sh("exit 7")}, nil); got.code != 7 {
		t.Errorf("afterwards: %+v", got)
	}
}

// written notes what is written by whom, in its order.
type written struct {
	mu   *sync.Mutex
	all  *strings.Builder
	name string
}

func (w written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.WriteString(w.name)
	return len(p), nil
}

// TestExecOutputKeepsItsOrder: of two lines that a program prints at once, the first comes first, whichever stream it is for.
func TestExecOutputKeepsItsOrder(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: []string{"sleep", "1000"}})
	for i := range 60 {
		cmd, want := sh("echo out; echo err >&2"), "OE"
		if i%2 == 1 {
			cmd, want = sh("echo err >&2; echo out"), "EO"
		}
		x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: cmd, AttachStdout: true, AttachStderr: true})
		if err != nil {
			t.Fatal(err)
		}
		mu, all := &sync.Mutex{}, &strings.Builder{}
		if err := e.ExecStart(context.Background(), x, ExecStreams{Stdout: written{mu, all, "O"}, Stderr: written{mu, all, "E"}}); err != nil || all.String() != want {
			t.Fatalf("round %d: %q, not %q; %v", i, all, want, err)
		}
	}
}
