package test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inspected is what the checks read of a container.
type inspected struct {
	ID, Name string
	State    struct {
		Status                      string
		Running, Paused, Restarting bool
		Pid, ExitCode               int
		Health                      *struct{ Status string }
	}
	Config     struct{ Hostname string }
	HostConfig struct {
		AutoRemove    bool
		RestartPolicy struct{ Name string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
	Mounts []struct{ Name, Destination string }
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// settle waits until all is as it has to be.
func (w *world) settle() {
	w.t.Helper()
	var found map[*box]inspected
	err := eventually(20*time.Second, func() (err error) {
		found, err = w.check()
		return err
	})
	if err != nil {
		w.tell("NOT SETTLED: %v", err)
		w.t.Fatal(err)
	}
	for _, a := range w.actors {
		a.boxes = slices.DeleteFunc(a.boxes, func(b *box) bool { _, is := found[b]; return !is })
		for _, b := range a.boxes {
			b.adopt(found[b])
			w.meet(b.id)
		}
	}
	w.tell("settled: %d containers", len(found))
}

// adopt takes over what was not known.
func (b *box) adopt(c inspected) {
	b.stopped = b.stopped && b.maybe&maybeStopped == 0
	b.id, b.name, b.running, b.paused, b.maybe = c.ID, c.Name[1:], c.State.Running, c.State.Paused, 0
	b.code = c.State.ExitCode
	b.policy, b.networks = strings.TrimPrefix(c.HostConfig.RestartPolicy.Name, "no"), map[string]bool{}
	for name := range c.NetworkSettings.Networks {
		b.networks[name] = true
	}
}

// check holds what the engine says against the model, the kernel and the disk.
func (w *world) check() (map[*box]inspected, error) {
	var list []struct{ ID string }
	if _, err := w.ask("GET", "/containers/json?all=1", nil, &list); err != nil {
		return nil, err
	}
	byName, byID := map[string]inspected{}, map[string]inspected{}
	for _, l := range list {
		var c inspected
		if _, err := w.ask("GET", "/containers/"+l.ID+"/json", nil, &c); err != nil {
			return nil, err
		}
		byName[strings.TrimPrefix(c.Name, "/")], byID[c.ID] = c, c
		w.meet(c.ID)
	}
	found := map[*box]inspected{}
	for _, b := range w.boxes() {
		c, is := byID[b.id]
		if !is && b.maybe&maybeOther != 0 {
			c, is = byName[b.name]
		}
		if !is && b.maybe&maybeGone == 0 {
			return nil, fmt.Errorf("container %s (%.12s) is lost", b.name, b.id)
		}
		if !is {
			continue
		}
		found[b] = c
		delete(byID, c.ID)
		if err := b.holds(c); err != nil {
			return nil, fmt.Errorf("container %s (%.12s): %w", b.name, c.ID, err)
		}
	}
	for id, c := range byID {
		if c.HostConfig.AutoRemove && c.State.Status == "created" { // of a run whose engine was killed before it could start it
			_, err := w.ask("DELETE", "/containers/"+id+"?v=1", nil, nil)
			return nil, fmt.Errorf("container %s was made by run --rm and never started: %w", c.Name, err)
		}
		return nil, fmt.Errorf("container %s (%.12s) was removed, or never made", c.Name, id)
	}
	for _, look := range []func(map[*box]inspected) error{w.kernel, w.folders, w.others, w.answers} {
		if err := look(found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// holds compares a box with what the engine says of it.
func (b *box) holds(c inspected) error {
	s := c.State
	policy := strings.TrimPrefix(c.HostConfig.RestartPolicy.Name, "no")
	name := c.Name[1:]
	switch {
	case s.Restarting || s.Status != "running" && s.Status != "paused" && s.Status != "exited" && s.Status != "created":
		return fmt.Errorf("it is %s", s.Status)
	case s.Running != b.running && b.maybe&maybeStopped == 0:
		return fmt.Errorf("it is %s; it runs: %t", s.Status, b.running)
	case s.Paused != b.paused && b.maybe&(maybePaused|maybeStopped) == 0:
		return fmt.Errorf("it is %s; it is paused: %t", s.Status, b.paused)
	case s.Running && !s.Paused && b.short, s.Status == "exited" && b.short && s.ExitCode != 3 && s.ExitCode != b.code && b.maybe == 0:
		return fmt.Errorf("it is %s, %d", s.Status, s.ExitCode)
	case name != b.name && b.maybe&maybeRenamed == 0 || name != b.name && name != b.renamed && b.maybe != maybeAll:
		return fmt.Errorf("it is called %s", name)
	case policy != b.policy && b.maybe&maybeUpdated == 0:
		return fmt.Errorf("its restart policy is %s, not %s", policy, b.policy)
	case b.checked && s.Running && !s.Paused && (s.Health == nil || s.Health.Status != "healthy"):
		return fmt.Errorf("its health is %+v", s.Health)
	}
	if got, want := sorted(c.NetworkSettings.Networks), sorted(b.networks); !slices.Equal(got, want) && b.maybe&maybeMoved == 0 {
		return fmt.Errorf("its networks are %v, not %v", got, want)
	}
	return nil
}

// kernel says that what runs is there, and nothing else is.
func (w *world) kernel(found map[*box]inspected) error {
	runs, ranges := map[string]bool{}, map[string]string{}
	ends := 0
	for b, c := range found {
		if !c.State.Running {
			continue
		}
		runs[c.ID] = true
		ends += len(c.NetworkSettings.Networks)
		group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.State.Pid))
		if err != nil || !strings.Contains(string(group), w.groups()+"/"+c.ID) {
			return fmt.Errorf("container %s runs, and its process %d does not: %w: %s", b.name, c.State.Pid, err, group)
		}
		ids, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", c.State.Pid))
		if other := ranges[string(ids)]; err != nil || other != "" {
			return fmt.Errorf("containers %s and %s have the same user ids: %s: %w", b.name, other, ids, err)
		}
		ranges[string(ids)] = b.name
	}
	w.mu.Lock()
	known := maps.Clone(w.known)
	w.mu.Unlock()
	live := shims()
	for id := range known {
		if _, has := live["oar "+id[:11]]; has != runs[id] {
			return fmt.Errorf("container %.12s runs: %t; it has a shim: %t", id, runs[id], !runs[id])
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + w.groups() + "/*")
	for _, g := range groups {
		if fi, err := os.Stat(g); err == nil && fi.IsDir() && !runs[filepath.Base(g)] {
			return fmt.Errorf("a control group is left: %s", g)
		}
	}
	pairs, linkErr := w.interfaces("v" + w.links)
	if len(pairs) != ends {
		return fmt.Errorf("there are %d ends of running containers and these interfaces: %v", ends, pairs)
	}
	return errors.Join(err, linkErr)
}

// prefix is how the names of the engine's interfaces go on after the letter.
func (w *world) prefix() string {
	var n struct{ Options map[string]string }
	w.get("/networks/bridge", &n)
	return strings.TrimSuffix(n.Options["com.docker.network.bridge.name"][1:], "0")
}

func (w *world) interfaces(prefix string) (names []string, err error) {
	all, err := os.ReadDir("/sys/class/net")
	lines, lineErr := commandLines("ip", "-o", "link")
	if len(all) == 0 && err != nil {
		return nil, err
	}
	for _, l := range lines {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], prefix) {
			names = append(names, f[1])
		}
	}
	return names, lineErr
}

// folders says that each container, volume and task has its folder, and nothing else.
func (w *world) folders(found map[*box]inspected) error {
	all, runs, volumes := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range found {
		all[c.ID] = true
		if c.State.Running {
			runs[c.ID] = true
		}
		for _, m := range c.Mounts {
			if m.Name != "" {
				volumes[m.Name] = true
			}
		}
	}
	maybe := map[string]bool{".blank": true}
	w.mu.Lock()
	maps.Copy(maybe, w.orphans)
	w.mu.Unlock()
	for _, a := range w.actors {
		for name := range a.volumes {
			volumes[name] = true
		}
		maps.Copy(maybe, a.unsure)
	}
	return cmp.Or(same(w.e.dir+"/root/containers", all, maybe), same(w.e.dir+"/state/tasks", runs, nil), same(w.e.dir+"/root/volumes", volumes, maybe))
}

// same compares a folder with what it has to have, and what it may have.
func same(dir string, must, may map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
		if !must[e.Name()] && !may[e.Name()] {
			return fmt.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
	for name := range must {
		if !have[name] {
			return fmt.Errorf("%s is lost in %s", name, dir)
		}
	}
	return nil
}

// others says that volumes, networks and images are there.
func (w *world) others(map[*box]inspected) error {
	var nets []struct{ Name string }
	var vols struct{ Volumes []struct{ Name string } }
	var images []struct{ RepoTags []string }
	for path, out := range map[string]any{"/networks": &nets, "/volumes": &vols, "/images/json": &images} {
		if _, err := w.ask("GET", path, nil, out); err != nil {
			return err
		}
	}
	have := map[string]bool{}
	for _, n := range nets {
		have[n.Name] = true
	}
	for _, v := range vols.Volumes {
		have[v.Name] = true
	}
	for _, i := range images {
		for _, tag := range i.RepoTags {
			have[tag] = true
		}
	}
	for _, a := range w.actors {
		names := slices.Concat(sorted(a.networks), sorted(a.volumes), sorted(a.tags))
		for _, name := range names {
			if !have[name] {
				return fmt.Errorf("%s is lost", name)
			}
		}
		for name := range have {
			own := strings.HasPrefix(strings.TrimPrefix(name, "random/"), a.name+"-")
			if own && !slices.Contains(names, name) && !a.unsure[name] {
				return fmt.Errorf("%s was removed, or never made", name)
			}
		}
		for name, lines := range a.volumes {
			b, err := os.ReadFile(filepath.Join(w.e.dir, "root/volumes", name, "_data/kept"))
			if n := strings.Count(string(b), "\n"); n < lines[0] || n > lines[1] {
				return fmt.Errorf("volume %s has %d lines, want %v: %w", name, n, lines, err)
			}
		}
	}
	return nil
}

// answers says that what runs can be spoken to: by exec, at its port, and by its neighbours, and has what was written.
func (w *world) answers(found map[*box]inspected) error {
	for b, c := range found {
		if !c.State.Running || c.State.Paused || len(c.NetworkSettings.Networks) == 0 {
			continue
		}
		if err := answers(b.port, c.Config.Hostname); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	for b, c := range found {
		if !c.State.Running || c.State.Paused {
			continue
		}
		script := "cat /written 2>/dev/null | wc -l"
		name, address := b.neighbour(found)
		if name != "" {
			script += "; nslookup -type=a " + name
		}
		out, err := w.e.run("wherry", "exec", c.ID, "sh", "-c", script)
		lines := strings.Fields(out)
		if err != nil || len(lines) < 1 || !strings.Contains(out, address) {
			return fmt.Errorf("exec in %s, with %q at %s: %w: %s", b.name, name, address, err, out)
		}
		if name != "" { // Debian's static wget resolves nothing
			out, err := exec.Command("nsenter", "-t", fmt.Sprint(c.State.Pid), "-n", "curl", "-sSf", "-m", "5", "http://"+address+"/").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s asks %s at %s: %w: %s", b.name, name, address, err, out)
			}
		}
		if n, _ := strconv.Atoi(lines[0]); n < b.written[0] || n > b.written[1] {
			return fmt.Errorf("%s has %s lines written, want %v", b.name, lines[0], b.written)
		}
	}
	return nil
}

// neighbour is the name of another container on a network that has names, and its address there.
func (b *box) neighbour(found map[*box]inspected) (name, address string) {
	for _, o := range slices.SortedFunc(maps.Keys(found), func(x, y *box) int { return strings.Compare(x.name, y.name) }) {
		for n, end := range found[o].NetworkSettings.Networks {
			if _, both := found[b].NetworkSettings.Networks[n]; both && o != b && n != "bridge" && found[o].State.Running && !found[o].State.Paused {
				return found[o].Name[1:], end.IPAddress
			}
		}
	}
	return "", ""
}

var impatient = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// answers asks a published port.
func answers(port int, want string) error {
	r, err := impatient.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || strings.TrimSpace(string(b)) != want {
		return fmt.Errorf("port %d is answered by %q, want %s: %w", port, b, want, err)
	}
	return nil
}

// end removes all, and says that nothing is left.
func (w *world) end() {
	w.t.Helper()
	if ids := strings.Fields(w.must("ps", "-aq")); len(ids) > 0 {
		w.must(append([]string{"rm", "-f", "-v"}, ids...)...)
	}
	for _, kind := range []string{"volume", "network", "image"} {
		args := []string{kind, "prune", "-f"}
		if kind != "network" {
			args = append(args, "-a", "--filter", "label!=kept")
		}
		if kind != "image" {
			w.must(args...)
		}
	}
	for line := range strings.Lines(w.must("images", "--format", "{{.Repository}}:{{.Tag}}")) {
		if name := strings.TrimSpace(line); name != randomImage && !strings.Contains(name, "<none>") {
			w.must("rmi", name)
		}
	}
	w.must("run", "--rm", randomImage, "true") // has its layers mounted, as in the beginning
	w.must("image", "prune", "-f")
	err := eventually(20*time.Second, func() error {
		if now := w.disk(); now != w.fresh {
			return fmt.Errorf("when all is removed, the machine differs from one where nothing was done:\n%s", difference(w.fresh, now))
		}
		return nil
	})
	ok(w.t, err)
}

// disk describes what lies on the disk, in control groups, in mounts and interfaces.
func (w *world) disk() string {
	w.t.Helper()
	var out []string
	number := regexp.MustCompile(`/\d+(/|$)`)
	for _, dir := range []string{w.e.dir + "/root", w.e.dir + "/state"} {
		ok(w.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if path = strings.TrimPrefix(path, w.e.dir); !strings.HasPrefix(path, "/root/audit/") && !strings.HasPrefix(path, "/root/containers/.blank") {
				out = append(out, number.ReplaceAllString(path, "/N$1"))
			}
			return err
		}))
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + w.groups() + "/*/")
	ok(w.t, err)
	b, err := os.ReadFile("/proc/self/mountinfo")
	ok(w.t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], w.e.dir+"/") {
			out = append(out, number.ReplaceAllString("mount "+f[4], "/N$1"))
		}
	}
	links, err := commandLines("ip", "-o", "link")
	ok(w.t, err)
	for _, l := range links {
		if strings.Contains(l, w.links) {
			out = append(out, "link "+strings.Fields(l)[1])
		}
	}
	slices.Sort(out)
	return strings.Join(append(out, groups...), "\n") + "\n"
}
