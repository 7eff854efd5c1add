package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"wherry.dev/wherry/internal/access"
)

func TestParse(t *testing.T) {
	oar := filepath.Join(t.TempDir(), "oar")
	if err := os.WriteFile(oar, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--oar", oar, "--root", "/r", "--state", "/s"}, io.Discard)
	if err != nil || len(o.hosts) != 1 || o.hosts[0].path != "/s/wherry.sock" || o.cgroupParent != "" {
		t.Errorf("%+v %v", o, err)
	}
	o, err = parse([]string{"--oar", oar, "--host", "unix:///a", "--host", "unix:///b/../c", "--cgroup-parent", "x", "--log-level", "debug"}, io.Discard)
	if err != nil || fmt.Sprint(o.hosts) != "[unix:///a unix:///c]" || o.cgroupParent != "/x" || o.level.String() != "DEBUG" {
		t.Errorf("%+v %v", o, err)
	}
	rows := map[string][]string{ // what the error says: arguments
		"a port cannot tell who asks":    {"--host", "tcp://127.0.0.1:2375"},
		"clients show certificates":      {"--host", "tcp://127.0.0.1:2375", "--tlsverify=false"},
		"tls.key (--tlskey) missing":     {"--host", "tcp://127.0.0.1", "--tlscacert", "a", "--tlscert", "b"},
		"write tcp://address:port":       {"--host", "https://127.0.0.1"},
		"as tcp://address:port":          {"--host", "tcp://127.0.0.1/x"},
		"names of containers and images": {"--config", writeFile(t, "[metrics]\naddress = \"0.0.0.0:9323\"\n")},
		"such as 127.0.0.1:9323":         {"--config", writeFile(t, "[metrics]\naddress = \"9323\"\n")},
		"there is no group no-such":      {"--group", "no-such"},
		"unix:///absolute/path":          {"--host", "unix://relative"},
		"LISTEN_FDS":                     {"--host", "fd://"},
		"takes flags only":               {"start"},
		"--no-such":                      nil,
		"the root group":                 {"--cgroup-parent", "/"},
		"no such file":                   {"--oar", "/no/such/oar"},
		"flag needs an argument":         {"--root"},
		"log-level":                      {"--log-level", "loud"},
	}
	for want, args := range rows {
		if args == nil {
			want, args = "no-such", []string{"--no-such"}
		}
		if _, err := parse(append([]string{"--oar", oar}, args...), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	var out strings.Builder
	if _, err := parse([]string{"--help"}, &out); !errors.Is(err, errHelp) || !strings.Contains(out.String(), "\n  --root directory             directory of everything that lasts (default\n") {
		t.Errorf("help: %v\n%s", err, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("too long: %s", line)
		}
	}
	if o, err := parse([]string{"--version"}, io.Discard); err != nil || !o.version {
		t.Errorf("version: %v", err)
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wherry.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFlagsWinOverTheFile: and lists of flags take the place of the file's.
func TestFlagsWinOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wherry.toml")
	text := "[engine]\nroot = \"/file/root\"\nhosts = [\"unix:///file\"]\noar = \"/proc/self/exe\"\nlog-level = \"warn\"\n[registry]\ninsecure = [\"a\", \"b\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--config", file}, io.Discard)
	if err != nil || o.root != "/file/root" || fmt.Sprint(o.hosts) != "[unix:///file]" || o.level.String() != "WARN" || len(o.insecure) != 2 {
		t.Errorf("%+v %v", o, err)
	}
	o, err = parse([]string{"--root", "/flag", "--host", "unix:///flag", "--insecure-registry", "c", "--config", file, "--log-level", "debug"}, io.Discard)
	if err != nil || o.root != "/flag" || fmt.Sprint(o.hosts) != "[unix:///flag]" || o.level.String() != "DEBUG" || strings.Join(o.insecure, " ") != "c" {
		t.Errorf("%+v %v", o, err)
	}
	if err := os.WriteFile(file, []byte("[engine]\nroots = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = parse([]string{"--config", file, "--check-config"}, io.Discard); err == nil || !strings.Contains(err.Error(), file+":2: engine.roots: ") {
		t.Errorf("%v", err)
	}
}

// TestFilesOfSettingsAreChecked: a program that is none, a policy that cannot be followed.
func TestFilesOfSettingsAreChecked(t *testing.T) {
	dir := t.TempDir()
	plain, broken, good := filepath.Join(dir, "plain"), filepath.Join(dir, "broken.toml"), filepath.Join(dir, "good.toml")
	for path, text := range map[string]string{plain: "", broken: "default = \"some\"\n", good: "default = \"accept\"\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ flag, path, want string }{
		{"--oar", dir + "/none", "engine.oar (--oar): stat " + dir + "/none: no such file"},
		{"--oar", plain, "engine.oar (--oar): " + plain + " is no program"},
		{"--oar", dir, "engine.oar (--oar): " + dir + " is no program"},
		{"--oar", "/proc/self/exe", ""},
		{"--verify", dir + "/none", "engine.verify (--verify): stat " + dir + "/none: no such file"},
		{"--policy", dir + "/none", "engine.policy (--policy): the policy cannot be followed"},
		{"--policy", broken, broken},
		{"--policy", good, ""},
	} {
		args := []string{row.flag, row.path, "--check-config"}
		if row.flag != "--policy" {
			args = append(args, "--policy", good)
		}
		_, err := parse(args, io.Discard)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := parse([]string{"--oar", plain}, io.Discard); err == nil || !strings.Contains(err.Error(), "is no program") {
		t.Errorf("at a start: %v", err)
	}
}

func TestLockIsTheKernels(t *testing.T) {
	dir := t.TempDir()
	first, err := acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquire(dir)
	if err == nil || !strings.Contains(err.Error(), "another wherryd (pid "+strconv.Itoa(os.Getpid())+") uses "+dir) {
		t.Errorf("a second engine: %v", err)
	}
	first.Close()
	again, err := acquire(dir) // the pid that is left in the file keeps nobody out
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "s")
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a socket in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as kill -9 leaves it
	l.Close()
	l, err = listenUnix(path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := listenUnix("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "107 bytes") {
		t.Errorf("a long path: %v", err)
	}
}

// TestGroupOfTheSocket: its members reach the socket, and nothing else of the engine's.
func TestGroupOfTheSocket(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	o := options{state: state, group: 4242, access: access.Without(4242), hosts: []host{{path: filepath.Join(state, "s")}, {path: filepath.Join(elsewhere, "s")}}}
	list, err := o.listen(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(list)
	rows := map[string]string{state: "drwx--x--- 4242", state + "/s": "Srw-rw---- 4242", elsewhere: "drwx------ 0", elsewhere + "/s": "Srw-rw---- 4242"}
	for path, want := range rows {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(st.Mode(), " ", st.Sys().(*syscall.Stat_t).Gid); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	var log bytes.Buffer
	o.warn(slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(log.String(), "as good as root") {
		t.Errorf("nobody is told what the group means: %s", &log)
	}
}

// TestRulesOfAccess are read at start, and mistakes in them keep the engine from it.
func TestRulesOfAccess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.toml")
	if err := os.WriteFile(path, []byte("[[rule]]\nuid = 1\nmay = \"all\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--check-config", "--access", path}, io.Discard)
	if err != nil || o.access.File != path || o.set.Engine.Access != path {
		t.Fatalf("%+v %v", o.access, err)
	}
	var log bytes.Buffer
	o.warn(slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(log.String(), "as good as root on this machine: uid 1") {
		t.Errorf("%s", &log)
	}
	if err := os.WriteFile(path, []byte("[[rule]]\nuid = 1\n\nmay = \"some\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := parse([]string{"--check-config", "--access", path}, io.Discard); err == nil || !strings.Contains(err.Error(), path+":4: may: ") {
		t.Errorf("%v", err)
	}
	if _, err := parse([]string{"--check-config", "--access", path + ".no"}, io.Discard); err == nil {
		t.Error("a file that is not there is no mistake")
	}
}

// TestRulesAreReadAgain at SIGHUP; mistakes, and a file that is gone, leave the earlier ones in force.
func TestRulesAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("[[rule]]\nuid = 1\nmay = \"all\"\n")
	o, err := parse([]string{"--check-config", "--access", path}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	rules, said := make(chan *access.Rules, 1), make(chan string, 10)
	stop := o.reread(func(r *access.Rules) error { rules <- r; return nil }, slog.New(slog.NewTextHandler(writer(func(p []byte) { said <- string(p) }), nil)))
	hup := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("[[rule]]\nuid = 2\nmay = \"all\"\n")
	hup()
	if r := <-rules; len(r.List) != 1 || r.List[0].Who != "uid 2" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"read again", "as good as root on this machine: uid 2"} {
		if line := <-said; !strings.Contains(line, want) {
			t.Errorf("%q, want %q", line, want)
		}
	}
	write("[[rule]]\nuid = 3\nmay = \"most\"\n")
	hup()
	if line := <-said; !strings.Contains(line, "stay as they were") || !strings.Contains(line, path+":3: may: ") {
		t.Errorf("of a mistake: %s", line)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	hup()
	if line := <-said; !strings.Contains(line, "stay as they were") {
		t.Errorf("of a file that is gone: %s", line)
	}
	stop()
	hup() // while the engine closes, which it does not end
	if len(rules) != 0 {
		t.Errorf("other rules hold: %+v", <-rules)
	}
}

// writer has a function for a Write.
type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// TestPassedSockets: descriptor 3 of a child is used as sd_listen_fds(3) says.
func TestPassedSockets(t *testing.T) {
	if os.Getenv("WHERRYD_TEST_CHILD") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		o := options{hosts: []host{{path: "/nonexistent/never"}}}
		list, err := o.listen(slog.New(slog.DiscardHandler))
		if err != nil || len(list) != 1 || os.Getenv("LISTEN_FDS") != "" {
			t.Fatalf("%v %v", list, err)
		}
		c, err := list[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("from the child"))
		c.Close()
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPassedSockets$")
	cmd.Env = append(os.Environ(), "WHERRYD_TEST_CHILD=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(c)
	if err := cmd.Wait(); err != nil || string(got) != "from the child" {
		t.Errorf("%q %v", got, err)
	}
}

func TestNotifyReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	notifyReady()
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q %v", buf[:n], err)
	}
}

func TestFindVerify(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if path, err := findVerify("bin/wherry-verify"); err != nil || path != filepath.Join(dir, "bin/wherry-verify") {
		t.Errorf("it is started from another directory: %q %v", path, err)
	}
}

func TestEngineID(t *testing.T) {
	dir := t.TempDir()
	a, err := engineID(dir)
	if err != nil || len(a) != 32 {
		t.Fatalf("%q %v", a, err)
	}
	if b, err := engineID(dir); b != a || err != nil {
		t.Errorf("the id changed: %s %s %v", a, b, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "engine-id"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := engineID(dir); len(b) != 32 || err != nil {
		t.Errorf("after damage: %s %v", b, err)
	}
}

// TestFewFiles: an engine whose limit is too low for containers says so, and what to raise.
func TestFewFiles(t *testing.T) {
	for most, want := range map[uint64]string{enoughFiles: "", enoughFiles - 1: "may open 1023 files"} {
		var b bytes.Buffer
		fewFiles(slog.New(slog.NewTextHandler(&b, nil)), most)
		if got := b.String(); !strings.Contains(got, want) || (want == "") != (got == "") || want != "" && !strings.Contains(got, "LimitNOFILE of its service, ulimit -n) to 1024") {
			t.Errorf("%d: %q", most, got)
		}
	}
}
