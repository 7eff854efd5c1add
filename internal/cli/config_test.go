package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/login"
)

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]imageName{
		"busybox":                   {"docker.io", "library/busybox", "", ""},
		"a/b:c":                     {"docker.io", "a/b", "c", ""},
		"localhost/a":               {"localhost", "a", "", ""},
		"localhost:5000/a":          {"localhost:5000", "a", "", ""},
		"r.example/a/b:v@sha256:1":  {"r.example", "a/b", "v", "sha256:1"},
		"index.docker.io/library/x": {"docker.io", "library/x", "", ""},
		"Reg/x":                     {"Reg", "x", "", ""},
		"":                          {"docker.io", "library/", "", ""},
		":":                         {"docker.io", "library/", "", ""},
	} {
		if got := splitName(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	for text, want := range map[string]string{"a:b": "a", "r:5000/a": "r:5000/a", "a@sha256:1": "a", "r:5000/a:b@sha256:1": "r:5000/a"} {
		if got := repository(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestDamagedConfigDoesNotStopPulls(t *testing.T) {
	l := &listener{recording: recording{"/images/create": `{"status":"Done"}`}}
	host := serveOn(t, l)
	dir := t.TempDir()
	for _, text := range []string{"{", "[]", `{"auths":1}`, `{"credsStore":"../x"}`, `{"credsStore":"wherry-is-not-there"}`} {
		writeFile(t, filepath.Join(dir, "config.json"), text, 0o600)
		_, stderr, status := wherryWith(t, nil, "--host", host, "--config", dir, "pull", "r.example/a")
		if status != 0 || !strings.HasPrefix(stderr, "warning: going on without a login for r.example: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d: %q", text, status, stderr)
		}
		_, stderr, status = wherryWith(t, []byte("p"), "--host", host, "--config", dir, "login", "-u", "u", "--password-stdin", "r.example")
		if status != 1 {
			t.Errorf("%s: login: exit %d: %q", text, status, stderr)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, "config.json")); string(data) != text {
			t.Errorf("%s: was written over with %s", text, data)
		}
	}
}

// fakeHelper makes a credential helper that keeps each login in a file.
func fakeHelper(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, "docker-credential-"+name), `#!/bin/sh
cd `+dir+`
input=$(cat)
echo "$1 $input" >> calls
file() { echo "login-$(echo "$1" | tr -c 'a-zA-Z0-9\n' _)"; }
case $1 in
get) f=$(file "$input"); [ -f "$f" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$f" ;;
store) url=$(echo "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); case $url in refuse*) echo "the safe is shut" >&2; exit 1;; esac; echo "$input" > "$(file "$url")" ;;
erase) rm -f "$(file "$input")" ;;
esac
`, 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// TestLoginsAreSharedWithDocker: what one client keeps, in a file or with a helper, the other sends.
func TestLoginsAreSharedWithDocker(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("there is no docker client to share with")
	}
	helper := fakeHelper(t, "fake")
	for _, config := range []string{`{}`, `{"credsStore":"fake"}`, `{"credHelpers":{"r.example:5000":"fake","https://index.docker.io/v1/":"fake"}}`} {
		for _, server := range []string{"r.example:5000", ""} {
			image := "library/x"
			if server != "" {
				image = server + "/x"
			}
			for _, answer := range []string{`{"Status":"Login Succeeded"}`, `{"Status":"Login Succeeded","IdentityToken":"tok"}`} {
				l := &listener{recording: recording{"/auth": answer, "/images/create": `{"status":"Done"}`, "/info": `{"IndexServerAddress":"https://index.docker.io/v1/"}`}}
				host := serveOn(t, l)
				dir := t.TempDir()
				writeFile(t, filepath.Join(dir, "config.json"), config, 0o600)
				pulls := func() (ours, dockers registry.AuthConfig) {
					l.take()
					wherryWith(t, nil, "--host", host, "--config", dir, "pull", image)
					exec.Command("docker", "--config", dir, "-H", host, "pull", image).Run()
					got := l.take()
					if len(got) != 2 {
						t.Fatalf("%d pulls", len(got))
					}
					return got[0].Auth, got[1].Auth
				}
				logIn := []string{"--host", host, "--config", dir, "login", "-u", "me", "--password-stdin"}
				logout := []string{"--config", dir, "logout"}
				if server != "" {
					logIn, logout = append(logIn, server), append(logout, server)
				}
				if out, stderr, status := wherryWith(t, []byte("pä:ss\n"), logIn...); status != 0 || !strings.HasSuffix(out, "Login Succeeded\n") {
					t.Fatalf("%s %q: exit %d: %s %s", config, server, status, out, stderr)
				}
				if asked := l.take()[0].Body.(map[string]any); asked["password"] != "pä:ss" || asked["username"] != "me" || asked["serveraddress"] != login.ServerKey(hostOr(server)) {
					t.Errorf("asked for %v", asked)
				}
				ours, dockers := pulls()
				ours.Auth, dockers.Auth = "", ""
				if strings.Contains(answer, "tok") && ours.IdentityToken != "tok" || !strings.Contains(answer, "tok") && (ours.Username != "me" || ours.Password != "pä:ss") {
					t.Errorf("%s %q %s: we send %+v", config, server, answer, ours)
				}
				if ours != dockers {
					t.Errorf("%s %q %s: we send %+v, docker %+v", config, server, answer, ours, dockers)
				}
				if out, stderr, status := wherryWith(t, nil, logout...); status != 0 || !strings.HasPrefix(out, "Removing login") {
					t.Errorf("logout: exit %d: %s %s", status, out, stderr)
				}
				if ours, dockers := pulls(); ours != (registry.AuthConfig{}) || dockers.Username != "" {
					t.Errorf("after logout we send %+v, docker %+v", ours, dockers)
				}
			}
		}
	}
	calls, err := os.ReadFile(filepath.Join(helper, "calls"))
	if err != nil || !strings.Contains(string(calls), "store") || !strings.Contains(string(calls), "erase https://index.docker.io/v1/") {
		t.Errorf("the helper was asked for %s (%v)", calls, err)
	}
}

func hostOr(server string) string {
	if server == "" {
		return "docker.io"
	}
	return server
}

func TestLoginFailures(t *testing.T) {
	fakeHelper(t, "fake")
	l := &listener{recording: recording{"/auth": `{"Status":"Login Succeeded"}`}}
	host := serveOn(t, l)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), `{"credsStore":"fake"}`, 0o600)
	_, stderr, status := wherryWith(t, []byte("p"), "--host", host, "--config", dir, "login", "-u", "u", "--password-stdin", "refuse.example")
	if status != 1 || !strings.Contains(stderr, "cannot be kept") || !strings.Contains(stderr, "the safe is shut") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	host = recording{}.serve(t) // a registry that refuses: the engine answers with an error
	_, stderr, status = wherryWith(t, []byte("p"), "--host", host, "--config", dir, "login", "-u", "u", "--password-stdin", "r.example")
	data, _ := os.ReadFile(filepath.Join(dir, "config.json"))
	if status != 1 || strings.Contains(string(data), "r.example") {
		t.Errorf("exit %d: %s; %s", status, stderr, data)
	}
	_, stderr, status = wherryWith(t, []byte("\n"), "--host", host, "--config", dir, "login", "-u", "u", "--password-stdin", "r.example")
	if status != 1 || !strings.Contains(stderr, "no password") {
		t.Errorf("exit %d: %s", status, stderr)
	}
}

// TestPasswordOnTheCommandLine: who gives it there is told that others see it.
func TestPasswordOnTheCommandLine(t *testing.T) {
	host := serveOn(t, recording{"/auth": `{"Status":"Login Succeeded"}`})
	for flag, warned := range map[string]bool{"--password=p": true, "-pp": true, "--password-stdin": false} {
		_, stderr, status := wherryWith(t, []byte("p"), "--host", host, "--config", t.TempDir(), "login", "-u", "u", flag, "r.example")
		if status != 0 || strings.Contains(stderr, "--password-stdin reads it from the input") != warned {
			t.Errorf("%s: exit %d: %s", flag, status, stderr)
		}
	}
}
