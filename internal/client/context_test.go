package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wherry.dev/wherry/internal/contexts"
)

// makeContext writes a context as docker does.
func makeContext(t *testing.T, config, name, meta string) {
	t.Helper()
	dir := contexts.Store{Dir: config}.MetaDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhichEngine: flags win over the environment, that over the current context.
func TestWhichEngine(t *testing.T) {
	config := t.TempDir()
	makeContext(t, config, "far", `{"Name":"far","Metadata":{"Description":"words"},"Endpoints":{"docker":{"Host":"ssh://far.example","SkipTLSVerify":false}}}`)
	makeContext(t, config, "near", `{"Name":"near","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///near.sock"}}}`)
	makeContext(t, config, "broken", `{`)
	current := filepath.Join(config, "config.json")
	rows := []struct {
		choice                        Choice
		wherry, docker, context, file string
		host, problem                 string
	}{
		{host: DefaultHost},
		{file: `{"currentContext":"far"}`, host: "ssh://far.example"},
		{file: `{"currentContext":"far"}`, docker: "unix:///d.sock", host: "unix:///d.sock"},
		{file: `{"currentContext":"far"}`, wherry: "unix:///w.sock", docker: "unix:///d.sock", host: "unix:///w.sock"},
		{file: `{"currentContext":"far"}`, context: "near", host: "unix:///near.sock"},
		{file: `{"currentContext":"far"}`, context: "default", host: DefaultHost},
		{file: `{"currentContext":"far"}`, choice: Choice{Context: "near"}, wherry: "unix:///w.sock", host: "unix:///near.sock"},
		{file: `{"currentContext":"far"}`, choice: Choice{Host: "/h.sock"}, context: "near", host: "unix:///h.sock"},
		{docker: "ssh://u@d:7/s.sock", host: "ssh://u@d:7/s.sock"},
		{docker: "tcp://d:7", problem: "DOCKER_HOST names the engine at tcp://d:7, and engines are spoken to over TLS only"}, // not another engine
		{docker: "npipe:////./pipe/docker_engine", problem: "unix:///absolute/path"},
		{docker: "tcp://d:7", wherry: "unix:///w.sock", host: "unix:///w.sock"},
		{choice: Choice{Host: "/h.sock", Context: "near"}, problem: "both name an engine"},
		{choice: Choice{Context: "nowhere"}, problem: `no context "nowhere"`},
		{file: `{"currentContext":"broken"}`, problem: "meta.json"},
		{file: `{`, host: DefaultHost},
	}
	for _, row := range rows {
		t.Setenv("WHERRY_HOST", row.wherry)
		t.Setenv("DOCKER_HOST", row.docker)
		t.Setenv("DOCKER_CONTEXT", row.context)
		t.Setenv("DOCKER_TLS_VERIFY", "")
		if err := os.WriteFile(current, []byte(row.file), 0o600); err != nil {
			t.Fatal(err)
		}
		row.choice.Config = config
		c, err := Find(row.choice)
		switch {
		case row.problem != "":
			if err == nil || !strings.Contains(err.Error(), row.problem) {
				t.Errorf("%+v: %v", row, err)
			}
		case err != nil || c.Host() != row.host:
			t.Errorf("%+v: %v", row, err)
		}
	}
	makeContext(t, config, "broken", `{"Name":"broken"}`)
	list, err := Contexts(config)
	if err != nil || len(list) != 3 || list[1].Name != "far" || list[1].Description != "words" {
		t.Errorf("%v %v", list, err)
	}
}

// TestSSHArguments: what ssh is run with, and that no word of an address is one of its options or of the remote shell's.
func TestSSHArguments(t *testing.T) {
	for host, want := range map[string]string{
		"ssh://far":                `-T -o ConnectTimeout=30 -- far sh -c 'if command`,
		"ssh://me@far:2222/":       `-l me -p 2222 -- far sh -c 'if command -v wherry >/dev/null 2>&1; then exec wherry system dial-stdio; else`,
		"ssh://far/run/a'b$(c).s":  `--host '\''unix:///run/a'\''\'\'''\''b$(c).s'\'' system dial-stdio`,
		"ssh://[::1]:22/a%20b.soc": `-p 22 -- ::1 sh -c`,
	} {
		r, err := sshAddress(host)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.arguments(), " "); !strings.Contains(got, want) {
			t.Errorf("%s: %s", host, got)
		}
	}
}
