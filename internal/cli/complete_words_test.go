package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNamesAreCompleted(t *testing.T) {
	host := recording{
		"/images/json": recordedImages, "/volumes": recordedVolumes, "/networks": recordedNetworks, "/containers/json": recordedContainers,
	}.serve(t)
	for line, want := range map[string]string{
		"rmi ": "nginx:latest", "run --rm ": "nginx:1.27", "image rm ": "nginx:latest", "network rm ": "back9", "volume inspect ": "web10", "stop ": "web",
		"network connect bridge ": "web", "network ": "prune", "im": "images", "images --no-": "--no-trunc", "container ": "prune", "inspect ": "web",
	} {
		words := strings.Split(line, " ")
		out, stderr, status := wherryWith(t, nil, append([]string{"__complete", "--host", host}, words...)...)
		var got []string
		for l := range strings.SplitSeq(out, "\n") {
			name, _, _ := strings.Cut(l, "\t")
			got = append(got, name)
		}
		if status != 0 || !slices.Contains(got, want) {
			t.Errorf("%q: exit %d: %q %s", line, status, got, stderr)
		}
	}
	out, _, _ := wherryWith(t, nil, "__complete", "--host", host, "rmi", "nginx:latest", "")
	if strings.Contains(out, "nginx:latest") {
		t.Errorf("what is there already is offered again: %s", out)
	}
	out, _, status := wherryWith(t, nil, "__complete", "--host", "unix:///nowhere/s", "rmi", "")
	if status != 0 || !strings.HasPrefix(out, ":") {
		t.Errorf("without an engine: exit %d: %q", status, out)
	}
}

// TestBashCompletes: the script that `completion` prints is one that a shell takes, and asks the program.
func TestBashCompletes(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "wherry")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >"+dir+"/asked\necho images; echo :4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, stderr, status := wherryWith(t, nil, "completion", shell)
		if status != 0 || !strings.Contains(out, "wherry") {
			t.Errorf("%s: exit %d: %s", shell, status, stderr)
		}
		if shell != "bash" {
			continue
		}
		script := out + `
_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; }
__ltrim_colon_completions() { :; }
_init_completion() { _get_comp_words_by_ref; }
compopt() { :; }
COMP_WORDS=(wherry im) COMP_CWORD=1 COMP_LINE="wherry im" COMP_POINT=9
__start_wherry
echo "${COMPREPLY[@]}"`
		cmd := exec.Command("bash", "-c", script)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		got, err := cmd.CombinedOutput()
		asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
		if err != nil || strings.TrimSpace(string(got)) != "images" || strings.TrimSpace(string(asked)) != "__complete im" {
			t.Errorf("bash: %v: %q, asked %q", err, got, asked)
		}
	}
}
