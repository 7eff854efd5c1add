package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 6000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestLoginAsksAtATerminal(t *testing.T) {
	l := &listener{recording: recording{"/auth": `{"Status":"Login Succeeded"}`}}
	host := serveOn(t, l)
	person, program := openTerminal(t)
	var out bytes.Buffer
	ended := make(chan int)
	go func() {
		ended <- Main(t.Context(), []string{"--host", host, "--config", t.TempDir(), "login", "r.example"}, Streams{In: program, Out: &out, Err: program})
	}()
	fmt.Fprintln(person, "me")
	eventually(t, "the echo is off", func() bool { return !echoes(t, program) })
	fmt.Fprintln(person, "geheim")
	if status := <-ended; status != 0 {
		t.Errorf("exit %d: %s", status, out.String())
	}
	if !echoes(t, program) {
		t.Error("the echo stays off")
	}
	if asked := l.take()[0].Body.(map[string]any); asked["username"] != "me" || asked["password"] != "geheim" {
		t.Errorf("asked for %v", asked)
	}
	if want := "Username: Password: \nLogin Succeeded\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestInterruptTurnsTheEchoOn: who presses ^C at the question for a password wants a shell that shows what is typed.
func TestInterruptTurnsTheEchoOn(t *testing.T) {
	wherry := filepath.Join(t.TempDir(), "wherry")
	if out, err := exec.Command("go", "build", "-o", wherry, "../../cmd/wherry").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	person, program := openTerminal(t)
	cmd := exec.Command(wherry, "--host", "unix:///nowhere/s", "--config", t.TempDir(), "login", "-u", "me", "r.example")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the echo is off", func() bool { return !echoes(t, program) })
	fmt.Fprint(person, "\x03")
	err := cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("ended with %v", err)
	}
	if !echoes(t, program) {
		t.Error("the echo stays off")
	}
}

func TestTerminalsAreKnown(t *testing.T) {
	_, program := openTerminal(t)
	if _, ok := terminal(program); !ok {
		t.Error("a terminal is not seen")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, no := range []any{r, &bytes.Buffer{}, nil, strings.NewReader("")} {
		if _, ok := terminal(no); ok {
			t.Errorf("%T is taken for a terminal", no)
		}
	}
	for _, command := range []string{"save i", "load"} {
		person, program := openTerminal(t)
		_ = person
		var errs bytes.Buffer
		status := Main(t.Context(), append([]string{"--host", "unix:///nowhere/s"}, strings.Fields(command)...), Streams{In: program, Out: program, Err: &errs})
		if status != 1 || !strings.Contains(errs.String(), "archive") {
			t.Errorf("%s at a terminal: exit %d: %s", command, status, errs.String())
		}
	}
}

// TestFormatsMoveNoCursor: labels and the like are words of strangers. What is read by programs, and formats that have control characters
// themselves, stay as they are.
func TestFormatsMoveNoCursor(t *testing.T) {
	const label = "a\x1b]0;title\a\x1b[2J\u009b31mb"
	rows := []struct{ Labels string }{{label}}
	inspected := `{"Labels":"a\u001b]0;title\u0007\u001b[2J` + "\u009b" + `31mb"}`
	for format, want := range map[string]string{"{{.Labels}}": "a]0;title[2J31mb\r\n", "\x1b[1m{{.Labels}}": "\x1b[1m" + label + "\r\n"} {
		person, program := openTerminal(t)
		printed := func(what string, print func(out *os.File) error) {
			t.Helper()
			if err := print(program); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1000)
			n, err := person.Read(got)
			if err != nil || string(got[:n]) != want {
				t.Errorf("%s %q: %q, %v", what, format, got[:n], err)
			}
		}
		f, err := layout{}.parseRows(format, false)
		if err != nil {
			t.Fatal(err)
		}
		printed("list", func(out *os.File) error { return writeRows(out, f, rows) })
		printed("inspect", func(out *os.File) error {
			i, err := newInspection(out, format)
			if err != nil {
				return err
			}
			if err := i.add([]byte(inspected), &struct{ Labels string }{}); err != nil {
				return err
			}
			return i.flush()
		})
		var out bytes.Buffer
		if err := writeRows(&out, f, rows); err != nil || !strings.Contains(out.String(), label) {
			t.Errorf("for a program: %q, %v", out.String(), err)
		}
	}
}

// TestEngineSteersNoTerminal: what another machine's engine says neither moves the cursor nor turns letters around, in whatever answer it says it.
func TestEngineSteersNoTerminal(t *testing.T) {
	const evil = `\u001b]0;x\u0007\u009b31m\u202e`
	id := `{"Id":"a` + evil + `","Name":"b` + evil + `","Warning":"c` + evil + `","Warnings":["d` + evil + `"]}`
	deleted := `{"ContainersDeleted":["a` + evil + `"],"ImagesDeleted":[{"Deleted":"b` + evil + `"}],"VolumesDeleted":["c` + evil + `"],"NetworksDeleted":["d` + evil + `"],"CachesDeleted":["e` + evil + `"]}`
	host := recording{
		"/info":          `{"ID":"a` + evil + `","Name":"b` + evil + `","Driver":"c` + evil + `","Warnings":["d` + evil + `"],"Labels":["e` + evil + `"]}`,
		"/version":       `{"Version":"a` + evil + `","ApiVersion":"1.51","Components":[{"Name":"b` + evil + `"}]}`,
		"/auth":          `{"Status":"a` + evil + `"}`,
		"/commit":        id,
		"/build/prune":   deleted,
		"/images/prune":  deleted,
		"/volumes/prune": deleted, "/volumes/create": id,
		"/networks/prune": deleted, "/networks/create": id,
		"/containers/prune": deleted, "/containers/create": id, "/containers/x/update": id,
		"/containers/x/top":     `{"Titles":["a` + evil + `"],"Processes":[["b` + evil + `"]]}`,
		"/containers/x/json":    `{"Id":"x","Name":"/x","NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"1.2.3.4","HostPort":"8` + evil + `"}]}}}`,
		"/containers/x/changes": `[{"Path":"/a` + evil + `","Kind":1}]`,
		"/containers/json":      `[{"Id":"x","Names":["/x` + evil + `"],"Image":"i` + evil + `","Command":"c` + evil + `","Status":"Up ` + evil + `"}]`,
		"/images/x":             `[{"Untagged":"a` + evil + `"}]`,
		"/wherry/pins":          `["a` + evil + `"]`,
		"/wherry/secrets":       id,
	}.serve(t)
	for _, args := range []string{"info", "version", "login -u a -p b r.example", "commit x", "builder prune -f", "image prune -f", "volume prune -f", "volume create x",
		"network prune -f", "network create x", "container prune -f", "system prune -f", "create x", "update -m 5m x", "top x", "port x", "port x 80", "diff x", "ps", "rmi x",
		"image pin", "secret create x -", "pull x"} {
		out, errs, _ := wherry(t, host, strings.Fields(args)...)
		if all := out + errs; strings.ContainsAny(all, "\x1b\a\u009b\u202e") || !strings.ContainsAny(all, "abcx") {
			t.Errorf("%s: %q", args, all)
		}
	}
}
