package test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var updatePosture = flag.Bool("update", false, "write testdata/posture anew")

// TestPostureByEveryWay holds all that a process of a container is confined to (descriptors, environment, limits, ids, capabilities,
// namespaces, mounts, devices, what of /proc and /sys can be written to, system calls and sockets) against a checked-in description: for
// run, exec and health checks, which must be the same; by default, strict and privileged; by both system call interfaces. Read the
// difference before -update.
func TestPostureByEveryWay(t *testing.T) {
	h := newHostile(t)
	for name, options := range map[string][]string{"default": nil, "user": {"-u", "web"}, "strict": {"--strict"}, "privileged": {"--privileged"}} {
		for _, program := range []string{"probe", "probe32"} {
			t.Run(name+" "+program, func(t *testing.T) {
				image := h.image("posture-"+program, map[string]any{"Healthcheck": map[string]any{"Test": []string{"CMD", program, "posture", "/tmp/health"}, "Interval": 50 * time.Millisecond}})
				options := append([]string{"--hostname", "box"}, options...)
				c := h.background(append(options, image, "sleep", "1000")...)
				posture := func(way, text string) string {
					text = plainPosture(t, text)
					if name == "privileged" { // everything that the machine has
						text = without(text, "writable /", "device ")
					}
					if !strings.Contains(text, "socket tipc") {
						t.Fatalf("%s: it is not whole: %s", way, text)
					}
					return text
				}
				byRun := posture("run", h.must("wherry", append(append([]string{"run", "--rm"}, options...), image, program, "posture")...))
				var health string
				ok(t, eventually(30*time.Second, func() (err error) {
					out, code := h.run("wherry", "exec", c, "cat", "/tmp/health")
					if health = out; code != 0 {
						err = fmt.Errorf("no health check: %s", out)
					}
					return err
				}))
				for way, text := range map[string]string{"exec": h.must("wherry", "exec", c, program, "posture"), "docker exec": h.must("docker", "exec", c, program, "posture"), "a health check": health} {
					if d := difference(byRun, posture(way, text)); d != "" {
						t.Errorf("%s differs from run:\n%s", way, d)
					}
				}
				file := filepath.Join("testdata/posture", name+"-"+program+".txt")
				if *updatePosture {
					ok(t, os.MkdirAll("testdata/posture", 0o755), os.WriteFile(file, []byte(byRun), 0o644))
				}
				want, err := os.ReadFile(file)
				ok(t, err)
				if d := difference(string(want), byRun); d != "" {
					t.Errorf("%s (-want +got; go test -run TestPosture -update):\n%s", file, d)
				}
			})
		}
	}
}

// TestTerminalsAreTheOnlyDescriptors: class 2: with a terminal, a process has that three times and nothing else, by every client.
func TestTerminalsAreTheOnlyDescriptors(t *testing.T) {
	h := newHostile(t)
	image := h.image("base", nil)
	c := h.background("-t", image, "sleep", "1000")
	for _, client := range []string{"wherry", "docker"} {
		for way, args := range map[string][]string{"run": {"run", "--rm", "-t", image}, "exec": {"exec", "-t", c}} {
			lines := strings.Fields(h.must(client, append(args, "probe", "fds")...))
			if len(lines) != 6 || lines[0]+lines[2]+lines[4] != "012" || !strings.HasPrefix(lines[1], "/dev/pts/") || lines[1] != lines[3] || lines[1] != lines[5] {
				t.Errorf("%s by %s: %q", way, client, lines)
			}
		}
	}
}

// plainPosture replaces what differs from machine to machine: namespaces by whether they are the engine's, limits, the score and a
// file system's type by whether they are the engine's.
func plainPosture(t *testing.T, text string) string {
	t.Helper()
	engine := fmt.Sprintf("/proc/%d/", shared.engine.cmd.Process.Pid)
	same := map[string]string{}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		id, err := os.Readlink(engine + "ns/" + ns)
		ok(t, err)
		same["namespace "+ns+" "+id] = "namespace " + ns + " the host's"
	}
	limits, err := os.ReadFile(engine + "limits")
	ok(t, err)
	for line := range strings.Lines(string(limits)) {
		same["rlimit "+strings.Join(strings.Fields(line), " ")] = "rlimit as the engine's"
	}
	score, err := os.ReadFile(engine + "oom_score_adj")
	ok(t, err)
	same["oom_score_adj "+strings.TrimSpace(string(score))] = "oom_score_adj as the engine's"
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); len(f) > 2 && f[0] == "mount" && strings.HasPrefix(f[1], "/etc/") {
			line = strings.Replace(line, " "+f[2]+" ", " as-the-engine's-state ", 1)
		}
		if s, ok := same[line]; ok {
			line = s
		} else if ns, ok := strings.CutPrefix(line, "namespace "); ok {
			kind, _, _ := strings.Cut(ns, " ")
			line = "namespace " + kind + " own"
		} else if serial, ok := strings.CutPrefix(line, "session keyring "); ok && strings.Trim(serial, "-0123456789") == "" {
			line = "session keyring own"
		}
		if len(out) == 0 || line != out[len(out)-1] {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n") + "\n"
}

// without leaves out lines that begin so.
func without(text string, prefixes ...string) string {
	var out strings.Builder
lines:
	for line := range strings.Lines(text) {
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) {
				continue lines
			}
		}
		out.WriteString(line)
	}
	return out.String()
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
