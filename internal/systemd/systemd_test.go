package systemd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestNames(t *testing.T) {
	for path, want := range map[string]Name{
		"":                               {"system.slice", `oar-a\x2bb.scope`},
		"machine.slice:libpod:123":       {"machine.slice", "libpod-123.scope"},
		":runc:123":                      {"system.slice", "runc-123.scope"},
		"a-b.slice::123":                 {"a-b.slice", "123.scope"},
		"system.slice:cri-containerd:ab": {"system.slice", "cri-containerd-ab.scope"},
	} {
		if got, err := ParseName(path, "a+b"); err != nil || got != want && os.Geteuid() == 0 {
			t.Errorf("%q is %v, %v; want %v", path, got, err, want)
		}
	}
	for _, path := range []string{"/a/b", "a:b", "x.slice:a:b:c", "x:a:b", "/x.slice:a:b", "x.slice:a:", "x.slice:a:b.slice", "x.slice:a:b/../c", "x.slice:a: b", ".slice:a:b"} {
		if got, err := ParseName(path, "id"); err == nil {
			t.Errorf("%q is taken as %v", path, got)
		}
	}
	if got := label("oar-a.scope"); got != "oar_2da_2escope" {
		t.Error(got)
	}
}

func ptr[T any](v T) *T { return &v }

func TestLimits(t *testing.T) {
	got := map[string]any{}
	for _, p := range Limits(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(1 << 20))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(33333)), Period: ptr(uint64(50000)), Cpus: "0-1,9", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000))},
		Unified: map[string]string{"memory.high": "max", "memory.min": "4096"},
	}) {
		got[p.Name] = p.Value
	}
	want := map[string]any{"MemoryMax": uint64(64 << 20), "MemorySwapMax": uint64(32 << 20), "MemoryLow": uint64(1 << 20), "CPUWeight": uint64(100),
		"CPUQuotaPeriodUSec": uint64(50000), "CPUQuotaPerSecUSec": uint64(670000), "AllowedCPUs": []byte{3, 2}, "AllowedMemoryNodes": []byte{1},
		"TasksMax": none, "IOWeight": uint64(10000), "MemoryHigh": none, "MemoryMin": uint64(4096)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%v, want\n%v", got, want)
	}
	if got := Limits(&specs.LinuxResources{Unified: map[string]string{"cpu.max": "5000 10000", "cpuset.cpus": "1"}}); !reflect.DeepEqual(got,
		[]Property{{"CPUQuotaPeriodUSec", uint64(10000)}, {"CPUQuotaPerSecUSec", uint64(500000)}, {"AllowedCPUs", []byte{2}}}) {
		t.Error(got)
	}
	for _, list := range []string{"", "1-", "3-1", "x", "0-99999999"} {
		if mask, ok := bits(list); ok {
			t.Errorf("%q is %v", list, mask)
		}
	}
}

func TestAnnotations(t *testing.T) {
	rows := map[string]struct {
		text string
		want Property
	}{
		"TimeoutStopUSec":     {"uint64 5000000", Property{"TimeoutStopUSec", uint64(5000000)}},
		"TimeoutStopSec":      {"2.5", Property{"TimeoutStopUSec", uint64(2500000)}},
		"RuntimeMaxSec":       {"60", Property{"RuntimeMaxUSec", uint64(60000000)}},
		"CollectMode":         {"'inactive'", Property{"CollectMode", "inactive"}},
		"After":               {"['a.service', \"b.target\"]", Property{"After", []string{"a.service", "b.target"}}},
		"Before":              {"@as []", Property{"Before", []string{}}},
		"DefaultDependencies": {"true", Property{"DefaultDependencies", true}},
		"KillSignal":          {"int32 15", Property{"KillSignal", int32(15)}},
		"Description":         {"'a pod'", Property{"Description", "a pod"}},
	}
	for name, row := range rows {
		got, err := Annotated(map[string]string{annotationPrefix + name: row.text, "other": "x"})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], row.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, row.want)
		}
	}
	for name, text := range map[string]string{"ExecStart": "[('/bin/sh', ['sh'], false)]", "ExecStopPost": "['/bin/sh']", "BindsTo": "['poweroff.target']", "Wants": "['x.service']",
		"Slice": "'other.slice'", "Delegate": "false", "PIDs": "[uint32 1]", "MemoryMax": "uint64 1", "DeviceAllow": "[('/dev/mem','rw')]", "": "'x'",
		"KillMode": "'none'", "KillSignal": "int32 99", "After": "['a/../b.service']", "Before": "[1]", "DefaultDependencies": "1", "TimeoutStopUSec": "-1", "TimeoutStopSec": "NaN",
		"Description": "'a\\'b'", "CollectMode": "inactive"} {
		if got, err := Annotated(map[string]string{annotationPrefix + name: text}); err == nil {
			t.Errorf("%s = %s is taken: %v", name, text, got)
		}
	}
}

func FuzzAnnotation(f *testing.F) {
	f.Add("After", "['a.service', 'b.target']")
	f.Add("TimeoutStopSec", "1.5")
	f.Add("Description", "'text'")
	f.Fuzz(func(t *testing.T, name, text string) {
		list, err := Annotated(map[string]string{annotationPrefix + name: text})
		if err != nil {
			return
		}
		var e encoder
		if e.properties(list); e.err != nil || len(list) != 1 {
			t.Errorf("%q = %q: %v, %v", name, text, list, e.err)
		}
	})
}

// bus answers on a socket as a bus with a service manager does; each call's member is told.
func bus(t *testing.T, answers map[string]string) (path string, calls <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	told := make(chan string, 64)
	go func() {
		defer close(told)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for line := ""; err == nil && line != "BEGIN\r\n"; {
			line, err = in.ReadString('\n')
		}
		_, _ = io.WriteString(conn, "DATA\r\nOK 0123\r\n")
		for {
			m, err := readMessage(in)
			if err != nil {
				return
			}
			told <- m.member
			_, _ = conn.Write(reply(m, answers[m.member]))
		}
	}()
	return path, told
}

// reply answers a call: "" with nothing, "!NAME" with an error, "=VALUE" with a property, else with an object's path, whose job ends before the answer comes.
func reply(m *message, text string) []byte {
	switch {
	case text == "":
		return answer(kindReply, 1, m.serial, "", "", func(*encoder) {})
	case text[0] == '=':
		return answer(kindReply, 1, m.serial, "", "v", func(e *encoder) { e.variant(text[1:]) })
	case text[0] == '!':
		return errorAnswer(m.serial, text[1:])
	}
	return append(jobRemoved(), answer(kindReply, 1, m.serial, "", "o", func(e *encoder) { e.string(text) })...)
}

func errorAnswer(serial uint32, short string) []byte {
	var e, b encoder
	b.string("it is said")
	e.b = append(e.b, 'l', kindError, 0, 1)
	e.uint32(uint32(len(b.b)))
	e.uint32(9)
	e.array(8, func() {
		for field, value := range map[byte]any{fieldError: name + "." + short, fieldReply: serial} {
			e.align(8)
			e.byte(field)
			e.variant(value)
		}
		e.align(8)
		e.byte(fieldSignature)
		e.signature("g")
		e.signature("s")
	})
	e.align(8)
	return append(e.b, b.b...)
}

// An end of a job that comes before the answer that names it is not lost; a unit that is gone is stopped.
func TestConversation(t *testing.T) {
	path, calls := bus(t, map[string]string{"StopUnit": "/org/freedesktop/systemd1/job/12", "ResetFailedUnit": "!NoSuchUnit"})
	c, err := dial(t.Context(), address{path, true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), "oar-x.scope"); err != nil {
		t.Error(err)
	}
	c.Close()
	var got []string
	for member := range calls {
		got = append(got, member)
	}
	if want := []string{"Hello", "AddMatch", "StopUnit", "ResetFailedUnit"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTakenName(t *testing.T) {
	path, _ := bus(t, map[string]string{"StartTransientUnit": "!UnitExists"})
	c, err := dial(t.Context(), address{path, false})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Start(t.Context(), Scope{Unit: "oar-x.scope", Pids: []int{1}})
	if !isError(err, "UnitExists") || !strings.Contains(fmt.Sprint(err), "oar-x.scope") {
		t.Error(err)
	}
}

func TestStopping(t *testing.T) {
	for state, want := range map[string]bool{"stopping": true, "running": false, "degraded": false} {
		path, _ := bus(t, map[string]string{"Get": "=" + state})
		c, err := dial(t.Context(), address{path, false})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Stopping(t.Context()); err != nil || got != want {
			t.Errorf("%s: %t, %v", state, got, err)
		}
		c.Close()
	}
}

// TestRealScope speaks to the service manager of this process's user: test/vm runs it on a host that has one, as root and as a user.
func TestRealScope(t *testing.T) {
	if !Running() {
		t.Skip("systemd is not this host's service manager; test/vm has one")
	}
	c, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	name := Name{"", fmt.Sprintf("wherry-test-%d.scope", os.Getpid())}
	group, err := c.Start(t.Context(), Scope{Unit: name.Unit, Description: "a test", Pids: []int{sleeper.Process.Pid}, Properties: []Property{{"MemoryMax", uint64(64 << 20)}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := read("cgroup.procs"); got != fmt.Sprint(sleeper.Process.Pid) || !strings.HasSuffix(group, "/"+name.Unit) {
		t.Errorf("%s has processes %q, not %d", group, got, sleeper.Process.Pid)
	}
	if got := read("memory.max"); got != "67108864" {
		t.Errorf("memory.max is %s", got)
	}
	if err := c.Set(t.Context(), name.Unit, []Property{{"MemoryMax", uint64(32 << 20)}}); err != nil {
		t.Error(err)
	}
	if got := read("memory.max"); got != "33554432" {
		t.Errorf("memory.max is %s after a change", got)
	}
	if err := os.Mkdir(filepath.Join("/sys/fs/cgroup", group, "inner"), 0o755); err != nil {
		t.Errorf("the group is not delegated: %v", err)
	}
	if _, err := c.Start(t.Context(), Scope{Unit: name.Unit, Pids: []int{os.Getpid()}}); !isError(err, "UnitExists") {
		t.Errorf("a second one of the same name: %v", err)
	}
	for range 2 {
		if err := c.Stop(t.Context(), name.Unit); err != nil {
			t.Error(err)
		}
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
	if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", group)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", group, err)
	}
}
