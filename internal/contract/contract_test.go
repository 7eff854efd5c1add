package contract

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T) *Specification {
	t.Helper()
	s, err := Open("1.56")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const health = `{"State":{"Health":{"Status":"healthy","Log":[]}}}`

// TestProblems: what is not in the specification is found, where it is and what it is.
func TestProblems(t *testing.T) {
	s := open(t)
	rows := []struct {
		method, target, request string
		status                  int
		answer                  string
		operation, problem      string // "": none
	}{
		{"GET", "/v1.44/containers/json?all=1", "", 200, `[{"Id":"x","Labels":{"a":"b"}}]`, "GET /containers/json", ""},
		{"GET", "/containers/json?al=1", "", 200, `[]`, "GET /containers/json", "query al: the specification has no such parameter"},
		{"GET", "/containers/json?limit=x", "", 200, `[]`, "GET /containers/json", `query limit: "x" is no integer`},
		{"GET", "/containers/json", "", 200, `[{"Idd":"x"}]`, "GET /containers/json", "answer 200 [].Idd: the specification has no such field"},
		{"GET", "/containers/json", "", 200, `[{"Id":7}]`, "GET /containers/json", "answer 200 [].Id: 7 is no string"},
		{"GET", "/containers/json", "", 200, `{}`, "GET /containers/json", "answer 200 : it is an object, not array"},
		{"GET", "/containers/json", "", 200, `[`, "GET /containers/json", "answer 200 : it is no JSON: unexpected EOF"},
		{"GET", "/containers/json", "", 418, ``, "GET /containers/json", "answer 418: the specification has no such status"},
		{"GET", "/containers/x/json", "", 404, `{"message":"no"}`, "GET /containers/{id}/json", ""},
		{"GET", "/containers/x/json", "", 404, `{"message":"no","error":"no"}`, "GET /containers/{id}/json", "answer 404 .error: the specification has no such field"},
		{"GET", "/containers/x/json", "", 200, health, "GET /containers/{id}/json", ""},
		{"GET", "/containers/x/json", "", 200, strings.Replace(health, "healthy", "well", 1), "GET /containers/{id}/json", `answer 200 .State.Health.Status: "well" is none of [none starting healthy unhealthy]`},
		{"GET", "/containers/x/nothing", "", 200, ``, "GET /containers/x/nothing", "path: the specification has no such route, and the answer is 200"},
		{"GET", "/images/registry:5000/a/b:1/json", "", 404, `{"message":"no"}`, "GET /images/{name}/json", ""},
		{"POST", "/v1.40/containers/create", `{"Image":"x","Imagge":1}`, 201, `{"Id":"x","Warnings":[]}`, "POST /containers/create", "request.Imagge: the specification has no such field"},
		{"POST", "/containers/create", `{"Image":"x","Cmd":null}`, 201, `{"Warnings":[]}`, "POST /containers/create", "answer 201 .Id: it is required, and missing"},
		{"POST", "/containers/create", `{"Image":7`, 400, `{"message":"no"}`, "POST /containers/create", ""},
		{"GET", "/v1.30/system/df", "", 200, `{"LayersSize":1.5}`, "GET /system/df", "answer 200 .LayersSize: 1.5 is no integer"},
		{"GET", "/v1.40/system/df", "", 200, `{"LayersSize":15,"ImageUsage":{}}`, "GET /system/df", ""},
		{"GET", "/v1.56/system/df", "", 200, `{"LayersSize":15}`, "GET /system/df", "answer 200 .LayersSize: the specification has no such field"},
		{"GET", "/v1.56/events", "", 200, "\x1e{\"Type\":\"image\"}\n\x1e{\"Type\":\"volume\"}\n", "GET /events", ""},
		{"GET", "/v1.56/events", "", 200, "\x1e{\"Type\":\"image\"}\n\x1e{\"Typ\":\"volume\"}\n", "GET /events", "answer 200 .Typ: the specification has no such field"},
		{"GET", "/wherry/anything", "", 200, `7`, "", ""},
		{"GET", "/v1.24/containers/json", "", 200, `7`, "", ""},
	}
	for _, row := range rows {
		u, err := url.Parse(row.target)
		if err != nil {
			t.Fatal(err)
		}
		json := http.Header{"Content-Type": {"application/json"}}
		answer := json
		if strings.HasPrefix(row.answer, "\x1e") {
			answer = http.Header{"Content-Type": {"application/json-seq"}}
		}
		operation, problems, err := s.Check(Exchange{Method: row.method, URL: u, Header: json, Body: []byte(row.request),
			Status: row.status, Answer: answer, Said: []byte(row.answer), Whole: true})
		if err != nil || operation != row.operation {
			t.Errorf("%s %s: %q %v", row.method, row.target, operation, err)
		}
		switch {
		case row.problem == "" && len(problems) > 0, row.problem != "" && len(problems) != 1:
			t.Errorf("%s %s %s: %v, want %q", row.method, row.target, row.answer, problems, row.problem)
		case row.problem != "" && problems[0].At+": "+problems[0].What != row.problem:
			t.Errorf("%s %s: %v, want %q", row.method, row.target, problems, row.problem)
		}
	}
}

// TestEveryVersionIsRead: there is a file for each version that is held against, and it has its routes.
func TestEveryVersionIsRead(t *testing.T) {
	s := open(t)
	files, err := filepath.Glob(filepath.Join(s.dir, "v1.*.yaml"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		f, err := s.load(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "v"), ".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := f.find("POST", "/containers/x/start"); !ok || len(f.routes) < 70 {
			t.Errorf("%s: %d routes", path, len(f.routes))
		}
	}
}

// TestRecorder: bytes go through as they are, also after an upgrade and beyond the end of one direction, and what was said is found.
func TestRecorder(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/engine")
	if err != nil {
		t.Fatal(err)
	}
	engine := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/containers/x/attach" {
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			said, _ := io.ReadAll(rw)
			_, _ = c.Write(bytes.ToUpper(said))
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[{"Strange":1}]`)
	})}
	go func() { _ = engine.Serve(l) }()
	defer engine.Close()
	r, err := Record(open(t), dir+"/front", dir+"/engine")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", dir+"/front")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /containers/json HTTP/1.1\r\nHost: e\r\n\r\nPOST /containers/x/attach HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nGET / raw words")
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	c.Close()
	if err != nil || !strings.HasSuffix(string(out), "GET / RAW WORDS") || !strings.Contains(string(out), "Strange") {
		t.Errorf("%q %v", out, err)
	}
	seen, problems, err := r.Close()
	if err != nil || seen["GET /containers/json"] != 1 || seen["POST /containers/{id}/attach"] != 1 || len(seen) != 2 {
		t.Errorf("seen %v, %v", seen, err)
	}
	found := false
	for p := range problems {
		found = found || p.At == "answer 200 [].Strange"
	}
	if !found {
		t.Errorf("problems %v", problems)
	}
	if _, err := net.Dial("unix", dir+"/front"); err == nil {
		t.Error("somebody still listens")
	}
	if _, err := os.Stat(dir + "/front"); err != nil {
		t.Error(err)
	}
}
