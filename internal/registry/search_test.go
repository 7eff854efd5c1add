package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/ref"
)

// TestSearch: a registry with Docker's old search is asked that, of another one the catalog is looked through, page by page.
func TestSearch(t *testing.T) {
	old := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" || r.URL.Query().Get("q") != "web" || r.URL.Query().Get("n") != "2" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, `{"query":"web","num_results":3,"results":[{"name":"team/web","star_count":7,"is_official":true,"description":"words"},{"name":"b"},{"name":"c"}]}`)
	})
	catalog := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v2/_catalog":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Query().Get("last") == "":
			w.Header().Set("Link", `</v2/_catalog?last=b&n=1000>; rel="next"`)
			fmt.Fprint(w, `{"repositories":["a/web","b"]}`)
		default:
			fmt.Fprint(w, `{"repositories":["c/webs","d/web"]}`)
		}
	})
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{"old": {old, "team/web 7 true words, b 0 false "}, "catalog": {catalog, "a/web 0 false , c/webs 0 false "}} {
		server := httptest.NewServer(row.handler)
		defer server.Close()
		host := strings.TrimPrefix(server.URL, "http://")
		r, err := ref.Parse(host + "/any")
		if err != nil {
			t.Fatal(err)
		}
		found, err := NewPool(Options{HostDirs: []string{t.TempDir()}}).Client(t.Context(), r, nil).Search(t.Context(), "web", 2)
		if err != nil {
			t.Fatal(name, err)
		}
		var got []string
		for _, f := range found {
			got = append(got, fmt.Sprintf("%s %d %v %s", strings.TrimPrefix(f.Name, host+"/"), f.StarCount, f.IsOfficial, f.Description))
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"results":["%s"]}`, strings.Repeat("x", maxFound))
	}))
	defer huge.Close()
	r, err := ref.Parse(strings.TrimPrefix(huge.URL, "http://") + "/any")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewPool(Options{HostDirs: []string{t.TempDir()}}).Client(t.Context(), r, nil).Search(t.Context(), "web", 2); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an answer without end: %v", err)
	}
}
