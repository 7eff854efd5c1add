package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallDisk is an ext4 of its own that an engine lives on.
func smallDisk(t *testing.T, size string, inodes int, args ...string) *engine {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "disk-")
	ok(t, err)
	file, at := filepath.Join(dir, "disk"), filepath.Join(dir, "at")
	ok(t, os.Mkdir(at, 0o700))
	for _, args := range [][]string{
		{"truncate", "-s", size, file},
		{"mkfs.ext4", "-q", "-m", "0", "-N", fmt.Sprint(inodes), file},
		{"mount", "-o", "loop", file, at},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	e := newEngine(shared, filepath.Join(at, "e"))
	e.args = args
	t.Cleanup(func() {
		if e.cmd != nil {
			_, _ = e.run("wherry", "system", "prune", "-a", "-f")
			if err := e.shutdown(); err != nil {
				t.Error(err)
			}
		}
		unmountBelow(t, dir)
		ok(t, os.RemoveAll(dir))
	})
	ok(t, e.start())
	return e
}

// TestFullDisks: without room, or without room for one more file, each way of making an image or a container says so in one line; what was
// there stays whole; rm, rmi and prune work; and with room the same works.
func TestFullDisks(t *testing.T) {
	rows := map[string]struct {
		size   string
		inodes int
		fill   string // run in the engine's folder until the disk is full
		args   []string
	}{
		"bytes":  {"48M", 6000, "dd if=/dev/zero of=filler bs=1M 2>/dev/null; dd if=/dev/zero of=filler2 bs=4k 2>/dev/null; rm -f filler2; true", nil},
		"inodes": {"64M", 1400, "mkdir filler; cd filler; i=0; while true >$i; do i=$((i+1)); done 2>/dev/null; for f in 1 2 3 4 5 6 7 8 9 10 11 12; do rm -f $f; done; true", []string{"--layers", "overlay"}}, // a layer that is one file would find room
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			e := smallDisk(t, row.size, row.inodes, row.args...)
			f := &full{t: t, e: e, fill: row.fill}
			f.fillAndEmpty()
		})
	}
}

type full struct {
	t    *testing.T
	e    *engine
	fill string
}

func (f *full) must(args ...string) string {
	f.t.Helper()
	out, err := f.e.run("wherry", args...)
	if err != nil {
		f.t.Fatalf("wherry %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// fails says that a command ends with one line that names the disk.
func (f *full) fails(args ...string) {
	f.t.Helper()
	out, err := f.e.run("wherry", args...)
	if err == nil {
		f.t.Errorf("wherry %s went well on a full disk", strings.Join(args, " "))
	} else if low := strings.ToLower(out); !strings.Contains(low, "is full") && !strings.Contains(low, "no space left") || strings.Count(strings.TrimSpace(out), "\n") > 2 {
		f.t.Errorf("wherry %s on a full disk: %s", strings.Join(args, " "), out)
	}
}

func (f *full) shell(script string) {
	f.t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = f.e.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

func (f *full) fillAndEmpty() {
	t := f.t
	base := busyboxLayer(t)
	many := []piece{{name: "data/", kind: '5'}}
	for i := range 900 {
		many = append(many, piece{name: fmt.Sprintf("data/many%d", i), content: strings.Repeat(fmt.Sprint(i), 3000)})
	}
	standing, app := imageArchive(t, "full/standing:1", base, dataLayer("standing", 5)), imageArchive(t, "full/app:1", base, layerOf(many...))
	h := &hostile{t: t}
	pulled := registryAddress + "/full/app:1"
	h.must("wherry", "load", "-q", "-i", app)
	h.must("wherry", "tag", "full/app:1", pulled)
	h.must("wherry", "push", "-q", pulled)
	want := h.must("wherry", "run", "--rm", "--network", "none", pulled, "sh", "-c", dataSum)
	h.must("wherry", "rmi", "-f", pulled, "full/app:1")

	f.must("load", "-q", "-i", standing)
	sum := f.must("run", "--rm", "--network", "none", "full/standing:1", "sh", "-c", dataSum)
	f.must("run", "--name", "changed", "--network", "none", "full/standing:1", "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i >/data/c$i; i=$((i+1)); done; head -c 3000000 /dev/zero >/data/zeros")
	logs := f.must("run", "-d", "--name", "running", "--network", "none", "full/standing:1", "sh", "-c", "trap 'i=0; while [ $i -lt 3000 ]; do echo line $i of many that are to fill a log; i=$((i+1)); done; echo after' USR1; echo before; while :; do sleep 1000 & wait; done")
	f.must("tag", "full/standing:1", "full/other:1")
	whole := func(when string) {
		t.Helper()
		if out, err := f.e.run("wherry", "exec", "running", "sh", "-c", dataSum); err != nil || strings.TrimSpace(out) != sum {
			t.Errorf("%s: the container has other files: %v: %s", when, err, difference(sum+"\n", out))
		}
		if out := f.must("images", "--format", "{{.Repository}}:{{.Tag}}"); !strings.Contains(out, "full/standing:1") || strings.Contains(out, "full/app") {
			t.Errorf("%s: listed are %s", when, out)
		}
		if out := f.must("logs", logs); !strings.HasPrefix(out, "before") {
			t.Errorf("%s: the log is %.300q", when, out)
		}
	}
	f.shell(f.fill)
	f.fails("pull", "-q", pulled)
	f.fails("load", "-q", "-i", app)
	f.fails("commit", "changed", "full/committed:1")
	f.must("kill", "-s", "USR1", "running") // its output has no room, which is not its concern
	whole("full")
	if out, err := f.e.run("wherry", "run", "--rm", "--network", "none", "full/standing:1", "true"); err != nil && !strings.Contains(strings.ToLower(out), "no space left") && !strings.Contains(out, "full") {
		t.Errorf("run on a full disk: %s", out)
	}
	f.must("rmi", "full/other:1")
	f.must("rm", "changed")
	f.must("image", "prune", "-f")
	ok(t, f.e.stop(), f.e.start()) // it begins on a full disk, too
	whole("after a new start")
	f.shell("rm -rf filler*")
	f.must("kill", "-s", "USR1", "running")
	ok(t, eventually(20*time.Second, func() error {
		if out := f.must("logs", "--tail", "1", "running"); out != "after" {
			return fmt.Errorf("with room again the log ends with %q", out)
		}
		return nil
	}))
	f.must("pull", "-q", pulled)
	if got := f.must("run", "--rm", "--network", "none", pulled, "sh", "-c", dataSum); got != want {
		t.Errorf("pulled after room was made: %s", difference(want+"\n", got+"\n"))
	}
	f.must("rmi", pulled)
	f.must("load", "-q", "-i", app)
	f.must("rm", "-f", "running")
}
