package ociruntime

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/spec"
)

var updatePosture = flag.Bool("update", false, "write testdata/posture-*.txt anew")

// TestPosture holds everything that a container's processes are confined to against a checked-in description, for run and exec (which
// must be the same), for the default, --privileged and strict, through both system call interfaces. Read the diff before -update.
func TestPosture(t *testing.T) {
	rows := map[string]struct {
		host container.HostConfig
		own  bool // a user namespace
		user specs.User
	}{
		"default":    {own: true},
		"user":       {own: true, user: specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{33, 4}}},
		"strict":     {host: container.HostConfig{SecurityOpt: []string{"wherry=strict"}}, own: true},
		"privileged": {host: container.HostConfig{Privileged: true}},
		"host-users": {},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			b := postureBox(t, row.host, row.own, row.user)
			c := b.sleeper()
			for _, program := range []string{"probe", "probe32"} {
				exec := *b.spec.Process
				exec.Args = []string{program, "posture"}
				byExec, status, err := b.exec(c, &exec)
				if err != nil || status.Code != 0 {
					t.Fatalf("exec: %v %+v %s", err, status, byExec)
				}
				other := postureBox(t, row.host, row.own, row.user)
				other.spec.Process.Args = exec.Args
				byRun, status, err := other.run()
				if err != nil || status.Code != 0 {
					t.Fatalf("run: %v %+v %s", err, status, byRun)
				}
				byRun, byExec = plainPosture(t, byRun), plainPosture(t, byExec)
				if name == "privileged" { // everything, on any machine another list
					byRun, byExec = without(byRun, "writable /"), without(byExec, "writable /")
				}
				if byRun != byExec {
					t.Errorf("%s: exec differs from run:\n%s", program, difference(byRun, byExec))
				}
				golden(t, "testdata/posture-"+name+"-"+program+".txt", byRun)
			}
		})
	}
}

func postureBox(t *testing.T, host container.HostConfig, own bool, user specs.User) *box {
	t.Helper()
	b := newBox(t).probe()
	cgroup := b.spec.Linux.CgroupsPath
	host.ShmSize = 64 << 20
	in := spec.Input{ID: "box", Config: &container.Config{Cmd: []string{"true"}, Env: []string{"PATH=/bin"}}, HostConfig: &host, Hostname: "box", CgroupPath: cgroup, User: user}
	if own {
		in.Base, in.Size = base, 65536
	} else {
		b.hostUsers()
	}
	made, err := spec.Build(in)
	must(t, err)
	b.spec = made
	return b
}

// plainPosture replaces what differs from machine to machine: namespaces by whether they are the host's, limits and the score by whether
// they are this process's.
func plainPosture(t *testing.T, text string) string {
	t.Helper()
	own := creators(t)
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Fields(line); len(f) == 3 && f[0] == "namespace" {
			mine, err := os.Readlink("/proc/self/ns/" + f[1])
			must(t, err)
			f[2] = "own"
			if mine == strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]) {
				f[2] = "the host's"
			}
			line = strings.Join(f, " ")
		}
		if kind, _, _ := strings.Cut(line, " "); own[line] {
			line = kind + " as its creator's"
		} else if serial, ok := strings.CutPrefix(line, "session keyring "); ok && strings.Trim(serial, "-0123456789") == "" {
			line = "session keyring own"
		}
		if len(out) > 0 && line == out[len(out)-1] {
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n") + "\n"
}

// creators are the lines that a process inherits from this one as they are.
func creators(t *testing.T) map[string]bool {
	t.Helper()
	limits, err := os.ReadFile("/proc/self/limits")
	must(t, err)
	own := map[string]bool{}
	for line := range strings.Lines(string(limits)) {
		own["rlimit "+strings.Join(strings.Fields(line), " ")] = true
	}
	own["oom_score_adj "+strconv.Itoa(ownOOMScore())+" "] = true
	if id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); err == nil {
		own["session keyring "+strconv.Itoa(id)] = true
	}
	return own
}

func without(text, prefix string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *updatePosture {
		must(t, os.WriteFile(filepath.FromSlash(name), []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s (-want +got; go test -run TestPosture -update):\n%s", name, difference(string(want), got))
	}
}

// difference lists the lines that only one side has.
func difference(a, b string) string {
	in := func(text string) map[string]bool {
		m := map[string]bool{}
		for line := range strings.Lines(text) {
			m[line] = true
		}
		return m
	}
	var out strings.Builder
	left, right := in(a), in(b)
	for line := range strings.Lines(a) {
		if !right[line] {
			out.WriteString("-" + line)
		}
	}
	for line := range strings.Lines(b) {
		if !left[line] {
			out.WriteString("+" + line)
		}
	}
	return out.String()
}
