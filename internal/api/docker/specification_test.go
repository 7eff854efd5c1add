package docker_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// specified are all routes of Docker's own specification, which comes with the types: "GET /containers/json".
func specified(t *testing.T) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path, verb := regexp.MustCompile(`^  "?(/[^"\s]*?)"?:\s*$`), regexp.MustCompile(`^    (get|post|put|delete|head):`)
	var out []string
	at, inside := "", false
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if line != "" && line[0] != ' ' && line[0] != '#' {
			inside = line == "paths:"
		}
		if m := path.FindStringSubmatch(line); inside && m != nil {
			at = m[1]
		}
		if m := verb.FindStringSubmatch(line); inside && m != nil && at != "" {
			out = append(out, strings.ToUpper(m[1])+" "+at)
		}
	}
	if len(out) < 100 {
		t.Fatalf("only %d routes were found in the specification", len(out))
	}
	return out
}

// TestEveryRouteOfTheSpecification: whatever a client asks for, it gets an answer of the engine: what it does, or why not.
func TestEveryRouteOfTheSpecification(t *testing.T) {
	e := start(t)
	placeholder := regexp.MustCompile(`\{[^}]+\}`)
	notHere := []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins", "/build", "/session"}
	for _, route := range specified(t) {
		method, path, _ := strings.Cut(route, " ")
		path = placeholder.ReplaceAllString(path, "no-such-thing")
		if path == "/events" || path == "/images/create" {
			path += map[string]string{"/events": "?until=1", "/images/create": "?fromSrc=-"}[path] // ends by itself
		}
		body := ""
		if method == http.MethodPost || method == http.MethodPut {
			body = "{}"
		}
		status, answer := e.call(t, method, "/v1.56"+path, body)
		var said struct{ Message string }
		_ = json.Unmarshal([]byte(answer), &said)
		if said.Message == "page not found" || status == http.StatusMethodNotAllowed {
			t.Errorf("%s is not there: %d %s", route, status, answer)
			continue
		}
		absent := slices.ContainsFunc(notHere, func(p string) bool { return strings.HasPrefix(path, p) })
		switch {
		case status == http.StatusInternalServerError, status == http.StatusNotImplemented && !absent && !strings.Contains(path, "/ws"):
			t.Errorf("%s: %d %s", route, status, answer)
		case status >= 400 && said.Message == "" && method != http.MethodHead:
			t.Errorf("%s: %d without a message: %s", route, status, answer)
		}
	}
}

// TestBodiesAreChecked: each route that takes JSON refuses what is none, of another type, or too long, with 4xx.
func TestBodiesAreChecked(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["true"]`)
	for _, path := range []string{"/containers/create", "/containers/" + id + "/exec", "/containers/" + id + "/update", "/networks/create", "/volumes/create", "/auth", "/networks/bridge/connect"} {
		for _, body := range []string{"", "[", `"text"`, "{}{}", `{"a":` + strings.Repeat("[", 20000), strings.Repeat(" ", 9<<20) + "{}", `{"Labels":7,"Cmd":{},"Name":[],"NanoCpus":"x","username":{}}`} {
			if status, answer := e.call(t, "POST", path, body); status < 400 || status >= 500 {
				t.Errorf("%s %.20q: %d %s", path, body, status, answer)
			}
		}
	}
}

// As with Docker: clients that name an image with its tag and say the tag too mean one image.
func TestTheTagOfTheQueryTakesThePlaceOfTheNames(t *testing.T) {
	e := start(t)
	if status, answer := e.call(t, "POST", "/images/create?fromImage=127.0.0.1:1/a:1&tag=2", ""); status == 400 || !strings.Contains(answer, "127.0.0.1:1/a:2") {
		t.Errorf("%d %s", status, answer)
	}
}

// FuzzBodies sends anything to every route that takes a body; the engine answers, and is still there.
func FuzzBodies(f *testing.F) {
	paths := []string{"/containers/create", "/containers/x/exec", "/containers/x/update", "/networks/create", "/volumes/create", "/auth", "/networks/bridge/connect",
		"/networks/bridge/disconnect", "/exec/x/start", "/containers/x/start", "/images/load", "/commit?container=x", "/images/create?fromSrc=-", "/images/x/tag?repo=y"}
	for i := range paths {
		f.Add(uint8(i), `{"Image":"busybox:test"}`)
	}
	f.Add(uint8(0), `{"Image":"no-such","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]},"Memory":-1,"RestartPolicy":{"Name":"?"}}}`)
	f.Add(uint8(3), `{"Name":"../x","IPAM":{"Config":[{"Subnet":"x"}]}}`)
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		e := start(t)
		path := paths[int(which)%len(paths)]
		if strings.Contains(path, "create") && strings.Contains(body, "busybox") {
			return // would make something
		}
		if status, answer := e.call(t, "POST", path, body); status == 500 && strings.Contains(answer, "error of its own") {
			t.Fatalf("%s %q: %s", path, body, answer)
		}
		if status, _ := e.call(t, "GET", "/_ping", ""); status != 200 {
			t.Fatal("the engine is gone")
		}
	})
}

// TestImportOfNothing: what a server does not have is not there, which is another mistake than a wrong address.
func TestImportOfNothing(t *testing.T) {
	e := start(t)
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if status, answer := e.call(t, http.MethodPost, "/images/create?fromSrc="+url.QueryEscape(server.URL+"/x.tar"), ""); status != http.StatusNotFound || !strings.Contains(answer, "no such file") {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := e.call(t, http.MethodPost, "/images/create?fromSrc=%252Fdata%252Ffile.tar", ""); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, answer)
	}
}
