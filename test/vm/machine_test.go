package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience ends a broken run; nothing is measured by it.
const patience = 2 * time.Minute

// machine is one boot of a virtual machine.
type machine struct {
	t     *testing.T
	dir   string // disk, socket, console of one test; several boots share it
	cmd   *exec.Cmd
	conn  net.Conn
	ready chan struct{}
	gone  chan struct{} // the answers ended

	mu      sync.Mutex // guards next and waiting
	next    int
	waiting map[int]chan answer
}

type answer struct {
	ID     int
	Output string
	Code   int
}

// newDisk is the directory of a machine with a fresh disk.
func newDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "wherry-vm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	out, err := exec.Command("cp", "--sparse=always", "--reflink=auto", filepath.Join(built(t), "disk.img"), filepath.Join(dir, "disk.img")).CombinedOutput()
	if err != nil {
		t.Fatalf("copy the disk: %v: %s", err, out)
	}
	return dir
}

func built(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/vm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "disk.img")); err != nil {
		t.Fatalf("%v: run `make vm`, which builds it", err)
	}
	return dir
}

// boot starts a machine on the disk in dir and waits until its agent speaks.
func boot(t *testing.T, dir string) *machine {
	t.Helper()
	return bootFrom(t, dir, "", "file="+filepath.Join(dir, "disk.img")+",if=virtio,format=raw,cache=writethrough")
}

// bootDebian starts a machine that has all of Debian, whose changes go with it, and the tools on /t. init is its first process.
func bootDebian(t *testing.T, init string) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "wherry-vm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return bootFrom(t, dir, "init="+init, "file="+filepath.Join(built(t), "debian.img")+",if=virtio,format=raw,snapshot=on",
		"file="+filepath.Join(built(t), "tools.img")+",if=virtio,format=raw,readonly=on")
}

// board is the machine that qemu makes.
type board struct {
	qemu    []string // the command, and what only this kind has
	console string
	files   string // where its kernel and initial file system are
}

// pc has two processors that share one thread: with one each, qemu 7.2 sometimes loses a change that the kernel makes to its own code, and
// both stand still.
func pc(t *testing.T) board {
	t.Helper()
	return board{[]string{"qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max,la57=off"}, "ttyS0", built(t)}
}

// newerPC has the kernel of newer.sh, whose allocator qemu 7.2 breaks where the processor exchanges 16 bytes at once.
func newerPC(t *testing.T) board {
	t.Helper()
	return board{[]string{"qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max,la57=off,cx16=off"}, "ttyS0", filepath.Join(built(t), "newer")}
}

// bootFrom starts a machine.
func bootFrom(t *testing.T, dir, more string, drives ...string) *machine {
	t.Helper()
	return pc(t).boot(t, dir, more, drives...)
}

func (b board) boot(t *testing.T, dir, more string, drives ...string) *machine {
	t.Helper()
	m := &machine{t: t, dir: dir, ready: make(chan struct{}), gone: make(chan struct{}), waiting: map[int]chan answer{}}
	socket := filepath.Join(dir, "agent.sock")
	_ = os.Remove(socket)
	m.cmd = exec.Command(b.qemu[0], append(b.qemu[1:], "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", filepath.Join(b.files, "vmlinuz"), "-initrd", filepath.Join(b.files, "initrd"),
		"-append", "console="+b.console+" quiet panic=-1 mitigations=off nokaslr no_timer_check "+more,
		"-serial", "file:"+filepath.Join(dir, "console"), "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path="+socket+",server=on,wait=off", "-device", "virtserialport,chardev=agent,name=agent")...)
	for _, d := range drives {
		m.cmd.Args = append(m.cmd.Args, "-drive", d)
	}
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.cut)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			m.conn = conn
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("qemu does not listen: %v", err)
		}
	}
	go m.listen()
	select {
	case <-m.ready:
	case <-m.gone:
		t.Fatalf("the machine ended while it booted:\n%s", m.console())
	case <-time.After(patience):
		t.Fatalf("the machine does not boot:\n%s", m.console())
	}
	return m
}

// listen hands answers to those who wait, until the machine is gone.
func (m *machine) listen() {
	defer close(m.gone)
	lines := bufio.NewReader(m.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(line, &a) != nil {
			continue
		}
		if a.ID == 0 {
			close(m.ready)
			continue
		}
		m.mu.Lock()
		m.waiting[a.ID] <- a
		m.mu.Unlock()
	}
}

// start runs a shell script in the machine; the answer comes once, or never when the machine is cut off before.
func (m *machine) start(script string) <-chan answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	c := make(chan answer, 1)
	m.waiting[m.next] = c
	b, err := json.Marshal(struct {
		ID     int
		Script string
	}{m.next, script})
	if err == nil {
		_, err = m.conn.Write(append(b, '\n'))
	}
	if err != nil {
		m.t.Errorf("send to the machine: %v", err)
	}
	return c
}

// try runs a script and returns its output and exit code.
func (m *machine) try(script string) (string, int) {
	m.t.Helper()
	select {
	case a := <-m.start(script):
		return a.Output, a.Code
	case <-m.gone:
		m.t.Fatalf("the machine went away during %s:\n%s", script, m.console())
	case <-time.After(patience):
		m.t.Fatalf("no answer within %v: %s\n%s", patience, script, m.log())
	}
	return "", 0
}

// run is try for what must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, code := m.try(script)
	if code != 0 {
		m.t.Fatalf("exit code %d: %s\n%s\n%s", code, script, out, m.log())
	}
	return strings.TrimSpace(out)
}

// want fails unless the script's output is just that.
func (m *machine) want(output, script string) {
	m.t.Helper()
	if out := m.run(script); out != output {
		m.t.Errorf("%s\nsays  %q\nwant  %q", script, out, output)
	}
}

// eventually repeats the script until it succeeds.
func (m *machine) eventually(script string) string {
	m.t.Helper()
	return m.run("i=0; while ! out=$(" + script + " 2>&1); do i=$((i+1)); [ $i -lt 300 ] || { echo \"$out\"; exit 1; }; sleep 0.1; done; echo \"$out\"")
}

// log is what the engine wrote last. A machine that answers nothing else answers this neither: no patience for it.
func (m *machine) log() string {
	select {
	case a := <-m.start("tail -n 30 /var/log/wherryd.log 2>/dev/null; dmesg | tail -n 8"):
		return "the engine's log:\n" + a.Output
	case <-m.gone:
	case <-time.After(10 * time.Second):
	}
	return "console:\n" + m.console()
}

func (m *machine) console() string {
	f, err := os.Open(filepath.Join(m.dir, "console"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// cut is a power failure.
func (m *machine) cut() {
	if m.cmd.ProcessState != nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.account()
	if m.conn != nil {
		m.conn.Close()
		<-m.gone
	}
}

// account says what a machine has cost: with one thread that is its share of the test's time on a quiet host.
func (m *machine) account() {
	p := m.cmd.ProcessState
	m.t.Logf("the machine used %.0f s of a processor", (p.UserTime() + p.SystemTime()).Seconds())
}

// off shuts the machine down as a person would.
func (m *machine) off() {
	m.t.Helper()
	m.start("poweroff")
	select {
	case <-m.gone:
		_ = m.cmd.Wait()
		m.conn.Close()
		m.account()
	case <-time.After(patience):
		m.t.Fatal(fmt.Sprintf("the machine does not shut down:\n%s", m.console()))
	}
}
