package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// randomSeed, when set, is the only seed of TestRandom: a number, as a failed run has printed it.
	randomSeed = "WHERRY_TEST_SEED"
	// randomRounds, when set, is how many rounds each seed has.
	randomRounds = "WHERRY_TEST_ROUNDS"
)

// TestRandom has several clients change containers, volumes, networks and images at once, by chance, and kills the engine, shims and
// programs in the middle of it. After each round all that the engine says is held against a model of what it has to be, and against the
// kernel and the disk. In the end all is removed, and nothing is left.
func TestRandom(t *testing.T) {
	seeds, rounds := []uint64{1, 2, 3, uint64(time.Now().UnixNano()) % 1e6}, 5
	if text := os.Getenv(randomSeed); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		ok(t, err)
		seeds = []uint64{seed}
	}
	if text := os.Getenv(randomRounds); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		ok(t, err)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range rounds {
				w.round()
			}
			w.end()
		})
	}
}

// What is not known of a box where a request was not answered, or somebody else changed it meanwhile.
const (
	maybeGone = 1 << iota
	maybeStopped
	maybePaused
	maybeRenamed
	maybeMoved   // to other networks
	maybeUpdated // to another policy
	maybeOther   // it is another container
	maybeAll     = 1<<iota - 1
)

// box is a container as it has to be.
type box struct {
	name, id, renamed string
	image             string
	policy            string // of restarts
	disposable        bool   // --rm
	short             bool   // it ends by itself, with the code 3
	code              int    // that it was seen to have ended with: somebody may have killed it
	checked           bool   // it has a health check
	running, paused   bool
	stopped           bool // by a client: "unless-stopped" leaves it so
	networks          map[string]bool
	volume            string
	maybe             int // what is not known of it
	port              int
	written           [2]int // lines that it has in its file /written: so many at least, and at most
}

// actor is one client: what it owns nobody else changes, unless a round is one of quarrels.
type actor struct {
	w        *world
	name     string
	random   *rand.Rand
	boxes    []*box
	volumes  map[string][2]int // lines in the file "kept", at least and at most
	networks map[string]bool   // whether it is there for certain
	tags     map[string][2]int // lines in the image's /written
	unsure   map[string]bool   // names of volumes, networks and tags that may be there or not
	made     int
	lost     bool // the engine did not answer
}

// world is an engine with all that its clients know.
type world struct {
	t       *testing.T
	e       *engine
	seed    uint64
	random  *rand.Rand
	actors  []*actor
	http    *http.Client
	known   map[string]bool // ids of all containers that ever were
	orphans map[string]bool // anonymous volumes of containers that were removed without them
	fresh   string          // what lies on the disk when nothing is there
	links   string          // how the engine's interfaces begin

	mu       sync.Mutex
	killing  bool // requests need not be answered
	quarrels bool // anybody changes anything
	history  []string
}

const randomImage = "random/box:1"

func newWorld(t *testing.T, seed uint64) *world {
	dir := filepath.Join(shared.dir, fmt.Sprintf("random-%d", seed))
	w := &world{t: t, e: newEngine(shared, dir), seed: seed, random: rand.New(rand.NewPCG(seed, 0)), known: map[string]bool{}, orphans: map[string]bool{}}
	w.e.args = []string{"--cgroup-parent", w.groups()}
	w.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", w.e.front())
		}}}
	for i := range 3 {
		w.actors = append(w.actors, &actor{w: w, name: string(rune('a' + i)), random: rand.New(rand.NewPCG(seed, uint64(i+1))),
			volumes: map[string][2]int{}, networks: map[string]bool{}, tags: map[string][2]int{}, unsure: map[string]bool{}})
	}
	ok(t, w.e.start())
	t.Cleanup(w.close)
	file := imageArchive(t, randomImage, busyboxLayer(t))
	w.must("load", "-q", "-i", file)
	w.must("run", "--rm", randomImage, "true") // what is made once is there
	w.links = w.prefix()
	ok(t, eventually(20*time.Second, func() error {
		if w.fresh = w.disk(); strings.Contains(w.fresh, ".gone") {
			return errors.New("the first container's folder is still there")
		}
		return nil
	}))
	return w
}

func (w *world) groups() string { return "/" + run() + "/" + filepath.Base(w.e.dir) }

// close removes what a failed test has left.
func (w *world) close() {
	if w.t.Failed() {
		w.mu.Lock()
		w.t.Logf("%s=%d tries it again. What happened:\n%s", randomSeed, w.seed, strings.Join(w.history, "\n"))
		w.mu.Unlock()
		log, _ := os.ReadFile(w.e.dir + "/wherryd.log")
		w.t.Logf("the engine's log:\n%s", log)
	}
	if w.e.cmd.ProcessState != nil {
		ok(w.t, w.e.start())
	}
	ok(w.t, w.e.shutdown())
	unmountBelow(w.t, w.e.dir)
	ok(w.t, os.RemoveAll(w.e.dir))
}

// tell notes what happened, for whoever has to find out why.
func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.e.run("wherry", args...)
	if err != nil {
		w.t.Fatalf("wherry %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// errUnanswered: the engine is gone, and what it was asked for may have come about or not.
var errUnanswered = errors.New("no answer")

// ask sends a request; the answer goes into out, where there is one.
func (w *world) ask(method, path string, body, out any) (code int, err error) {
	var reader io.Reader
	if raw, is := body.([]byte); is {
		reader = bytes.NewReader(raw)
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		reader = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "http://engine/v1.51"+path, reader)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	if _, is := body.([]byte); is {
		r.Header.Set("Content-Type", "application/x-tar")
	}
	answer, err := w.http.Do(r)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errUnanswered, err)
	case answer.StatusCode >= 400:
		return answer.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(b))
	}
	if raw, is := out.(*[]byte); is {
		*raw = b
		return answer.StatusCode, nil
	}
	if out != nil {
		err = json.Unmarshal(b, out)
	}
	return answer.StatusCode, err
}

// get asks when the engine has to answer.
func (w *world) get(path string, out any) {
	w.t.Helper()
	_, err := w.ask("GET", path, nil, out)
	ok(w.t, err)
}

// round has all clients do something, perhaps with an end in the middle of it, and then looks whether all is as it has to be.
func (w *world) round() {
	w.t.Helper()
	kind := []string{"peace", "peace", "quarrels", "engine", "engine", "engine", "both", "both", "stop", "boot"}[w.random.IntN(10)]
	w.tell("--- %s", kind)
	cut := kind == "engine" || kind == "both" || kind == "stop" || kind == "boot"
	w.killing, w.quarrels = cut, kind == "quarrels"
	wait := time.Duration(w.random.IntN(400)) * time.Millisecond
	victim := w.random.IntN(1000)
	eager := [](func(*actor) bool){(*actor).runImage, (*actor).commit, (*actor).restart, (*actor).runImage, (*actor).rename}[w.random.IntN(5)]
	var wg sync.WaitGroup
	for _, b := range w.boxes() {
		if w.quarrels {
			b.maybe = maybeAll
		}
	}
	for _, a := range w.actors {
		wg.Go(func() {
			a.lost = false
			for n := 0; (n < 8 || cut && n < 200) && !a.lost && !w.t.Failed(); n++ { // what ends the engine is to meet something
				if !cut || n%2 == 0 || !eager(a) {
					a.step()
				}
			}
		})
	}
	if cut {
		time.Sleep(wait)
		w.tell("the engine is ended")
		if kind == "stop" {
			ok(w.t, w.e.stop())
		} else {
			ok(w.t, w.e.kill())
		}
	}
	wg.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
	switch kind {
	case "both":
		w.killShims(func(n, all int) bool { return n == victim%all })
	case "boot":
		w.killShims(func(int, int) bool { return true })
	}
	if cut {
		w.again()
	}
	w.killing, w.quarrels = false, false
	w.settle()
}

// killShims kills those that are chosen of the shims of containers, while there is no engine.
func (w *world) killShims(chosen func(n, all int) bool) {
	live := map[*box]int{}
	var order []*box
	for _, b := range w.boxes() {
		if pid := shimPid(b.id); pid != 0 {
			live[b] = pid
			order = append(order, b)
		}
	}
	for i, b := range order {
		if chosen(i, len(order)) {
			w.tell("the shim of %s is killed, %d", b.name, live[b])
			_ = syscall.Kill(live[b], syscall.SIGKILL)
			b.ended()
		}
	}
}

// ended: its processes were killed by others than the engine.
func (b *box) ended() {
	switch {
	case b.policy != "":
		b.paused = false
	case b.disposable:
		b.maybe |= maybeGone | maybeStopped | maybePaused
	default:
		b.running, b.paused = false, false
	}
}

func (w *world) boxes() (all []*box) {
	for _, a := range w.actors {
		all = append(all, a.boxes...)
	}
	return all
}

// again starts the engine; what its policies start with it runs then.
func (w *world) again() {
	w.tell("the engine is started")
	ok(w.t, w.e.start())
	for _, b := range w.boxes() {
		if !b.running && (b.policy == "always" || b.policy == "unless-stopped" && !b.stopped) {
			b.maybe |= maybeStopped
		}
	}
}

// shimPid finds a container's shim; 0: there is none.
func shimPid(id string) int {
	if id == "" {
		return 0
	}
	return shims()["oar "+id[:11]]
}

// shims are all that live, by their names. What one of them is about to execute has its name for a moment.
func shims() map[string]int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	names, parents, found := map[int]string{}, map[int]int{}, map[string]int{}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		_, rest, _ := strings.Cut(string(b), "(")
		name, rest, is := strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); is && strings.HasPrefix(name, "oar ") && fields[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			names[pid] = name
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	for pid, name := range names {
		if names[parents[pid]] != name {
			found[name] = pid
		}
	}
	return found
}
