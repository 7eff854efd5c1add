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
