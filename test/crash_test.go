package test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// allCrashPoints, when set, has every crash point tried instead of some.
const allCrashPoints = "WHERRY_TEST_ALL_CRASH_POINTS"

// crashCalls are the system calls that change what is on the disk or what is mounted.
var crashCalls = []string{
	"rename", "renameat", "renameat2", "fsync", "fdatasync", "syncfs", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "pwrite64", "ftruncate",
	"fallocate", "linkat", "symlinkat", "mknodat", "setxattr", "fsetxattr", "lsetxattr", "utimensat", "fchownat", "fchmodat", "mount", "umount2",
	"fsmount", "move_mount", "write",
}

// crash is one operation that is cut off.
type crash struct {
	name    string
	prepare func(s *crashStore)
	do      []string // the operation
	gone    string   // the image that it removes
	app     string   // the image that is called crashLoaded; "": that one
}

func crashes() []crash {
	app := func(s *crashStore) { s.must("load", "-q", "-i", s.app) }
	return []crash{
		{name: "pull", do: []string{"pull", "-q", crashPulled}},
		{name: "load", do: []string{"load", "-q", "-i", "APP"}},
		{name: "commit", prepare: func(s *crashStore) {
			s.must("run", "--name", "cut", "--network", "none", crashStanding, "sh", "-c", "echo changed >/data/new && rm /data/standing0")
		}, do: []string{"commit", "cut", crashCommitted}},
		{name: "rmi", prepare: app, do: []string{"rmi", crashLoaded}, gone: crashLoaded},
		{name: "prune", prepare: func(s *crashStore) {
			app(s)
			s.must("tag", crashStanding, crashLoaded)
		}, do: []string{"image", "prune", "-f"}, app: crashStanding},
	}
}

const (
	crashStanding  = "crash/standing:1"
	crashLoaded    = "crash/app:1"
	crashCommitted = "crash/committed:1"
	crashPulled    = registryAddress + "/crash/app:1"
)

// TestCrashPoints kills the engine at system calls of what changes its store. The engine starts again; every image that it lists runs with
// the content that it has to have; the operation succeeds when it is done again; and when all is removed nothing more lies below --root than
// in an engine that was never killed.
func TestCrashPoints(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d; %s=1 tries all", seed, allCrashPoints)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newCrashStore(t)
	for _, c := range crashes() {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			s.sums[crashLoaded] = s.sums[cmp.Or(c.app, crashPulled)]
			defer s.end()
			s.template(c)
			points, clean := s.peace(c)
			if os.Getenv(allCrashPoints) == "" {
				random.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
				points = points[:min(4, len(points))]
			}
			for _, p := range points {
				s.cut(c, p, clean)
			}
		})
	}
}

// crashPoint is the nth call of its name in one of the engine's threads.
type crashPoint struct {
	call string
	n    int
}

// crashStore is an engine whose store is put back to what it was before each point.
type crashStore struct {
	t        *testing.T
	engine   *engine
	app      string            // an archive
	sums     map[string]string // of images' /data, by name
	standing string            // an archive
}

func newCrashStore(t *testing.T) *crashStore {
	s := &crashStore{t: t, engine: newEngine(shared, filepath.Join(shared.dir, "crash")), sums: map[string]string{}}
	base := busyboxLayer(t)
	s.standing = imageArchive(t, crashStanding, base, dataLayer("standing", 5))
	s.app = imageArchive(t, crashLoaded, base, dataLayer("app", 25), dataLayer("more", 3))
	h := &hostile{t: t}
	h.must("wherry", "load", "-q", "-i", s.app)
	h.must("wherry", "load", "-q", "-i", s.standing)
	h.must("wherry", "tag", crashLoaded, crashPulled)
	h.must("wherry", "push", "-q", crashPulled)
	s.sums[crashStanding] = h.must("wherry", "run", "--rm", "--network", "none", crashStanding, "sh", "-c", dataSum)
	s.sums[crashLoaded] = h.must("wherry", "run", "--rm", "--network", "none", crashLoaded, "sh", "-c", dataSum)
	s.sums[crashPulled] = s.sums[crashLoaded]
	s.sums[crashCommitted] = h.must("wherry", "run", "--rm", "--network", "none", crashStanding, "sh", "-c", "echo changed >/data/new && rm /data/standing0 && "+dataSum)
	h.must("wherry", "rmi", "-f", crashLoaded, crashPulled, crashStanding)
	t.Cleanup(func() {
		unmountBelow(t, s.engine.dir)
		ok(t, os.RemoveAll(s.engine.dir))
	})
	return s
}

// dataSum says what an image has in /data, names and links included.
const dataSum = "cd /data && for f in *; do echo $f $(stat -c '%a %u %h' $f); [ -f $f ] && sha256sum <$f; done; true"

func dataLayer(name string, n int) []byte {
	pieces := []piece{{name: "data/", kind: '5'}, {name: "data/" + name + "-link", link: name + "0", kind: '2'}}
	for i := range n {
		pieces = append(pieces, piece{name: fmt.Sprintf("data/%s%d", name, i), content: strings.Repeat(fmt.Sprintf("%s %d ", name, i), 200*i), mode: int64(0o600 | i%64)})
	}
	pieces = append(pieces, piece{name: "data/" + name + "-hard", link: "data/" + name + "0", kind: '1'}, piece{name: "data/.wh.standing1"})
	return layerOf(pieces...)
}

// must runs wherry against the engine under test.
func (s *crashStore) must(args ...string) string {
	s.t.Helper()
	out, err := s.engine.run("wherry", args...)
	if err != nil {
		log, _ := os.ReadFile(s.engine.dir + "/wherryd.log")
		s.t.Fatalf("wherry %s: %v: %s\nthe engine's log:\n%s", strings.Join(args, " "), err, out, log)
	}
	return strings.TrimSpace(out)
}

func (s *crashStore) args(c crash) []string {
	return strings.Split(strings.ReplaceAll(strings.Join(c.do, "\x00"), "APP", s.app), "\x00")
}

// end ends an engine that a failed test left.
func (s *crashStore) end() {
	if s.engine.cmd != nil && s.engine.cmd.ProcessState == nil {
		s.must("system", "prune", "-a", "-f")
		ok(s.t, s.engine.stop())
	}
}

// template makes the store that each cut of an operation begins with.
func (s *crashStore) template(c crash) {
	s.t.Helper()
	s.clear()
	ok(s.t, os.RemoveAll(s.engine.dir+"/template"), s.engine.start())
	s.must("load", "-q", "-i", s.standing)
	if c.prepare != nil {
		c.prepare(s)
	}
	ok(s.t, s.engine.stop(), os.Rename(s.engine.dir+"/root", s.engine.dir+"/template"))
}

// clear removes the store, and what an engine leaves mounted of it.
func (s *crashStore) clear() {
	s.t.Helper()
	ok(s.t, os.MkdirAll(s.engine.dir, 0o700))
	unmountBelow(s.t, s.engine.dir)
	ok(s.t, os.RemoveAll(s.engine.dir+"/root"), os.RemoveAll(s.engine.dir+"/state"), os.RemoveAll(s.engine.dir+"/wherryd.log"))
}

func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	ok(t, err)
	var at []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			at = append(at, f[4])
		}
	}
	for _, path := range slices.Backward(at) {
		ok(t, unix.Unmount(path, unix.MNT_DETACH))
	}
}

func (s *crashStore) begin() {
	s.t.Helper()
	s.clear()
	out, err := exec.Command("cp", "-a", s.engine.dir+"/template", s.engine.dir+"/root").CombinedOutput()
	if err != nil {
		s.t.Fatalf("cp: %v: %s", err, out)
	}
	ok(s.t, s.engine.start())
}

// peace does the operation without a cut, and returns where it could be cut and what is left when all is removed.
func (s *crashStore) peace(c crash) (points []crashPoint, clean string) {
	s.t.Helper()
	s.begin()
	trace := s.trace("-e", "trace="+strings.Join(s.known(), ","))
	s.must(s.args(c)...)
	text := trace.end(s.t)
	counts := map[[2]string]int{} // by thread and call
	most := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^(\d+) +(\w+)\(`).FindAllStringSubmatch(text, -1) {
		counts[[2]string{m[1], m[2]}]++
		most[m[2]] = max(most[m[2]], counts[[2]string{m[1], m[2]}])
	}
	for call, n := range most {
		for i := 1; i <= n; i++ {
			points = append(points, crashPoint{call, i})
		}
	}
	slices.SortFunc(points, func(a, b crashPoint) int {
		return strings.Compare(fmt.Sprintf("%s%6d", a.call, a.n), fmt.Sprintf("%s%6d", b.call, b.n))
	})
	if most["fsync"]+most["fdatasync"] == 0 {
		s.t.Fatalf("the operation synced nothing, or was not seen: %d calls", len(points))
	}
	s.sound("")
	return points, s.remove()
}

// known are the crash calls that this machine has.
func (s *crashStore) known() []string {
	if exec.Command("strace", "-e", "trace="+strings.Join(crashCalls, ","), "true").Run() == nil {
		return crashCalls
	}
	var out []string
	for _, c := range crashCalls {
		if exec.Command("strace", "-e", "trace="+c, "true").Run() == nil {
			out = append(out, c)
		}
	}
	return out
}

// cut does the operation and kills the engine at a point.
func (s *crashStore) cut(c crash, p crashPoint, clean string) {
	s.t.Helper()
	s.begin()
	where := fmt.Sprintf("killed at %s %d", p.call, p.n)
	trace := s.trace("-e", "trace="+p.call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", p.call, p.n))
	ended := make(chan error, 1)
	go func() { ended <- s.engine.cmd.Wait() }()
	_, err := s.engine.run("wherry", s.args(c)...)
	killed := false
	if err == nil { // this time its threads shared the calls out otherwise
		trace.end(s.t)
		select {
		case <-ended: // behind the answer
			killed = true
		default:
			ok(s.t, s.engine.cmd.Process.Kill())
			<-ended
		}
	} else {
		select {
		case <-ended:
			killed = true
		case <-time.After(20 * time.Second):
			s.t.Fatalf("%s: the operation failed and the engine lives: %v", where, err)
		}
		trace.end(s.t)
	}
	ok(s.t, s.engine.start())
	s.sound(where)
	if c.gone == "" || strings.Contains(s.must("images", "--format", "{{.Repository}}:{{.Tag}}"), c.gone) {
		s.must(s.args(c)...)
	}
	s.sound(where + ", and done again")
	if left := s.remove(); left != clean {
		s.t.Errorf("%s (%v): in the end there are other files than without a kill:\n%s", where, killed, difference(clean, left))
	}
}

// sound checks that what is listed is whole.
func (s *crashStore) sound(where string) {
	s.t.Helper()
	for line := range strings.Lines(s.must("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		got := s.must("run", "--rm", "--network", "none", id, "sh", "-c", dataSum)
		if want := s.sums[name]; want != got && (name != "<none>:<none>" || got != s.sums[crashPulled] && got != s.sums[crashCommitted]) {
			s.t.Errorf("%s: %s has other files than it has to have:\n%s", where, name, difference(want+"\n", got+"\n"))
		}
	}
	ok(s.t, filepath.WalkDir(s.engine.dir+"/root/content/blobs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && fmt.Sprintf("%x", sha256.Sum256(b)) != d.Name() {
			err = fmt.Errorf("%s: blob %s has other content", where, d.Name())
		}
		return err
	}))
	log, err := os.ReadFile(s.engine.dir + "/wherryd.log")
	ok(s.t, err)
	if bytes.Contains(log, []byte("damaged")) {
		s.t.Errorf("%s: the engine found damage:\n%s", where, log)
	}
}

// remove takes all away but the standing image, ends the engine and describes what is left.
func (s *crashStore) remove() string {
	s.t.Helper()
	for line := range strings.Lines(s.must("ps", "-aq")) {
		s.must("rm", "-f", strings.TrimSpace(line))
	}
	for line := range strings.Lines(s.must("images", "--format", "{{.Repository}}:{{.Tag}}")) {
		if name := strings.TrimSpace(line); name != crashStanding && !strings.Contains(name, "<none>") {
			s.must("rmi", name)
		}
	}
	s.must("image", "prune", "-f")
	ok(s.t, s.engine.stop())
	return s.listing()
}

// listing names the files below --root, without the numbers that layers happen to have.
func (s *crashStore) listing() string {
	s.t.Helper()
	var out []string
	number := regexp.MustCompile(`/\d+(/|$)`)
	root := s.engine.dir + "/root"
	ok(s.t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out = append(out, number.ReplaceAllString(strings.TrimPrefix(path, root), "/N$1"))
		return nil
	}))
	sort.Strings(out)
	return strings.Join(out, "\n") + "\n"
}

// tracer is strace on the engine under test.
type tracer struct {
	cmd  *exec.Cmd
	file string
}

// trace returns when strace holds all of the engine's threads.
func (s *crashStore) trace(args ...string) *tracer {
	s.t.Helper()
	tr := &tracer{file: filepath.Join(s.engine.dir, "trace")}
	tr.cmd = exec.Command("strace", append([]string{"-f", "-o", tr.file, "-p", fmt.Sprint(s.engine.cmd.Process.Pid)}, args...)...)
	stderr, err := tr.cmd.StderrPipe()
	ok(s.t, err, tr.cmd.Start())
	r := bufio.NewReader(stderr)
	line, err := r.ReadString('\n')
	if err != nil || !strings.Contains(line, "attached") {
		s.t.Fatalf("strace: %s %v", line, err)
	}
	go func() { _, _ = r.WriteTo(ignore{}) }()
	return tr
}

type ignore struct{}

func (ignore) Write(p []byte) (int, error) { return len(p), nil }

// end lets the engine go, and returns what was seen.
func (tr *tracer) end(t *testing.T) string {
	t.Helper()
	_ = tr.cmd.Process.Signal(syscall.SIGINT)
	// It waits for ever where the engine is killed in that moment: for the first thread, which cannot be waited for before the others.
	stuck := time.AfterFunc(10*time.Second, func() { _ = tr.cmd.Process.Kill() })
	defer stuck.Stop()
	var exit *exec.ExitError
	if err := tr.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	b, err := os.ReadFile(tr.file)
	ok(t, err)
	return string(b)
}
