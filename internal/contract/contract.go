// Package contract holds requests and answers of the Docker Engine API against the API's own specification, for tests.
//
// The specification is the set of swagger files that comes with the module github.com/moby/moby/api: one for each version since 1.25, so
// each exchange is held against the file of the version that its client asked for. Swagger's schema is open; here it is closed: a field, a
// parameter or a status that the file does not have is a problem, unless it stands among the deviations (deviations.go).
//
// A Specification is safe for many goroutines.
package contract

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

// Specification is the files of all versions; they are read when an exchange first needs them.
type Specification struct {
	dir    string
	newest string // what a path without a version means

	mu    sync.Mutex
	files map[string]*file // by version, "1.44"
}

// file is one version's specification.
type file struct {
	version string
	tree    map[string]any
	routes  []route
}

// Exchange is one request with its answer.
type Exchange struct {
	Method string
	URL    *url.URL // path with its version, and query
	Header http.Header
	Body   []byte // of the request

	Status int
	Answer http.Header
	Said   []byte // the answer's body
	Whole  bool   // Body and Said are complete
}

// Problem is a difference from the specification.
type Problem struct {
	Version   string
	Operation string // "GET /containers/{id}/json"
	At        string // "answer 200 .State.Health", "query all", …
	What      string
}

func (p Problem) String() string {
	return fmt.Sprintf("v%s %s: %s: %s", p.Version, p.Operation, p.At, p.What)
}

// Open finds the specification in the module cache; newest is the version that a path without one means.
func Open(newest string) (*Specification, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("find the module with the specification: %w: %s", err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("find the module with the specification: %w", err)
	}
	return &Specification{dir: filepath.Join(strings.TrimSpace(string(out)), "docs"), newest: newest, files: map[string]*file{}}, nil
}

// load reads a version's file.
func (s *Specification) load(version string) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[version]; f != nil {
		return f, nil
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "v"+version+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the specification of version %s: %w", version, err)
	}
	f := &file{version: version}
	if err := yaml.Unmarshal(b, &f.tree); err != nil {
		return nil, fmt.Errorf("read the specification of version %s: %w", version, err)
	}
	if err := f.index(); err != nil {
		return nil, fmt.Errorf("read the specification of version %s: %w", version, err)
	}
	s.files[version] = f
	return f, nil
}

// Operations are all that the newest version has: "GET /containers/json".
func (s *Specification) Operations() ([]string, error) {
	f, err := s.load(s.newest)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range f.routes {
		for method := range r.methods {
			out = append(out, strings.ToUpper(method)+" "+r.path)
		}
	}
	return out, nil
}

// Check holds an exchange against the specification of its version. The operation is "" for what is not Docker's: Wherry's own routes,
// and versions that have no file.
//
// Fields that a version's file does not have are no problem where the newest has them, or, for clients that do not ask for newer, the last that had
// those which have gone since: an engine may say more than its client asks for, as moby's does, but nothing that Docker's API never had.
func (s *Specification) Check(e Exchange) (operation string, problems []Problem, err error) {
	version, path, others := s.newest, e.URL.Path, []string{lastWithAll}
	if rest, ok := strings.CutPrefix(path, "/v"); ok {
		if v, after, ok := strings.Cut(rest, "/"); ok && strings.HasPrefix(v, "1.") {
			version, path, others = v, "/"+after, []string{s.newest}
			if minor(v) <= 52 { // 1.52 says in part what has gone
				others = append(others, lastWithAll)
			}
		}
	}
	if strings.HasPrefix(path, "/wherry/") || version == "1.24" {
		return "", nil, nil
	}
	operation, problems, err = s.hold(version, path, e)
	for _, other := range others {
		if len(problems) == 0 || err != nil || version == other {
			continue
		}
		var there []Problem
		_, there, err = s.hold(other, path, e)
		problems = slices.DeleteFunc(problems, func(p Problem) bool {
			return p.What == noSuchField && !slices.ContainsFunc(there, func(o Problem) bool { return o.At == p.At && o.What == p.What })
		})
	}
	return operation, problems, err
}

// lastWithAll is the last version that had all the fields which 1.52 and 1.53 took away.
const lastWithAll = "1.51"

// hold is Check with one version's file.
func (s *Specification) hold(version, path string, e Exchange) (operation string, problems []Problem, err error) {
	f, err := s.load(version)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil, nil // a version that nobody has is answered with 400
	}
	if err != nil {
		return "", nil, err
	}
	c := check{file: f, exchange: e}
	c.run(path)
	return c.operation, slices.DeleteFunc(c.problems, deviates), nil
}
