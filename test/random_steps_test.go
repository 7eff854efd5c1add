package test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// step is something that a client does; false: there is nothing to do it to.
type step struct {
	name     string
	weight   int
	do       func(a *actor) bool
	quarrels bool // it is done to others' containers, too
}

func steps() []step {
	return []step{
		{"create", 4, (*actor).create, false},
		{"run", 14, (*actor).run, false},
		{"start", 8, (*actor).start, true},
		{"stop", 6, (*actor).stop, true},
		{"kill", 4, (*actor).kill, true},
		{"signal", 2, (*actor).signal, true},
		{"restart", 6, (*actor).restart, true},
		{"remove", 4, (*actor).remove, true},
		{"remove by force", 5, (*actor).removeByForce, true},
		{"rename", 4, (*actor).rename, true},
		{"pause", 5, (*actor).pause, true},
		{"unpause", 5, (*actor).unpause, true},
		{"update", 4, (*actor).update, true},
		{"exec", 4, (*actor).exec, true},
		{"write", 6, (*actor).write, false},
		{"copy in", 3, (*actor).copyIn, true},
		{"copy out", 3, (*actor).copyOut, true},
		{"commit", 5, (*actor).commit, false},
		{"tag", 2, (*actor).tag, false},
		{"remove a tag", 3, (*actor).removeTag, false},
		{"run an image", 5, (*actor).runImage, false},
		{"create a network", 3, (*actor).createNetwork, false},
		{"remove a network", 2, (*actor).removeNetwork, false},
		{"connect", 4, (*actor).connect, true},
		{"disconnect", 4, (*actor).disconnect, true},
		{"create a volume", 2, (*actor).createVolume, false},
		{"remove a volume", 2, (*actor).removeVolume, false},
		{"prune", 3, (*actor).prune, true},
		{"crash", 3, (*actor).crash, false},
		{"lose", 3, (*actor).lose, false},
		{"replace", 3, (*actor).replace, false},
		{"look", 3, (*actor).look, true},
	}
}

// step does one that can be done.
func (a *actor) step() {
	all := steps()
	if a.w.quarrels {
		all = slices.DeleteFunc(all, func(s step) bool { return !s.quarrels })
	}
	sum := 0
	for _, s := range all {
		sum += s.weight
	}
	for range 20 {
		n := a.random.IntN(sum)
		for _, s := range all {
			if n -= s.weight; n < 0 {
				if s.do(a) {
					return
				}
				break
			}
		}
	}
}

// pick chooses one of the client's containers; in a quarrel, one of anybody's.
func (a *actor) pick(fit func(*box) bool) *box {
	from := a.boxes
	if a.w.quarrels {
		from, fit = a.w.boxes(), func(*box) bool { return true }
	}
	from = slices.DeleteFunc(slices.Clone(from), func(b *box) bool { return !fit(b) || b.maybe&maybeGone != 0 && !a.w.quarrels })
	if len(from) == 0 {
		return nil
	}
	return from[a.random.IntN(len(from))]
}

// did says whether a request came about. What is not known then is noted in the box.
func (a *actor) did(b *box, maybe int, code int, err error) bool {
	w := a.w
	switch {
	case err == nil:
		return !w.quarrels
	case w.killing:
		a.lost = true
		if b != nil {
			b.maybe |= maybe
		}
	case !w.quarrels || code >= 500 || errors.Is(err, errUnanswered):
		w.tell("%s: FAILED: %v", a.name, err)
		w.t.Errorf("%s: %v", a.name, err)
	}
	return false
}

// ask sends a request about a box.
func (a *actor) ask(b *box, maybe int, method, path string, body, out any) bool {
	code, err := a.w.ask(method, path, body, out)
	a.w.tell("%s: %s %s: %d", a.name, method, path, code)
	return a.did(b, maybe, code, err)
}

// command runs wherry, which answers for itself.
func (a *actor) command(b *box, maybe int, args ...string) (string, bool) {
	client := "wherry"
	if a.w.killing && args[0] == "run" { // wherry waits ten seconds for an engine that goes on with its run
		client = "docker"
	}
	out, err := a.w.e.run(client, args...)
	a.w.tell("%s: wherry %s: %v", a.name, strings.Join(args, " "), err)
	if err != nil {
		err = fmt.Errorf("wherry %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out), a.did(b, maybe, 0, err)
}

func (a *actor) next(kind string) string {
	a.made++
	return fmt.Sprintf("%s-%s%d", a.name, kind, a.made)
}

func idle(b *box) bool   { return !b.running && !b.short }
func alive(b *box) bool  { return b.running && !b.paused }
func paused(b *box) bool { return b.paused }
func any1(*box) bool     { return true }

const boxProgram = `trap 'exit 0' TERM; mkdir -p /www; hostname >/www/index.html; httpd -p 80 -h /www; while :; do sleep 1000 & wait $!; done`

func (a *actor) create() bool { return a.make() != nil }

// make creates a container by chance.
func (a *actor) make() *box {
	if len(a.boxes) >= 4 {
		return nil
	}
	b := &box{name: a.next("box"), image: randomImage, networks: map[string]bool{"bridge": true}, port: 20000 + int(a.name[0]-'a')*1000 + a.made}
	b.short, b.disposable, b.checked = a.random.IntN(6) == 0, a.random.IntN(4) == 0, a.random.IntN(4) == 0
	if !b.disposable {
		b.policy = []string{"", "", "always", "unless-stopped", "on-failure"}[a.random.IntN(5)]
	}
	if b.short {
		b.policy = ""
	}
	if names := sorted(a.networks); len(names) > 0 && a.random.IntN(3) > 0 {
		b.networks = map[string]bool{names[a.random.IntN(len(names))]: true}
	}
	if names := sorted(a.tags); len(names) > 0 && a.random.IntN(3) == 0 {
		b.image = names[a.random.IntN(len(names))]
		b.written = a.tags[b.image]
	}
	if names := sorted(a.volumes); len(names) > 0 && a.random.IntN(2) == 0 {
		b.volume = names[a.random.IntN(len(names))]
	}
	a.boxes = append(a.boxes, b)
	var answer struct{ ID string }
	code, err := a.w.ask("POST", "/containers/create?name="+b.name, b.request(a.name, a.random.IntN(2) == 0), &answer)
	a.w.tell("%s: create %s %.12s %s %v %s %s: %d", a.name, b.name, answer.ID, b.policy, b.networks, b.volume, b.image, code)
	if !a.did(b, maybeGone|maybeOther, code, err) {
		return nil
	}
	b.id = answer.ID
	a.w.meet(b.id)
	return b
}

// meet notes a container's id.
func (w *world) meet(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[id] = true
}

// request is the body of its creation.
func (b *box) request(owner string, anonymous bool) map[string]any {
	script := boxProgram
	if b.short {
		script = "exit 3"
	}
	host := map[string]any{"AutoRemove": b.disposable, "RestartPolicy": map[string]any{"Name": b.policy},
		"PortBindings": map[string]any{"80/tcp": []any{map[string]any{"HostPort": fmt.Sprint(b.port)}}}}
	if b.volume != "" {
		host["Binds"] = []string{b.volume + ":/kept"}
	}
	for name := range b.networks {
		host["NetworkMode"] = name
	}
	c := map[string]any{"Image": b.image, "Cmd": []string{"sh", "-c", script}, "HostConfig": host, "Labels": map[string]string{"owner": owner},
		"ExposedPorts": map[string]any{"80/tcp": map[string]any{}}}
	if anonymous {
		c["Volumes"] = map[string]any{"/anonymous": map[string]any{}}
	}
	if b.checked {
		c["Healthcheck"] = map[string]any{"Test": []string{"CMD", "true"}, "Interval": int64(300 * time.Millisecond)}
	}
	return c
}

func (a *actor) run() bool {
	b := a.make()
	if b != nil {
		a.begin(b)
	}
	return b != nil
}

func (a *actor) start() bool {
	b := a.pick(idle)
	if b != nil {
		a.begin(b)
	}
	return b != nil
}

func (a *actor) begin(b *box) {
	if !a.ask(b, b.ends(), "POST", "/containers/"+b.id+"/start", nil, nil) {
		return
	}
	b.running, b.stopped = !b.short, false
	if b.short && b.disposable {
		b.maybe |= maybeGone
	}
}

// over: it was ended by the engine.
func (a *actor) over(b *box) {
	b.running, b.paused, b.stopped = false, false, true
	if b.disposable {
		a.forget(b)
	}
}

func (a *actor) forget(b *box) {
	a.boxes = slices.DeleteFunc(a.boxes, func(o *box) bool { return o == b })
}

// ends are the outcomes of what begins or ends a container.
func (b *box) ends() int {
	if b.disposable {
		return maybeStopped | maybePaused | maybeGone
	}
	return maybeStopped | maybePaused
}

func (a *actor) stop() bool {
	b := a.pick(func(b *box) bool { return b.running })
	if b != nil && a.ask(b, b.ends(), "POST", "/containers/"+b.id+"/stop?t="+fmt.Sprint(a.random.IntN(2)*5), nil, nil) {
		a.over(b)
	}
	return b != nil
}

func (a *actor) kill() bool {
	b := a.pick(alive)
	if b != nil && a.ask(b, b.ends(), "POST", "/containers/"+b.id+"/kill", nil, nil) {
		a.over(b)
	}
	return b != nil
}

// signal sends what the first process does not heed.
func (a *actor) signal() bool {
	b := a.pick(alive)
	return b != nil && (a.ask(b, 0, "POST", "/containers/"+b.id+"/kill?signal=USR1", nil, nil) || true)
}

func (a *actor) restart() bool {
	b := a.pick(func(b *box) bool { return !b.short && (b.running || !b.disposable) })
	if b != nil && a.ask(b, b.ends(), "POST", "/containers/"+b.id+"/restart?t=1", nil, nil) {
		b.running, b.paused, b.stopped = true, false, false
	}
	return b != nil
}

func (a *actor) remove() bool {
	b := a.pick(idle)
	if b != nil && a.ask(b, maybeGone, "DELETE", "/containers/"+b.id+"?v=1", nil, nil) {
		a.forget(b)
	}
	return b != nil
}

// removeByForce leaves the anonymous volumes in half of the cases.
func (a *actor) removeByForce() bool {
	b := a.pick(any1)
	if b == nil {
		return false
	}
	query := "?force=1&v=1"
	if !a.w.quarrels && !b.disposable && b.maybe == 0 && a.random.IntN(2) == 0 {
		query = "?force=1"
		a.w.keepVolumes(b.id)
	}
	code, err := a.w.ask("DELETE", "/containers/"+b.id+query, nil, nil)
	a.w.tell("%s: remove %s%s: %d", a.name, b.name, query, code)
	if b.disposable && (code == 404 || code == 409) { // it may have gone by itself, or is going
		b.maybe |= maybeGone
	} else if a.did(b, maybeGone|maybeStopped|maybePaused, code, err) {
		a.forget(b)
	}
	return true
}

// keepVolumes notes the anonymous volumes of a container.
func (w *world) keepVolumes(id string) {
	var c inspected
	if _, err := w.ask("GET", "/containers/"+id+"/json", nil, &c); err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range c.Mounts {
		if m.Destination == "/anonymous" {
			w.orphans[m.Name] = true
		}
	}
}

func (a *actor) rename() bool {
	b := a.pick(func(b *box) bool { return !b.short || !b.disposable })
	if b == nil {
		return false
	}
	name := a.next("named")
	if a.w.quarrels {
		name = b.name + "x"
	} else {
		b.renamed = name
	}
	if a.ask(b, maybeRenamed, "POST", "/containers/"+b.id+"/rename?name="+name, nil, nil) {
		b.name = name
	}
	return true
}

func (a *actor) pause() bool {
	b := a.pick(alive)
	if b != nil && a.ask(b, maybePaused, "POST", "/containers/"+b.id+"/pause", nil, nil) {
		b.paused = true
	}
	return b != nil
}

func (a *actor) unpause() bool {
	b := a.pick(paused)
	if b != nil && a.ask(b, maybePaused, "POST", "/containers/"+b.id+"/unpause", nil, nil) {
		b.paused = false
	}
	return b != nil
}

func (a *actor) update() bool {
	b := a.pick(func(b *box) bool { return !b.disposable && !b.short })
	if b == nil || b.short { // it would be started again and again
		return false
	}
	policy := []string{"no", "always", "unless-stopped", "on-failure"}[a.random.IntN(4)]
	body := map[string]any{"Memory": (64 + a.random.IntN(64)) << 20, "MemorySwap": -1, "RestartPolicy": map[string]any{"Name": policy}}
	if a.ask(b, maybeUpdated, "POST", "/containers/"+b.id+"/update", body, nil) {
		b.policy = strings.TrimPrefix(policy, "no")
	}
	return true
}

// execute runs a script in a container.
func (a *actor) execute(b *box, script string) (string, bool) {
	return a.command(b, 0, "exec", b.id, "sh", "-c", script)
}

func (a *actor) exec() bool {
	b := a.pick(alive)
	if b == nil {
		return false
	}
	if a.w.quarrels { // wherry's exit code says nothing of what the container did meanwhile
		_, _ = a.w.e.run("wherry", "exec", b.id, "true")
		return true
	}
	if out, did := a.execute(b, "echo out; exit 0"); did && out != "out" {
		a.w.t.Errorf("exec in %s says %q", b.name, out)
	}
	return true
}

// write adds a line to the container's own file, and to that of its volume.
func (a *actor) write() bool {
	b := a.pick(alive)
	if b == nil {
		return false
	}
	b.written[1]++
	kept := a.volumes[b.volume]
	kept[1]++
	_, did := a.execute(b, "echo x >>/written; ! [ -d /kept ] || echo x >>/kept/kept")
	if did {
		b.written[0]++
		kept[0]++
	}
	if b.volume != "" {
		a.volumes[b.volume] = kept
	}
	return true
}

func (a *actor) copyIn() bool {
	b := a.pick(func(b *box) bool { return !b.short && !b.paused })
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	ok(a.w.t, w.WriteHeader(&tar.Header{Name: "copied", Size: 5, Mode: 0o644}), ignoreShort(w.Write([]byte("hello"))), w.Close())
	return b != nil && (a.ask(b, 0, "PUT", "/containers/"+b.id+"/archive?path=/tmp", archive.Bytes(), nil) || true)
}

func (a *actor) copyOut() bool {
	b := a.pick(func(b *box) bool { return !b.short && !b.paused })
	var raw []byte
	return b != nil && (a.ask(b, 0, "GET", "/containers/"+b.id+"/archive?path=/bin/sh", nil, &raw) || true)
}

func (a *actor) commit() bool {
	b := a.pick(func(b *box) bool { return !b.short })
	if b == nil || len(a.tags) > 3 {
		return false
	}
	tag := "random/" + a.next("made") + ":1"
	query := url.Values{"container": {b.id}, "repo": {strings.TrimSuffix(tag, ":1")}, "tag": {"1"}}
	a.unsure[tag] = true
	if a.ask(b, 0, "POST", "/commit?"+query.Encode(), map[string]any{}, nil) {
		delete(a.unsure, tag)
		a.tags[tag] = b.written
	}
	return true
}

func (a *actor) tag() bool {
	names := sorted(a.tags)
	if len(names) == 0 || len(names) > 5 {
		return false
	}
	from, to := names[a.random.IntN(len(names))], "random/"+a.next("tag")
	a.unsure[to+":1"] = true
	if a.ask(nil, 0, "POST", "/images/"+from+"/tag?repo="+to+"&tag=1", nil, nil) {
		delete(a.unsure, to+":1")
		a.tags[to+":1"] = a.tags[from]
	}
	return true
}

// free lists what no box of the client has.
func (a *actor) free(names []string, has func(b *box, name string) bool) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(a.boxes, func(b *box) bool { return has(b, name) })
	})
}

func (a *actor) removeTag() bool {
	names := a.free(sorted(a.tags), func(b *box, name string) bool { return b.image == name || b.maybe != 0 })
	if len(names) == 0 {
		return false
	}
	tag := names[a.random.IntN(len(names))]
	delete(a.tags, tag)
	if !a.ask(nil, 0, "DELETE", "/images/"+tag, nil, nil) {
		a.unsure[tag] = true
	}
	return true
}

// runImage looks into an image that was committed.
func (a *actor) runImage() bool {
	names := append(sorted(a.tags), randomImage)
	tag := names[a.random.IntN(len(names))]
	out, did := a.command(nil, 0, "run", "--rm", "-v", "/anonymous", tag, "sh", "-c", "cat /written 2>/dev/null | wc -l")
	if want := a.tags[tag]; did && (out < fmt.Sprint(want[0]) && len(out) == 1 || out == "") {
		a.w.t.Errorf("%s has %s lines, want %v", tag, out, want)
	}
	return true
}

func (a *actor) createNetwork() bool {
	if len(a.networks) > 1 {
		return false
	}
	name := a.next("net")
	a.unsure[name] = true
	if a.ask(nil, 0, "POST", "/networks/create", map[string]any{"Name": name, "Labels": map[string]string{"owner": a.name}}, nil) {
		delete(a.unsure, name)
		a.networks[name] = true
	}
	return true
}

func (a *actor) removeNetwork() bool {
	names := a.free(sorted(a.networks), func(b *box, name string) bool { return b.networks[name] || b.maybe != 0 })
	if len(names) == 0 {
		return false
	}
	name := names[0]
	delete(a.networks, name)
	if !a.ask(nil, 0, "DELETE", "/networks/"+name, nil, nil) {
		a.unsure[name] = true
	}
	return true
}

func (a *actor) connect() bool {
	names := sorted(a.networks)
	if len(names) == 0 {
		return false
	}
	name := names[a.random.IntN(len(names))]
	b := a.pick(func(b *box) bool { return !b.networks[name] && !b.short })
	if b != nil && a.ask(b, maybeMoved, "POST", "/networks/"+name+"/connect", map[string]any{"Container": b.id}, nil) && !a.w.quarrels {
		b.networks[name] = true
	}
	return b != nil
}

func (a *actor) disconnect() bool {
	b := a.pick(func(b *box) bool { return len(b.networks) > 1 && !b.short })
	if b == nil {
		return false
	}
	names := sorted(b.networks)
	name := names[a.random.IntN(len(names))]
	if a.ask(b, maybeMoved, "POST", "/networks/"+name+"/disconnect", map[string]any{"Container": b.id}, nil) && !a.w.quarrels { // else others read it
		delete(b.networks, name)
	}
	return true
}

func (a *actor) createVolume() bool {
	if len(a.volumes) > 1 {
		return false
	}
	name := a.next("volume")
	a.unsure[name] = true
	if a.ask(nil, 0, "POST", "/volumes/create", map[string]any{"Name": name}, nil) {
		delete(a.unsure, name)
		a.volumes[name] = [2]int{}
	}
	return true
}

func (a *actor) removeVolume() bool {
	names := a.free(sorted(a.volumes), func(b *box, name string) bool { return b.volume == name })
	if len(names) == 0 {
		return false
	}
	delete(a.volumes, names[0])
	if !a.ask(nil, 0, "DELETE", "/volumes/"+names[0], nil, nil) {
		a.unsure[names[0]] = true
	}
	return true
}

// prune takes anonymous volumes that nobody has, dangling images, and the client's stopped containers.
func (a *actor) prune() bool {
	own := url.QueryEscape(fmt.Sprintf(`{"label":["owner=%s"]}`, a.name))
	switch a.random.IntN(3) {
	case 0:
		a.ask(nil, 0, "POST", "/volumes/prune", nil, nil)
	case 1:
		a.ask(nil, 0, "POST", "/images/prune", nil, nil)
	default:
		if a.w.quarrels {
			return false
		}
		idle := slices.DeleteFunc(slices.Clone(a.boxes), func(b *box) bool { return b.running || b.maybe != 0 })
		for _, b := range idle {
			a.w.keepVolumes(b.id)
		}
		done := a.ask(nil, 0, "POST", "/containers/prune?filters="+own, nil, nil)
		for _, b := range idle {
			if done && !b.short {
				a.forget(b)
			} else {
				b.maybe |= maybeGone
			}
		}
	}
	return true
}

// crash kills a container's first process, as anybody may.
func (a *actor) crash() bool { return a.hit("crash", func(c inspected) int { return c.State.Pid }) }

// lose kills a container's shim.
func (a *actor) lose() bool { return a.hit("lose", func(c inspected) int { return shimPid(c.ID) }) }

func (a *actor) hit(what string, victim func(inspected) int) bool {
	b := a.pick(func(b *box) bool { return alive(b) && b.maybe == 0 })
	var c inspected
	if b == nil || !a.ask(b, 0, "GET", "/containers/"+b.id+"/json", nil, &c) {
		return b != nil
	}
	pid := victim(c)
	if pid == 0 {
		a.w.t.Errorf("%s runs without a process or shim", b.name)
		return true
	}
	a.w.tell("%s: %s %s: process %d is killed", a.name, what, b.name, pid)
	ok(a.w.t, syscall.Kill(pid, syscall.SIGKILL))
	b.ended()
	err := eventually(20*time.Second, func() error {
		var now inspected
		code, err := a.w.ask("GET", "/containers/"+b.id+"/json", nil, &now)
		switch {
		case code == 404 && b.disposable:
			a.forget(b)
			return nil
		case errors.Is(err, errUnanswered) && a.w.killing:
			a.lost = true
			return nil
		case err == nil && (now.State.Running != b.running || now.State.Restarting || now.State.Pid == c.State.Pid || b.disposable):
			err = fmt.Errorf("%s is %+v after %s, and is to run: %t", b.name, now.State, what, b.running)
		}
		return err
	})
	if err != nil {
		a.w.t.Error(err)
	}
	return true
}

func (a *actor) replace() bool {
	names := sorted(a.tags)
	b := a.pick(func(b *box) bool { return alive(b) && !b.disposable && b.maybe == 0 })
	if b == nil || len(names) == 0 {
		return false
	}
	tag := names[a.random.IntN(len(names))]
	before := b.written
	b.written = [2]int{min(before[0], a.tags[tag][0]), max(before[1], a.tags[tag][1])}
	out, did := a.command(b, maybeOther, "replace", "-q", "--settle", "50ms", "--drain", "0s", b.name, tag)
	if did {
		b.id, b.image, b.written = out, tag, a.tags[tag]
		a.w.meet(b.id)
	}
	return true
}

// look asks for what changes nothing.
func (a *actor) look() bool {
	b := a.pick(any1)
	paths := []string{"/containers/json?all=1&size=1", "/images/json", "/volumes", "/networks", "/system/df", "/info"}
	if b != nil && b.maybe == 0 && !b.disposable {
		paths = append(paths, "/containers/"+b.id+"/json", "/containers/"+b.id+"/logs?stdout=1&stderr=1", "/containers/"+b.id+"/changes",
			"/containers/"+b.id+"/stats?stream=0&one-shot=1")
	}
	var raw []byte
	a.ask(nil, 0, "GET", paths[a.random.IntN(len(paths))], nil, &raw)
	return true
}
