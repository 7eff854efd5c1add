package cli

import (
	"strings"
	"testing"
)

// TestWordsOfOthers: what Podman and Docker have and Wherry has not is answered with the way that there is here, and the ways are commands.
func TestWordsOfOthers(t *testing.T) {
	for name, way := range ways() {
		code, stderr := fails(t, append(strings.Fields(name), "x")...)
		if code != 1 || !strings.Contains(stderr, way) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("wherry %s: exit %d: %q", name, code, stderr)
		}
	}
	for flag, way := range otherWays() {
		code, stderr := fails(t, "run", flag, "x")
		if code != 125 || stderr != "wherry: unknown flag "+flag+": "+way+"\n" {
			t.Errorf("wherry run %s: exit %d: %q", flag, code, stderr)
		}
	}
	for name, way := range ways() {
		for _, words := range shellWords(way) {
			for len(words) > 0 && words[0] != "wherry" {
				words = words[1:]
			}
			if len(words) < 2 || words[1] == "starts" || words[1] == "and" { // a sentence about it
				continue
			}
			_, rest, err := parseGlobals(words[1:])
			if err == nil {
				_, _, _, err = choose(rest)
			}
			if err != nil {
				t.Errorf("the way of %s, %q: %v", name, way, err)
			}
		}
	}
}

func TestShortenIDs(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{
		"container " + id + " is not running": "container 0123456789ab is not running",
		`by container "` + id + `".`:          `by container "0123456789ab".`,
		"sha256:" + id:                        "sha256:" + id,
		"x@" + id + " deadbeef é":             "x@" + id + " deadbeef é",
		id[:63]:                               id[:63],
	} {
		if got := shortenIDs(in); got != want {
			t.Errorf("%q became %q, not %q", in, got, want)
		}
	}
}

// TestErrorsBeginWithThePoint: what Docker's engine says before it is for programs.
func TestErrorsBeginWithThePoint(t *testing.T) {
	for in, want := range map[string]string{
		"failed to set up container networking: driver failed programming external connectivity on endpoint web (ed437e3c8c83): Bind for 0.0.0.0:80 failed: port is already allocated": "Bind for 0.0.0.0:80 failed: port is already allocated",
		`OCI runtime exec failed: exec: "x": executable file not found in $PATH`:                                                                                                       `exec: "x": executable file not found in $PATH`,
		"failed to set up container networking: no address is free":                                                                                                                    "failed to set up container networking: no address is free",
	} {
		if got := withoutPreamble(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestFlagsComplete: shells are told the words that flags take, and names of networks.
func TestFlagsComplete(t *testing.T) {
	host := recording{"/networks": `[{"Name":"lan"},{"Name":"bridge"}]`, "/containers/json": `[{"Names":["/web"]}]`}.serve(t)
	for line, want := range map[string]string{
		"run --pull ": "newer", "run --network ": "lan", "run --volumes-from ": "web", "ps --sort ": "status", "images --sort ": "repository",
		"wait --condition ": "healthy", "container run --restart ": "unless-stopped", "ps --format ": "json", "stop --signal ": "TERM",
	} {
		out, _, _ := wherry(t, host, append([]string{"__complete", "--host", host}, strings.Split(line, " ")...)...)
		if !strings.Contains("\n"+out, "\n"+want+"\n") || !strings.Contains(out, ":4\n") {
			t.Errorf("wherry %s: %q has no %q", line, out, want)
		}
	}
}

// TestFormatsOfPortAndDiff: json has a line for each.
func TestFormatsOfPortAndDiff(t *testing.T) {
	host := recording{
		"/containers/web/changes": `[{"Path":"/made","Kind":1},{"Path":"/gone","Kind":2}]`,
		"/containers/web/json":    `{"Id":"web","Config":{},"HostConfig":{},"State":{},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"53/udp":[{"HostIp":"0.0.0.0","HostPort":"53"}]}}}`,
	}.serve(t)
	for line, want := range map[string]string{
		"diff web":                              "A /made\nD /gone\n",
		"diff --format json web":                `{"Kind":"A","Path":"/made"}` + "\n" + `{"Kind":"D","Path":"/gone"}` + "\n",
		"port --format {{.HostPort}} web":       "53\n8080\n8080\n",
		"port --format json web 53/udp":         `{"ContainerPort":"53","HostIP":"0.0.0.0","HostPort":"53","Protocol":"udp"}` + "\n",
		"port --format table{{.HostIP}} web 80": "HOST IP\n0.0.0.0\n::\n",
	} {
		out, stderr, code := wherry(t, host, strings.Fields(line)...)
		if out != want || code != 0 {
			t.Errorf("wherry %s: %q, not %q\n%s", line, out, want, stderr)
		}
	}
}
