package cli

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

// TestBadFlagsAreExplained: these command lines of `wherry create` fail before anybody is asked.
func TestBadFlagsAreExplained(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, "OK=1\nA B=2\n")
	binary := filepath.Join(dir, "binary")
	write(t, binary, "\xff\xfe=1\n")
	rows := []struct {
		args []string
		want string
	}{
		{[]string{"--memmory", "1g"}, "unknown flag --memmory: did you mean --memory?"},
		{[]string{"--bogus-thing"}, "unknown flag --bogus-thing; see wherry create --help"},
		{[]string{"-Z"}, "unknown flag -Z"},
		{[]string{"-m", "x"}, `invalid value "x" of -m, --memory: give a size such as 512m or 2g`},
		{[]string{"-m", "-1"}, "give a size"},
		{[]string{"--memory-swap", "x"}, "or -1 for no limit"},
		{[]string{"--cpus", "1e9999999"}, "give a number of processors"},
		{[]string{"--cpus", "-1"}, "not a number of processors"},
		{[]string{"--cpus", "0.00000000001"}, "finer than a billionth"},
		{[]string{"--cpus", "1/0"}, "give a number of processors"},
		{[]string{"--pids-limit", "many"}, "give a whole number"},
		{[]string{"--init=perhaps"}, "give true or false"},
		{[]string{"--blkio-weight", "70000"}, "out of range"},
		{[]string{"-p", "99999:80"}, "ports are numbers from 0 to 65535"},
		{[]string{"-p", "80/bogus"}, "it can be tcp, udp or sctp"},
		{[]string{"-p", "8000-8001:80-82"}, "2 ports of the host for 3 of the container"},
		{[]string{"-p", "8000:80-82"}, "1 port of the host for 3"},
		{[]string{"-p", "localhost:80:80"}, "names are not taken here"},
		{[]string{"-p", "80:"}, "the container's port is missing"},
		{[]string{"-p", ""}, "the container's port is missing"},
		{[]string{"-p", "90-80"}, "ends before it begins"},
		{[]string{"-p", "fe80::1%eth0:80:80"}, "no address of this host"},
		{[]string{"-p", "published=80"}, "target=PORT"},
		{[]string{"-p", "taget=80"}, "did you mean target?"},
		{[]string{"--expose", "80:90"}, "is no port"},
		{[]string{"-p", "127.0.0.1:80"}, "write 127.0.0.1:80:80, or 127.0.0.1::80 for one that is free"},
		{[]string{"-p", "[::1]:80/udp"}, "write [::1]:80:80/udp, or [::1]::80/udp for"},
		{[]string{"-v", ":/b"}, "the source is empty"},
		{[]string{"-v", "/a:"}, "the place in the container is empty"},
		{[]string{"-v", ""}, "it is empty"},
		{[]string{"-v", "/a:/b:/c:ro"}, "too many colons"},
		{[]string{"-v", "data:b"}, "must be an absolute path"},
		{[]string{"-v", "data"}, "SOURCE:TARGET"},
		{[]string{"--mount", "type=bind,src=/a"}, "target=/path is missing"},
		{[]string{"--mount", "type=bnid,src=/a,dst=/b"}, "did you mean bind?"},
		{[]string{"--mount", "type=bind,src=/a,dst=/b,readonyl"}, "did you mean readonly?"},
		{[]string{"--mount", "type=bind,src=/a,dst=/b,sorce=/b"}, "did you mean source?"},
		{[]string{"--mount", "type=tmpfs,dst=/b,volume-nocopy"}, "do not go with type=tmpfs"},
		{[]string{"--mount", "type=tmpfs,dst=/b,tmpfs-mode=9"}, "octal"},
		{[]string{"--mount", "type=tmpfs,dst=/b,tmpfs-size=x"}, "give a size"},
		{[]string{"--mount", "dst=/b,readonly=maybe"}, "true or false"},
		{[]string{"--mount", ""}, "write type=bind"},
		{[]string{"--mount", "type=bind,src=/a,dst=/b,bind-recursive=readonly"}, "add readonly"},
		{[]string{"--mount", "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly"}, "bind-propagation=rprivate"},
		{[]string{"--restart", "alway"}, "did you mean always?"},
		{[]string{"--restart", "always:3"}, "only on-failure takes a number"},
		{[]string{"--restart", "on-failure:x"}, "on-failure:5"},
		{[]string{"--restart", "on-failure:-1"}, "cannot be negative"},
		{[]string{"--rm", "--restart", "always"}, "contradict"},
		{[]string{"--ulimit", "nofiel=1"}, "did you mean nofile?"},
		{[]string{"--ulimit", "nofile"}, "NAME=SOFT"},
		{[]string{"--ulimit", "nofile=5:2"}, "above the hard one"},
		{[]string{"--device", "null"}, "absolute paths"},
		{[]string{"--device", "/dev/null:/dev/x:rq"}, "letters of rwm"},
		{[]string{"--device", "/dev/null:/dev/x:r:w"}, "too many colons"},
		{[]string{"--device-cgroup-rule", "x 1:3 rwm"}, "MAJOR:MINOR"},
		{[]string{"--blkio-weight", "5"}, "from 10 to 1000"},
		{[]string{"--blkio-weight-device", "sda:200"}, "/dev/sda:200"},
		{[]string{"--device-read-bps", "/dev/sda:fast"}, "such as 10mb"},
		{[]string{"--gpus", "some"}, "all, a number"},
		{[]string{"--gpus", "cont=3"}, "did you mean count?"},
		{[]string{"--gpus", "count=1,device=0"}, "count or device"},
		{[]string{"--use-api-socket"}, "-v /run/wherry/wherry.sock"},
		{[]string{"--cpu-count", "1"}, "only engines on Windows"},
		{[]string{"--network", "a", "--network", "a"}, "given twice"},
		{[]string{"--network", "host", "--network", "b"}, "cannot stand beside"},
		{[]string{"--network", "alias=x"}, "name=NAME"},
		{[]string{"--network", "name=a,alais=x"}, "did you mean alias?"},
		{[]string{"--network", "name=a,ip=x"}, "no IP address"},
		{[]string{"--network", "name=a,ip=10.0.0.1", "--ip", "10.0.0.2"}, "say the same twice"},
		{[]string{"--network-alias", "x"}, "aliases are only known"},
		{[]string{"--mac-address", "q"}, "no MAC address"},
		{[]string{"--ip", "1.2.3"}, "no IP address"},
		{[]string{"--dns", "q"}, "no IP address"},
		{[]string{"--add-host", "db"}, "NAME:ADDRESS"},
		{[]string{"--add-host", "db:nowhere"}, "no IP address"},
		{[]string{"--pid", "bogus"}, "container:NAME"},
		{[]string{"--uts", "bogus"}, "--uts bogus: it can be host"},
		{[]string{"--ipc", "container:"}, "shareable"},
		{[]string{"--pull", "sometimes"}, "always, missing, newer, never"},
		{[]string{"-a", "stdfoo"}, "stdin, stdout, stderr"},
		{[]string{"-e", "=x"}, "no name"},
		{[]string{"-l", "=x"}, "no name"},
		{[]string{"--env-file", bad}, bad + `, line 2: the name "A B" has a space in it`},
		{[]string{"--env-file", binary}, "line 1: it is not text"},
		{[]string{"--env-file", "/nonexistent"}, "--env-file: open /nonexistent: no such file"},
		{[]string{"--sysctl", "a"}, "NAME=value"},
		{[]string{"--ulimit", "walks=3"}, "it can be as, core, "},
		{[]string{"--rm", "--restart", "sometimes"}, "it can be no, always"},
		{[]string{"--storage-opt", "a"}, "NAME=value"},
		{[]string{"--log-driver", "none", "--log-opt", "a=b"}, "takes no options"},
		{[]string{"--security-opt", "no-new-privilege"}, "did you mean no-new-privileges?"},
		{[]string{"--security-opt", "seccomp=/nonexistent"}, "no such file"},
		{[]string{"--security-opt", "seccomp=" + bad}, "no JSON"},
		{[]string{"--strict", "--privileged"}, "contradict"},
		{[]string{"--memory-swappiness", "101"}, "from 0 to 100"},
		{[]string{"--no-healthcheck", "--health-cmd", "x"}, "contradict"},
		{[]string{"--health-interval", "-1s"}, "cannot be negative"},
		{[]string{"--health-interval", "5"}, "such as 500ms"},
		{[]string{"--health-retries", "-1"}, "cannot be negative"},
	}
	for _, row := range rows {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			code, stderr := fails(t, append(append([]string{"-H", "unix:///nobody/listens/here", "create"}, row.args...), "busybox")...)
			if code != 125 {
				t.Errorf("exit status is %d, not 125", code)
			}
			if !strings.Contains(stderr, row.want) {
				t.Errorf("it says %q, not %q", stderr, row.want)
			}
		})
	}
}

// fails runs a command line that has to end with one line of explanation.
func fails(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	var b strings.Builder
	code = Main(t.Context(), args, Streams{In: strings.NewReader(""), Out: io.Discard, Err: &b})
	stderr = b.String()
	if code == 0 || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "wherry: ") {
		t.Errorf("status %d, output %q: want one line of error", code, stderr)
	}
	return code, stderr
}

func TestWrongWordsAreExplained(t *testing.T) {
	rows := []struct {
		line string
		code int
		want string
	}{
		{"rnu busybox", 1, `unknown command "rnu": did you mean run?`},
		{"drift", 1, `unknown command "drift": did you mean wherry image drift?`},
		{"verify", 1, `unknown command "verify": did you mean wherry audit verify?`},
		{"ps --json", 125, "unknown flag --json: write --format json"},
		{"image tree --format json", 125, "unknown flag --format: write --json"},
		{"log web", 1, "wherry logs CONTAINER"},
		{"list", 1, "wherry ps lists containers"},
		{"bash web", 1, "wherry exec -it CONTAINER sh"},
		{"kill -9 web", 125, "unknown flag -9: write -s 9"},
		{"logs -100 web", 125, "write -n 100"},
		{"rm -9 web", 125, "unknown flag -9; see wherry rm --help"},
		{"completion tcsh", 1, "it can be bash, zsh or fish"},
		{"frobnicate", 1, `unknown command "frobnicate"; see wherry --help`},
		{"container strat x", 1, `unknown command "strat" of wherry container: did you mean start?`},
		{"network --bogus", 125, "unknown flag --bogus"},
		{"--hots x ps", 125, "unknown flag --hots: did you mean --host?"},
		{"-H", 125, "flag -H needs a value"},
		{"--log-level loud ps", 125, "it can be debug, info, warn"},
		{"-l debug --tls --log-level=error -lwarn -H bogus ps", 1, "unix:///absolute/path"},
		{"search", 1, "1 argument is missing; usage: wherry search"},
		{"builder prune -f --filter typ=regular", 1, `there is no "typ" to go by`},
		{"builder prune -f --filter type=regular,foo!=x", 1, `there is no "foo" to go by`},
		{"builder du --filter shared,inuse=true --filter 'shred'", 1, "to go by: there are"},
		{"--tlscacert /no/such/ca.pem -H tcp://1.2.3.4:2375 ps", 1, "read the authority that the engine's certificate is of"},
		{"-H bogus ps", 1, "unix:///absolute/path"},
		{"-H unix:///nobody/listens/here ps", 1, "no engine at unix:///nobody/listens/here"},
		{"ps --formt x", 125, "did you mean --format?"},
		{"ps extra", 1, `what is "extra"? usage: wherry ps`},
		{"run", 1, "1 argument is missing; usage: wherry run"},
		{"run -m", 125, "flag -m, --memory needs a value"},
		{"container run", 1, "usage: wherry container run"},
		{"exec c", 1, "1 argument is missing"},
		{"rename a b c", 1, "too many arguments (3)"},
		{"run -d -a stdout busybox", 125, "contradict"},
		{"run --detach-keys ctrl-p,foo busybox", 125, `"foo" is no key`},
		{"cp a b", 1, "neither side is a container"},
		{"cp a:/x b:/y", 1, "one side must be this machine"},
		{"inspect --type contaner x", 1, "did you mean container?"},
		{"logs --since yesterday x", 1, "--since"},
		{"logs -n few x", 1, "a number of lines"},
		{"update x", 1, "say what to change"},
		{"ps --format {{.Nme", 1, "template"},
	}
	for _, row := range rows {
		t.Run(row.line, func(t *testing.T) {
			code, stderr := fails(t, strings.Fields(row.line)...)
			if code != row.code || !strings.Contains(stderr, row.want) {
				t.Errorf("status %d, %q; want %d, %q", code, stderr, row.code, row.want)
			}
		})
	}
}

func TestHelpNeedsNoEngine(t *testing.T) {
	for _, line := range []string{"", "--help", "help", "help run", "run --help", "container", "container --help", "container run --help", "ps -h", "--version", "-v", "completion bash", "completion", "completion zsh --help"} {
		var out, errs strings.Builder
		code := Main(t.Context(), append([]string{"-H", "unix:///nobody/listens/here"}, strings.Fields(line)...), Streams{Out: &out, Err: &errs})
		if code != 0 || out.Len() == 0 || errs.Len() != 0 {
			t.Errorf("wherry %s: status %d, output %q, errors %q", line, code, out.String(), errs.String())
		}
	}
}

// TestCommandsAreWhole builds every command: flags that clash panic, and every one has to say what it does.
func TestCommandsAreWhole(t *testing.T) {
	app := newApp(globals{}, Streams{Out: io.Discard, Err: io.Discard})
	seen := map[string]bool{}
	for _, c := range commands() {
		for _, name := range c.names() {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
			cmd := c.build(app)
			frame(cmd, "wherry "+name, &c)
			if c.short == "" || cmd.RunE == nil {
				t.Errorf("%s does nothing or does not say what", name)
			}
		}
	}
	for _, name := range strings.Fields("run exec create start attach stop kill restart pause unpause rm wait rename update ps logs inspect port top stats cp diff commit export") {
		if !seen[name] || !seen["container "+name] {
			t.Errorf("wherry %s or wherry container %[1]s is missing", name)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"memory", "memory-swap", "mount", "name"}
	for word, want := range map[string]string{"memmory": "memory", "nmae": "name", "mout": "mount", "memory-swp": "memory-swap", "xyzzy": "", "n": ""} {
		if got := nearest(word, words); got != want {
			t.Errorf("nearest to %s is %q, want %q", word, got, want)
		}
	}
}

func TestWherryOwnFlags(t *testing.T) {
	rec := &createRecorder{}
	host := serveRecorder(t, rec)
	Main(t.Context(), []string{"-H", host, "create", "--restart-fresh", "--restart", "always", "--strict", "--device", "/dev/fuse", "--device", "/dev/null:r",
		"--device", "/dev/zero:/dev/z:rw", "x"}, Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	_, body := rec.take()
	got := flatten(t, body)
	if got["/HostConfig/Annotations/wherry.restart"] != "fresh" {
		t.Errorf("--restart-fresh: annotations are %v", got["/HostConfig/Annotations/wherry.restart"])
	}
	if want := []any{"wherry=strict"}; !reflect.DeepEqual(got["/HostConfig/SecurityOpt"], want) {
		t.Errorf("--strict: options are %v", got["/HostConfig/SecurityOpt"])
	}
	device := func(host, inside, mode string) any {
		return map[string]any{"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode}
	}
	want := []any{device("/dev/fuse", "/dev/fuse", "rwm"), device("/dev/null", "/dev/null", "r"), device("/dev/zero", "/dev/z", "rw")}
	if !reflect.DeepEqual(got["/HostConfig/Devices"], want) {
		t.Errorf("devices are %v", got["/HostConfig/Devices"])
	}
}

func TestRelativePathsAreThisDirectorys(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseVolumes([]string{"./a:/b", "name:/c", "/d"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{dir + "/a:/b", "name:/c"}; !slices.Equal(v.binds, want) {
		t.Errorf("binds are %v, want %v", v.binds, want)
	}
	if _, ok := v.anonymous["/d"]; !ok || len(v.anonymous) != 1 {
		t.Errorf("volumes without a name are %v", v.anonymous)
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "127.0.0.1::80/udp", "[::1]:80-90:80-90", "::1:1:2", "0-65535", "target=80,published=1-2", ":", "[", "1:2:3:4:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePorts([]string{s}, nil)
		if err != nil {
			return
		}
		if len(p.bindings) == 0 || len(p.bindings) != len(p.exposed) {
			t.Errorf("%q gives %d ports and %d exposed", s, len(p.bindings), len(p.exposed))
		}
		for port, list := range p.bindings {
			if _, err := network.ParsePort(port.String()); err != nil {
				t.Errorf("%q gives the port %v", s, port)
			}
			for _, b := range list {
				if _, _, err := hostRange(b.HostPort); err != nil {
					t.Errorf("%q gives the host's port %q", s, b.HostPort)
				}
			}
		}
	})
}

func FuzzParseVolumes(f *testing.F) {
	for _, s := range []string{"/a", "a:/b", "./a:/b:ro,z", "::", ":/a", "/a:/b:/c:d", "..:/x", "\x00:/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseVolumes([]string{s})
		if err != nil {
			return
		}
		if len(v.binds)+len(v.anonymous) != 1 {
			t.Errorf("%q gives %v and %v", s, v.binds, v.anonymous)
		}
		for _, b := range v.binds {
			parts := strings.Split(b, ":")
			if len(parts) < 2 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") || strings.HasPrefix(parts[0], "./") {
				t.Errorf("%q gives the bind %q", s, b)
			}
		}
	})
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"type=bind,src=/a,dst=/b,ro", "dst=/b,volume-opt=a=b", `type=bind,"src=/a,b",dst=/c`, "type=tmpfs,dst=/t,tmpfs-mode=1777,tmpfs-size=1g", "=", ",", `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMount(s)
		if err != nil {
			return
		}
		if m.Target == "" || m.Type == "" {
			t.Errorf("%q gives %+v", s, m)
		}
		if m.TmpfsOptions != nil && m.Type != "tmpfs" || m.BindOptions != nil && m.Type != "bind" || m.VolumeOptions != nil && m.Type != "volume" {
			t.Errorf("%q mixes options: %+v", s, m)
		}
	})
}

func TestCompletion(t *testing.T) {
	host := recording{
		"/containers/json": `[{"Id":"1","Names":["/web"]},{"Id":"2","Names":["/db"]}]`,
		"/images/json":     `[{"Id":"sha256:1","RepoTags":["busybox:1"]}]`,
	}.serve(t)
	for line, want := range map[string]string{
		"sto": "stop", "run --memory-s": "--memory-swap", "container attac": "attach", "stop ": "web", "exec ": "db", "run ": "busybox:1", "image rm ": "busybox:1",
	} {
		words := strings.Split(line, " ")
		var out strings.Builder
		code := Main(t.Context(), append([]string{"__complete", "-H", host}, words...), Streams{Out: &out, Err: io.Discard})
		if code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%q: status %d, %q", line, code, out.String())
		}
	}
}

// TestHelpFitsTheTerminal: lines end between words, and what follows stands below the text that it belongs to.
func TestHelpFitsTheTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"Usage: wherry\n":                                         "Usage: wherry\n",
		"  name   one two three four\n":                           "  name   one two\n         three four\n",
		"  -H, --host x   one two\nthree":                         "  -H, --host x   one\n  two\nthree",
		"  averyverylongwordthatfitsnowhere\n\nend":               "  averyverylongwordthatfitsnowhere\n\nend",
		"  a   äöü äöü äöü äöü äöü äöü\n":                         "  a   äöü äöü äöü\n      äöü äöü äöü\n",
		"  --x y   one=a|bcdef,two=3,four=5":                      "  --x y   one=a|\n          bcdef,\n          two=3,\n          four=5",
		"just as long as that\n":                                  "just as long as that\n",
		"just as long as that,\n":                                 "just as long as\nthat,\n",
		"one two three four five six seven eight nine ten eleven": "one two three four\nfive six seven eight\nnine ten eleven",
	} {
		if got := fold(text, 20); got != want {
			t.Errorf("%q:\n%q, want\n%q", text, got, want)
		}
	}
	var out strings.Builder
	if err := printHelp(&out, commands()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n  audit "); n != 1 { // a noun and a command
		t.Errorf("audit is there %d times", n)
	}
	lines := fold(out.String(), 80) + fold(completionHelp, 80)
	for _, cmd := range commands() {
		c := cmd.build(newApp(globals{}, Streams{Out: io.Discard, Err: io.Discard}))
		frame(c, "wherry "+cmd.name, &cmd)
		c.Example = exampleText(cmd.name)
		lines += help(c, 80)
	}
	for line := range strings.Lines(lines) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if got, want := paragraphs("one\ntwo\n\nthree\n  a list\n  of two\nfour"), "one two\n\nthree\n  a list\n  of two\nfour"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestExamples: what help shows as examples can be typed, and is shown by a command that is there.
func TestExamples(t *testing.T) {
	names, seen := map[string]bool{}, map[string]bool{}
	for _, c := range commands() {
		names[c.name] = true
		for typed, what := range examples(c.name) {
			seen[typed] = true
			if what == "" {
				t.Errorf("%s: %s: it is not said what for", c.name, typed)
			}
			line, _, _ := strings.Cut(typed, " < ")
			for _, words := range shellWords(line) {
				if err := parses(words[1:]); err != nil {
					t.Errorf("%s: %s: %v", c.name, typed, err)
				}
			}
		}
	}
	for line := range strings.Lines(manyExamples) {
		name, rest, _ := strings.Cut(line, ": ")
		if typed, _, _ := strings.Cut(rest, "  # "); !names[name] || !seen[typed] {
			t.Errorf("no help shows %s", line)
		}
	}
	if len(seen) < 60 {
		t.Errorf("%d examples", len(seen))
	}
}

// TestLockOfAFileThatIsNotThere: only what a lock file names is to be taken out of it.
func TestLockOfAFileThatIsNotThere(t *testing.T) {
	t.Chdir(t.TempDir())
	_, stderr, status := wherry(t, recording{}.serve(t), "lock", "-f", "nosuch.yml")
	if status != 1 || stderr != "wherry: open nosuch.yml: no such file or directory\n" {
		t.Errorf("exit %d: %s", status, stderr)
	}
	writeFile(t, "wherry.lock", `{"version": 1, "files": ["gone.yml"], "images": {}}`, 0o600)
	if _, stderr, status = wherry(t, recording{}.serve(t), "lock"); status != 1 || !strings.Contains(stderr, "gone.yml: no such file or directory: take it out of wherry.lock, or bring it back") {
		t.Errorf("exit %d: %s", status, stderr)
	}
}
