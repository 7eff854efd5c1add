package sysprog

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// launch starts busybox with a script, which has a pipe as its descriptor 3.
func launch(t *testing.T, l *Launcher, script string) (out string, pid int) {
	t.Helper()
	program, err := os.Open("/bin/busybox")
	must(t, err)
	defer program.Close()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	pid, pidfd, err := l.Start(Launch{Program: program, Argv: []string{"sh", "-c", script}, Envp: []string{"A=b c"}, Files: []*os.File{nil, nil, nil, w}})
	must(t, w.Close())
	must(t, err)
	b, err := io.ReadAll(r) // ends when nobody has the other end: the launcher neither
	must(t, err)
	info, err := reap(pidfd)
	must(t, err)
	must(t, unix.Close(pidfd))
	if code := status(info); code != 0 {
		t.Errorf("exit code %d: %s", code, b)
	}
	return string(b), pid
}

// TestLauncher: a program has what it is given and nothing else, of whatever its maker has.
func TestLauncher(t *testing.T) {
	low, err := unix.FcntlInt(0, unix.F_DUPFD, 0) // below the places, and not marked to be closed
	must(t, err)
	defer unix.Close(low)
	l, err := NewLauncher(4)
	must(t, err)
	defer l.Close()
	for range 300 { // also what an execve would not close, and what lies below the places
		fd, err := unix.Dup(int(l.null.Fd()))
		must(t, err)
		defer unix.Close(fd)
		unix.CloseOnExec(fd)
	}
	high, err := unix.FcntlInt(l.null.Fd(), unix.F_DUPFD, 700)
	must(t, err)
	defer unix.Close(high)
	for range 3 {
		out, pid := launch(t, l, `ls -l /proc/self/fd >&3; echo "$A $(pwd -P) $(cut -d' ' -f6 /proc/$$/stat)" >&3; grep -E "SigBlk|FDSize" /proc/$$/status >&3`)
		for _, want := range []string{" 0 -> /dev/null\n", " 1 -> pipe:", " 2 -> /dev/null\n", " 3 -> pipe:", "b c / " + strconv.Itoa(pid) + "\n", "SigBlk:\t0000000000000000", "FDSize:\t512"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q lacks %q", out, want)
			}
		}
		for line := range strings.Lines(out) { // ls has one for the folder, and busybox's shell may keep its own standard output beside ls's
			if f := strings.Fields(line); len(f) > 8 && !slices.Contains([]string{"0", "1", "2", "3", "4", "10"}, f[8]) {
				t.Errorf("it has more: %q", out)
			}
		}
	}
}

// TestLauncherSaysWhy: a program that cannot be executed leaves nothing behind, and the next one starts.
func TestLauncherSaysWhy(t *testing.T) {
	l, err := NewLauncher(4)
	must(t, err)
	defer l.Close()
	name := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(name, []byte("hello"), 0o755))
	text, err := os.Open(name)
	must(t, err)
	defer text.Close()
	if _, _, err := l.Start(Launch{Program: text, Argv: []string{"x"}}); err == nil || err.Error() != "execute "+name+": exec format error" {
		t.Errorf("%v", err)
	}
	if _, _, err := l.Start(Launch{Program: text, Argv: []string{"x"}, Files: make([]*os.File, 5)}); err == nil {
		t.Error("five files have four places")
	}
	if out, _ := launch(t, l, "echo fine >&3"); out != "fine\n" {
		t.Errorf("%q", out)
	}
}
