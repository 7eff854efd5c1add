package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// scriptedEngine is the engine's half of a run: it notes what is asked and lets a function be the process.
type scriptedEngine struct {
	process  func(stdin io.Reader, stdout, stderr io.Writer) int
	tty      bool
	startErr string // what start answers, with status 400
	missing  bool   // the image is there only after a pull
	replay   string // what an attach to the log of an ended container gives
	oom      bool   // the kernel killed it for want of memory
	state    string // what inspect says: running (the default), exited, paused

	mu      sync.Mutex
	asked   []string
	conn    net.Conn
	in      io.Reader
	ended   chan int
	signals chan string
	sizes   chan string
}

func newScriptedEngine(process func(io.Reader, io.Writer, io.Writer) int) *scriptedEngine {
	return &scriptedEngine{process: process, ended: make(chan int, 1), signals: make(chan string, 8), sizes: make(chan string, 8)}
}

const fakeID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func (e *scriptedEngine) note(r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	path := strings.ReplaceAll(r.URL.Path, fakeID, "ID")
	e.asked = append(e.asked, r.Method+" "+path)
}

func (e *scriptedEngine) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

func (e *scriptedEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.note(r)
	_, verb := filepath.Split(r.URL.Path)
	switch {
	case r.URL.Path == "/images/create":
		e.missing = false
		fmt.Fprintln(w, `{"status":"pulled"}`)
	case (verb == "create" || r.URL.Path == "/wherry/run") && e.missing:
		answer(w, 404, `{"message":"No such image: x:latest"}`)
	case verb == "create":
		answer(w, 201, `{"Id":"`+fakeID+`","Warnings":["something to know"]}`)
	case strings.HasPrefix(r.URL.Path, "/wherry/why/") && e.oom:
		fmt.Fprintln(w, `{"Deaths":[{"Cause":"oom","Summary":"it came to its memory limit, and the kernel killed hungry","Advice":"give it more"}]}`)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/containers/"):
		fmt.Fprintf(w, `{"Id":"`+fakeID+`","Config":{"Tty":%v,"OpenStdin":true},"State":{"Running":%v,"Paused":%v},"HostConfig":{}}`,
			e.tty, e.state != "exited", e.state == "paused")
	case r.URL.Path == "/wherry/run":
		e.converse(w, r, `{"Id":"`+fakeID+`","Warnings":["something to know"]}`)
	case r.URL.Path == "/wherry/exec/c" && e.startErr == "":
		e.converse(w, r, `{"Id":"e"}`)
	case r.URL.Path == "/wherry/exec/c":
		body, _ := json.Marshal(map[string]string{"message": e.startErr})
		answer(w, 400, string(body))
	case verb == "exec":
		answer(w, 201, `{"Id":"e"}`)
	case r.URL.Path == "/exec/e/start" && e.startErr != "":
		body, _ := json.Marshal(map[string]string{"message": e.startErr})
		answer(w, 400, string(body))
	case r.URL.Path == "/exec/e/start":
	case r.URL.Path == "/exec/e/json":
		fmt.Fprintf(w, `{"ExitCode":%d}`, <-e.ended)
	case verb == "attach":
		e.attach(w)
		switch e.state {
		case "running":
			go e.live()
		case "exited":
			fmt.Fprint(frame1{e.conn, 1}, e.replay)
			if r.URL.Query().Get("stream") == "0" {
				e.conn.Close()
			}
		}
	case verb == "wait":
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case code := <-e.ended:
			_ = json.NewEncoder(w).Encode(map[string]any{"StatusCode": code})
		case <-r.Context().Done():
		}
	case verb == "start" && e.startErr != "":
		body, _ := json.Marshal(map[string]string{"message": e.startErr})
		e.ended <- 128
		answer(w, 400, string(body))
	case verb == "start":
		w.WriteHeader(204)
		go e.live()
	case verb == "kill":
		e.signals <- r.URL.Query().Get("signal")
		w.WriteHeader(204)
	case r.Method == http.MethodDelete:
		w.WriteHeader(204)
	case verb == "resize":
		e.sizes <- r.URL.Query().Get("h") + "x" + r.URL.Query().Get("w")
	}
}

func answer(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintln(w, body)
}

func (e *scriptedEngine) attach(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	kind := "multiplexed"
	if e.tty {
		kind = "raw"
	}
	e.takeOver(conn, rw, "application/vnd.docker."+kind+"-stream")
}

func (e *scriptedEngine) takeOver(conn net.Conn, in io.Reader, contentType string) {
	fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", contentType)
	e.mu.Lock()
	e.conn, e.in = conn, in
	e.mu.Unlock()
}

// converse is a run or an exec in one request.
func (e *scriptedEngine) converse(w http.ResponseWriter, r *http.Request, first string) {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	e.takeOver(conn, rw, runStreamType)
	notes := frame1{conn, noteStream}
	fmt.Fprint(notes, first)
	if e.startErr != "" {
		body, _ := json.Marshal(map[string]any{"Failure": map[string]any{"Status": 400, "Message": e.startErr}})
		_, _ = notes.Write(body)
		conn.Close()
		return
	}
	fmt.Fprint(notes, `{"Started":true}`)
	go func() {
		code := e.process(rw, frame1{conn, 1}, frame1{conn, 2})
		fmt.Fprintf(notes, `{"Exit":{"StatusCode":%d}}`, code)
		conn.Close()
	}()
}

func (e *scriptedEngine) live() {
	var stdout, stderr io.Writer = frame1{e.conn, 1}, frame1{e.conn, 2}
	if e.tty {
		stdout, stderr = e.conn, e.conn
	}
	code := e.process(e.in, stdout, stderr)
	e.conn.Close()
	e.ended <- code
}

type frame1 struct {
	w  io.Writer
	id byte
}

func (f frame1) Write(p []byte) (int, error) {
	head := make([]byte, 8, 8+len(p))
	head[0] = f.id
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	if _, err := f.w.Write(append(head, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

type outcome struct {
	code           int
	stdout, stderr string
}

func runWherry(t *testing.T, host, stdin string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(t.Context(), append([]string{"-H", host}, args...), Streams{In: strings.NewReader(stdin), Out: &stdout, Err: &stderr})
	return outcome{code, stdout.String(), stderr.String()}
}

func TestRun(t *testing.T) {
	e := newScriptedEngine(func(_ io.Reader, stdout, stderr io.Writer) int {
		fmt.Fprint(stdout, "out\n")
		fmt.Fprint(stderr, "err\n")
		fmt.Fprint(stdout, strings.Repeat("x", 1<<20))
		return 3
	})
	got := runWherry(t, serveRecorder(t, e), "unread", "run", "--rm", "x")
	if got.code != 3 {
		t.Errorf("exit status %d, want 3", got.code)
	}
	if want := "out\n" + strings.Repeat("x", 1<<20); got.stdout != want {
		t.Errorf("%d bytes of output, want %d", len(got.stdout), len(want))
	}
	if got.stderr != "WARNING: something to know\nerr\n" {
		t.Errorf("stderr %q", got.stderr)
	}
	asked := e.requests()
	if len(asked) != 1 || asked[0] != "POST /wherry/run" {
		t.Errorf("a run is one request; asked was %v", asked)
	}
}

func TestRunSaysThatMemoryWasShort(t *testing.T) {
	for _, oom := range []bool{true, false} {
		e := newScriptedEngine(func(io.Reader, io.Writer, io.Writer) int { return 137 })
		e.oom = oom
		got := runWherry(t, serveRecorder(t, e), "", "run", "--rm", "x")
		if said := strings.Contains(got.stderr, "the kernel killed hungry: give it more"); got.code != 137 || said != oom {
			t.Errorf("out of memory %v: %+v", oom, got)
		}
	}
}

func TestRunSendsInput(t *testing.T) {
	e := newScriptedEngine(func(stdin io.Reader, stdout, _ io.Writer) int {
		n, _ := io.Copy(stdout, stdin)
		return int(n) % 128
	})
	got := runWherry(t, serveRecorder(t, e), "hello", "run", "-i", "x", "cat")
	if got.stdout != "hello" || got.code != 5 {
		t.Errorf("%+v", got)
	}
}

func TestRunPullsWhatIsMissing(t *testing.T) {
	quick := func(io.Reader, io.Writer, io.Writer) int { return 0 }
	e := newScriptedEngine(quick)
	e.missing = true
	got := runWherry(t, serveRecorder(t, e), "", "run", "x")
	if got.code != 0 || !strings.Contains(got.stderr, "Unable to find image 'x' locally\n") || !strings.Contains(got.stderr, "pulled") || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	if asked := strings.Join(e.requests()[:3], ", "); asked != "POST /wherry/run, POST /images/create, POST /wherry/run" {
		t.Errorf("asked %s", asked)
	}
	e = newScriptedEngine(quick)
	e.missing = true
	got = runWherry(t, serveRecorder(t, e), "", "run", "--pull", "never", "x")
	if got.code != 125 || got.stderr != "wherry: No such image: x:latest\n" || strings.Contains(fmt.Sprint(e.requests()), "create") {
		t.Errorf("--pull never: %+v after %v", got, e.requests())
	}
	e = newScriptedEngine(quick)
	got = runWherry(t, serveRecorder(t, e), "", "run", "--pull", "always", "--quiet", "x")
	if got.code != 0 || e.requests()[0] != "POST /images/create" || strings.Contains(got.stderr, "pulled") {
		t.Errorf("--pull always -q: %+v after %v", got, e.requests())
	}
}

func TestStartFailures(t *testing.T) {
	for message, code := range map[string]int{
		`exec: "nope": executable file not found in $PATH`: 127,
		"exec /x: no such file or directory":               127,
		"exec /x: permission denied":                       126,
		"exec /x: is a directory":                          126,
		"port 80 is in use":                                125,
	} {
		for _, args := range [][]string{{"run", "x"}, {"run", "--rm", "x"}, {"run", "-d", "x"}} {
			e := newScriptedEngine(nil)
			e.startErr = message
			got := runWherry(t, serveRecorder(t, e), "", args...)
			if got.code != code || got.stdout != "" || !strings.HasSuffix(got.stderr, "wherry: "+message+"\n") {
				t.Errorf("%v, %s: %+v, want status %d", args, message, got, code)
			}
			// The engine removes what it has made for a run that is one request.
			if removed := slices.Contains(e.requests(), "DELETE /containers/ID"); removed != slices.Contains(args, "-d") {
				t.Errorf("%v, %s: removed the container that never ran: %v", args, message, removed)
			}
		}
	}
}

func TestRunDetached(t *testing.T) {
	dir := t.TempDir()
	e := newScriptedEngine(func(io.Reader, io.Writer, io.Writer) int { return 0 })
	e.conn, _ = net.Pipe()
	host := serveRecorder(t, e)
	file := filepath.Join(dir, "id")
	got := runWherry(t, host, "", "run", "-d", "--cidfile", file, "x:1")
	if got.code != 0 || got.stdout != fakeID+"\n" {
		t.Errorf("%+v", got)
	}
	if id, err := os.ReadFile(file); string(id) != fakeID {
		t.Errorf("--cidfile has %q, %v", id, err)
	}
	if asked := e.requests(); len(asked) != 2 {
		t.Errorf("create and start are enough, asked was %v", asked)
	}
	got = runWherry(t, host, "", "run", "-d", "--cidfile", file, "x")
	if got.code != 125 || !strings.Contains(got.stderr, "is there already") {
		t.Errorf("a --cidfile that is there: %+v", got)
	}
	e.missing = true
	if got = runWherry(t, host, "", "run", "-d", "--pull", "never", "--cidfile", file+"2", "x"); got.code != 125 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("--cidfile is left although there is no container")
	}
}

func TestRunForwardsSignals(t *testing.T) {
	spare := make(chan os.Signal, 8) // so that this process survives what it sends itself
	signal.Notify(spare, unix.SIGTERM, unix.SIGUSR1)
	defer signal.Stop(spare)
	e := newScriptedEngine(nil)
	got := make(chan string, 2)
	e.process = func(_ io.Reader, stdout, _ io.Writer) int {
		for _, s := range []unix.Signal{unix.SIGUSR1, unix.SIGTERM} {
			_ = unix.Kill(os.Getpid(), s)
			select {
			case name := <-e.signals:
				got <- name
			case <-time.After(10 * time.Second):
				got <- "nothing"
			}
		}
		return 143
	}
	out := runWherry(t, serveRecorder(t, e), "", "run", "x")
	if first, second := <-got, <-got; first != "SIGUSR1" || second != "SIGTERM" || out.code != 143 {
		t.Errorf("forwarded %s and %s, exit status %d", first, second, out.code)
	}
}

// TestRunIsInterruptedBeforeItBegins: an engine that takes its time to make a container keeps nobody at the prompt.
func TestRunIsInterruptedBeforeItBegins(t *testing.T) {
	spare := make(chan os.Signal, 8)
	signal.Notify(spare, unix.SIGINT)
	defer signal.Stop(spare)
	left := make(chan struct{})
	host := serveRecorder(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = unix.Kill(os.Getpid(), unix.SIGINT)
		<-r.Context().Done()
		close(left)
	}))
	got := runWherry(t, host, "", "run", "x")
	if got.code != 125 || !strings.Contains(got.stderr, "interrupted before there was a container") {
		t.Errorf("%+v", got)
	}
	<-left // the engine learns of it
}

// TestRunOfAnOlderEngine says what to do.
func TestRunOfAnOlderEngine(t *testing.T) {
	host := serveRecorder(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 404, `{"message":"page not found"}`) }))
	for _, args := range [][]string{{"run", "x"}, {"exec", "c", "true"}} {
		if got := runWherry(t, host, "", args...); !strings.Contains(got.stderr, "restart wherryd") || got.code == 0 {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// openTerminal gives both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (user, process *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	process, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Close() })
	resize(t, user, 33, 111)
	return user, process
}

func resize(t *testing.T, user *os.File, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

func TestRunOnATerminal(t *testing.T) {
	user, side := openTerminal(t)
	before, err := term.GetState(int(side.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	e := newScriptedEngine(nil)
	e.tty = true
	typed := make(chan string, 1)
	e.process = func(stdin io.Reader, stdout, _ io.Writer) int {
		fmt.Fprint(stdout, "ready\r\n")
		buf := make([]byte, 3)
		_, _ = io.ReadFull(stdin, buf)
		typed <- string(buf)
		_, _ = stdin.Read(buf) // until the client is gone
		return 0
	}
	done := make(chan int, 1)
	host := serveRecorder(t, e)
	go func() {
		done <- Main(t.Context(), []string{"-H", host, "run", "-it", "x"}, Streams{In: side, Out: side, Err: side})
	}()
	screen := make([]byte, 0, 256)
	for !bytes.Contains(screen, []byte("ready\r\n")) {
		buf := make([]byte, 64)
		n, err := user.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		screen = append(screen, buf[:n]...)
	}
	if size := <-e.sizes; size != "33x111" {
		t.Errorf("first size is %s", size)
	}
	resize(t, user, 44, 99)
	_ = unix.Kill(os.Getpid(), unix.SIGWINCH)
	if size := <-e.sizes; size != "44x99" {
		t.Errorf("second size is %s", size)
	}
	// Raw: no line is needed, ctrl-c is input.
	if _, err := user.WriteString("a\x03b"); err != nil {
		t.Fatal(err)
	}
	if got := <-typed; got != "a\x03b" {
		t.Errorf("the process read %q", got)
	}
	if _, err := user.WriteString("\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Errorf("detaching ends with status %d", code)
	}
	after, err := term.GetState(int(side.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v", err)
	}
	if slices.Contains(e.requests(), "POST /containers/ID/kill") {
		t.Error("detaching sent a signal")
	}
}

func TestATerminalIsNeeded(t *testing.T) {
	e := newScriptedEngine(nil)
	got := runWherry(t, serveRecorder(t, e), "", "run", "-it", "x")
	if got.code != 1 || !strings.Contains(got.stderr, "the input is no terminal") || len(e.requests()) != 0 {
		t.Errorf("%+v after %v", got, e.requests())
	}
}
