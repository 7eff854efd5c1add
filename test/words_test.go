package test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// words is what the docker command line knows, as its own help tells: every command that can be run, with its flags.
type words map[string]*commandWords // by command: "run", "network create"

type commandWords struct {
	alias string            // the first of its names, which stands for all
	flags map[string]string // long name → what its value is called, "" of a switch
	short map[string]string // letter → long name
	swarm bool              // under a heading of Swarm's
}

// oneNode are the reasons why something of Docker's command line is not tried on one node.
var oneNode = map[string]string{
	"trust":      "speaks to Notary servers, never to an engine",
	"plugin":     "there are no plugins: of these, ls and the refusal are tried",
	"checkpoint": "has scripts of its own", "--checkpoint": "of checkpoints", "--checkpoint-dir": "of checkpoints",

	"--cpu-count": "Windows", "--cpu-percent": "Windows", "--io-maxbandwidth": "Windows", "--io-maxiops": "Windows",
	"--disable-content-trust": "speaks to Notary servers, never to an engine",
	"--availability":          "of cluster volumes", "--group": "of cluster volumes", "--limit-bytes": "of cluster volumes", "--required-bytes": "of cluster volumes",
	"--scope": "of cluster volumes", "--secret": "of cluster volumes", "--sharing": "of cluster volumes", "--topology-preferred": "of cluster volumes",
	"--topology-required": "of cluster volumes", "--type": "of cluster volumes", "--cluster": "of cluster volumes",
	"--ingress": "of swarm networks", "--config-from": "of swarm networks", "--config-only": "of swarm networks",
	"--help": "is how this list is made",
}

// filterKeys are what lists can be filtered by, from Docker's reference of its command line.
var filterKeys = map[string][]string{
	"docker container ls":      {"ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish", "since", "status", "volume"},
	"docker image ls":          {"before", "dangling", "label", "reference", "since", "until"},
	"docker network ls":        {"dangling", "driver", "id", "label", "name", "scope", "type"},
	"docker volume ls":         {"dangling", "driver", "label", "name"},
	"docker system events":     {"container", "daemon", "event", "image", "label", "network", "plugin", "scope", "type", "volume"},
	"docker container prune":   {"label", "label!", "until"},
	"docker image prune":       {"dangling", "label", "until"},
	"docker network prune":     {"label", "until"},
	"docker volume prune":      {"all", "label"},
	"docker system prune":      {"label", "until"},
	"docker builder prune":     {"until"},
	"docker search":            {"is-official", "stars"},
	"docker plugin ls":         {"capability", "enabled"},
	"docker buildx du":         nil,
	"docker container inspect": nil,
}

// TestEveryWordOfDockersIsTried: each command and each flag of the docker command line on this machine, and each key of its filters, was used
// by a script of testdata/both, which has run the real program. It comes after them.
func TestEveryWordOfDockersIsTried(t *testing.T) {
	all, err := filepath.Glob("testdata/both/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if ran := dockerCalls.scripts(); ran != len(all) {
		t.Skipf("%d of %d scripts have run: only the whole suite can tell", ran, len(all))
	}
	known := dockersWords(t)
	if len(known) < 150 {
		t.Fatalf("the help of docker was not understood: it has %d commands", len(known))
	}
	used, err := dockerCalls.read(known)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		c := known[name]
		noun, _, _ := strings.Cut(name, " ")
		if oneNode[noun] != "" {
			continue
		}
		if !used.names[name] {
			t.Errorf("no script runs docker %s", name)
		}
		if c.swarm || used.checked[c.alias] {
			continue
		}
		used.checked[c.alias] = true
		for _, flag := range slices.Sorted(maps.Keys(c.flags)) {
			if oneNode["--"+flag] == "" && !used.flags[c.alias+" --"+flag] {
				t.Errorf("no script uses %s --%s", c.alias, flag)
			}
		}
		for _, key := range filterKeys[c.alias] {
			if !used.flags[c.alias+" --filter "+key] {
				t.Errorf("no script uses %s --filter %s=…", c.alias, key)
			}
		}
	}
}

// dockersWords asks docker for its help, and for that of every command that it names.
func dockersWords(t *testing.T) words {
	t.Helper()
	out := words{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, 4)
	var walk func(swarm bool, command ...string)
	walk = func(swarm bool, command ...string) {
		defer wg.Done()
		places <- struct{}{}
		cmd := exec.Command("docker", append(slices.Clone(command), "--help")...)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+shared.dir+"/none", "DOCKER_HOST=unix:///nowhere") // of an engine that has no swarm it would hide these
		help, err := cmd.Output()
		<-places
		if err != nil {
			t.Errorf("docker %s --help: %v", strings.Join(command, " "), err)
			return
		}
		c, below := readHelp(string(help))
		c.swarm = swarm
		if len(below) == 0 {
			name := strings.Join(command, " ")
			if c.alias == "" {
				c.alias = "docker " + name
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = c
			return
		}
		for word, ofSwarm := range below {
			wg.Add(1)
			go walk(swarm || ofSwarm, append(slices.Clone(command), word)...)
		}
	}
	wg.Add(1)
	walk(false)
	wg.Wait()
	return out
}

// readHelp reads one page of help: the command's flags and names, and the commands below it with whether these are Swarm's.
func readHelp(text string) (c *commandWords, below map[string]bool) {
	c = &commandWords{flags: map[string]string{}, short: map[string]string{}}
	below = map[string]bool{}
	heading := ""
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, " ") {
			if h, ok := strings.CutSuffix(line, ":"); ok {
				heading = h
			}
			continue
		}
		first, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case heading == "Aliases":
			c.alias, _, _ = strings.Cut(strings.TrimSpace(line), ",")
			heading = ""
		case strings.HasSuffix(heading, "Commands") && strings.HasPrefix(line, "  ") && line[2] != ' ':
			if word := strings.TrimSuffix(first, "*"); word == first { // a star marks plugins of the command line
				below[word] = heading == "Swarm Commands"
			}
		case heading == "Options" && strings.HasPrefix(strings.TrimSpace(line), "-"):
			short := ""
			if letter, ok := strings.CutSuffix(first, ","); ok {
				short = strings.TrimPrefix(letter, "-")
				first, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
			}
			long, ok := strings.CutPrefix(first, "--")
			if !ok {
				continue
			}
			value, _, _ := strings.Cut(rest, " ") // an explanation stands farther away
			c.flags[long] = value
			if short != "" {
				c.short[short] = long
			}
		}
	}
	return c, below
}

// calls are the command lines with which the scripts have run docker. A program of that name stands before the real one in their PATH, notes
// its arguments and becomes it.
type calls struct {
	mu      sync.Mutex // guards count
	count   int
	prepare sync.Once
	failed  error
}

var dockerCalls calls

func (c *calls) scripts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

func (c *calls) dir() string { return filepath.Join(shared.dir, "docker-calls") }

// note makes the program and returns the directory of PATH that it is in, for one more script.
func (c *calls) note() (string, error) {
	c.prepare.Do(func() {
		real, err := exec.LookPath("docker")
		if err != nil {
			c.failed = err
			return
		}
		bin := filepath.Join(c.dir(), "bin")
		c.failed = os.MkdirAll(bin, 0o755)
		script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\036' \"$@\" '' >>%s/$$\nexec %s \"$@\"\n", c.dir(), real)
		if c.failed == nil {
			c.failed = os.WriteFile(filepath.Join(bin, "docker"), []byte(script), 0o755)
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	return filepath.Join(c.dir(), "bin"), c.failed
}

// usage is what was used of the words.
type usage struct {
	names          map[string]bool // commands as they were called
	flags          map[string]bool // "docker container run --name", and "docker container ls --filter label"
	checked        map[string]bool
	globals, stray []string
}

func (c *calls) read(known words) (usage, error) {
	out := usage{names: map[string]bool{}, flags: map[string]bool{}, checked: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(c.dir(), "[0-9]*"))
	if err != nil {
		return out, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return out, err
		}
		for call := range bytes.SplitSeq(text, []byte("\036\036")) { // numbers of processes come again
			if len(call) > 0 {
				out.add(known, strings.Split(strings.TrimSuffix(string(call), "\036"), "\036"))
			}
		}
	}
	return out, nil
}

// add notes one command line.
func (u *usage) add(known words, args []string) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") { // the global ones
		if slices.Contains([]string{"-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"}, args[0]) && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	for n := min(3, len(args)); n > 0; n-- {
		if c := known[strings.Join(args[:n], " ")]; c != nil {
			u.names[strings.Join(args[:n], " ")] = true
			u.addFlags(c, args[n:])
			return
		}
	}
}

func (u *usage) addFlags(c *commandWords, args []string) {
	_, verb, _ := strings.Cut(c.alias, "docker container ")
	ends := verb == "run" || verb == "create" || verb == "exec" // what follows is the container's
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return
		case !strings.HasPrefix(arg, "-") || arg == "-":
			if ends {
				return
			}
		case strings.HasPrefix(arg, "--"):
			name, value, given := strings.Cut(arg[2:], "=")
			if c.flags[name] != "" && !given && i+1 < len(args) {
				i++
				value = args[i]
			}
			u.flag(c, name, value)
		default:
			for letters := arg[1:]; letters != ""; {
				name := c.short[letters[:1]]
				value := strings.TrimPrefix(letters[1:], "=")
				letters = letters[1:]
				if c.flags[name] != "" {
					if value == "" && i+1 < len(args) {
						i++
						value = args[i]
					}
					letters = ""
				}
				u.flag(c, name, value)
			}
		}
	}
}

func (u *usage) flag(c *commandWords, name, value string) {
	u.flags[c.alias+" --"+name] = true
	switch c.alias { // the two take the same flags, and read them by the same code
	case "docker container run":
		u.flags["docker container create --"+name] = true
	case "docker container create":
		u.flags["docker container run --"+name] = true
	}
	if name == "filter" {
		key, _, _ := strings.Cut(value, "=")
		u.flags[c.alias+" --filter "+key] = true
	}
}
