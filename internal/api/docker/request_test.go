package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	containers "wherry.dev/wherry/internal/container"
)

func TestStatusOf(t *testing.T) {
	rows := map[int][]error{
		304: {errdefs.ErrNotModified},
		400: {errdefs.ErrInvalidArgument, errdefs.ErrOutOfRange},
		401: {errdefs.ErrUnauthenticated},
		403: {errdefs.ErrPermissionDenied},
		404: {errdefs.ErrNotFound},
		409: {errdefs.ErrConflict, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrAborted},
		413: {&http.MaxBytesError{Limit: 1}},
		500: {errdefs.ErrInternal, errdefs.ErrUnknown, errors.New("plain")},
		501: {errdefs.ErrNotImplemented},
		503: {errdefs.ErrUnavailable},
	}
	for want, list := range rows {
		for _, err := range list {
			for _, e := range []error{err, fmt.Errorf("read x: %w", err)} {
				if got := statusOf(e); got != want {
					t.Errorf("%v: status %d, want %d", e, got, want)
				}
			}
		}
	}
	if got := classed(errdefs.ErrNotFound, "No such image: %s", "x").Error(); got != "No such image: x" {
		t.Errorf("the class shows in the text: %q", got)
	}
}

func TestWriteErrorOnce(t *testing.T) {
	rec := httptest.NewRecorder()
	w := &response{ResponseWriter: rec}
	writeError(w, invalid("first"))
	writeError(w, classed(errdefs.ErrNotFound, "second"))
	var body struct{ Message string }
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || rec.Code != 400 || body.Message != "first" {
		t.Errorf("code %d, body %s, %v", rec.Code, rec.Body, err)
	}
	rec = httptest.NewRecorder()
	writeError(&response{ResponseWriter: rec}, classed(errdefs.ErrNotModified, "runs already"))
	if rec.Code != 304 || rec.Body.Len() != 0 {
		t.Errorf("not modified: code %d, body %q", rec.Code, rec.Body)
	}
	rec = httptest.NewRecorder()
	writeError(&response{ResponseWriter: rec}, fmt.Errorf("x: %w", context.Canceled))
	if rec.Code != clientGone || !strings.Contains(rec.Body.String(), "x: context canceled") {
		t.Errorf("an answer to a client that may have closed only its side: %d %q", rec.Code, rec.Body)
	}
}

func TestMessageHidesTheClass(t *testing.T) {
	for want, err := range map[string]error{
		"No such image: x":                fmt.Errorf("No such image: x: %w", errdefs.ErrNotFound),
		"read x: not found":               errors.New("read x: not found"),
		"a: b":                            fmt.Errorf("a: %w", fmt.Errorf("b: %w", errdefs.ErrConflict)),
		"not found":                       errdefs.ErrNotFound,
		"not found: really gone":          fmt.Errorf("%w: really gone", errdefs.ErrNotFound),
		"user ?]0;evil?[2J?\n\tas it was": errors.New("user \x1b]0;evil\a[2J\u009b\n\tas it was"),
	} {
		if got := message(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestShortageIsTold: which file was the one that could not be opened any more is chance.
func TestShortageIsTold(t *testing.T) {
	for want, err := range map[string]error{
		"remove container x: open a: too many open files: the engine has no file descriptor left: raise":  fmt.Errorf("remove container x: %w", &os.PathError{Op: "open", Path: "a", Err: syscall.EMFILE}),
		"exec: clone the child: too many open files: the engine has no file descriptor left: raise":       errors.New("exec: clone the child: too many open files"),
		"start: too many open files: " + containers.MoreFiles:                                             errors.New("start: too many open files: " + containers.MoreFiles),
		"open a: too many open files in system: this machine has no file descriptor left (fs.file-max): ": &os.PathError{Op: "open", Path: "a", Err: syscall.ENFILE},
	} {
		if got := message(err); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCutVersion(t *testing.T) {
	rows := []struct {
		path, rest string
		version    string // "" : error
	}{
		{"/_ping", "/_ping", "1.56"},
		{"/v1.24/_ping", "/_ping", "1.24"},
		{"/v1.56/containers/json", "/containers/json", "1.56"},
		{"/version", "/version", "1.56"},
		{"/volumes/v1", "/volumes/v1", "1.56"},
		{"/v1.22/_ping", "/_ping", "1.24"},
		{"/v1.21/_ping", "", ""},
		{"/v1.57/_ping", "", ""},
		{"/v99999999999999999999.1/_ping", "", ""},
		{"/v1/_ping", "", ""},
		{"/v1.-5/_ping", "", ""},
		{"/v1.40", "/", "1.40"},
		{"/", "/", "1.56"},
		{"", "", "1.56"},
	}
	for _, row := range rows {
		rest, v, err := cutVersion(row.path)
		if row.version == "" {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: error %v", row.path, err)
			}
			continue
		}
		if err != nil || rest != row.rest || v.String() != row.version {
			t.Errorf("%s: %q %s %v, want %q %s", row.path, rest, v, err, row.rest, row.version)
		}
	}
}

func post(contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func TestDecodeBody(t *testing.T) {
	rows := []struct {
		contentType, body string
		status            int // 0: fine
	}{
		{"application/json", `{"A":1}`, 0},
		{"application/json; charset=utf-8", `{"A":1,"Unknown":[{}]} `, 0},
		{"application/json", `{"A":1} {"A":2}`, 400},
		{"application/json", `{"A":1}x`, 400},
		{"application/json", `{"A":`, 400},
		{"application/json", `{"A":"text"}`, 400},
		{"application/json", ``, 400},
		{"text/plain", `{"A":1}`, 400},
		{"", `{"A":1}`, 400},
		{"application/json", `{"B":"` + strings.Repeat("x", maxBody) + `"}`, 413},
	}
	for _, row := range rows {
		var v struct{ A int }
		err := decodeBody(httptest.NewRecorder(), post(row.contentType, row.body), &v)
		switch {
		case row.status == 0 && (err != nil || v.A != 1):
			t.Errorf("%s %.40q: %v, A=%d", row.contentType, row.body, err, v.A)
		case row.status != 0 && (err == nil || statusOf(err) != row.status):
			t.Errorf("%s %.40q: error %v, want status %d", row.contentType, row.body, err, row.status)
		}
	}
}

func TestQuery(t *testing.T) {
	v, _ := url.ParseQuery("a=1&b=true&c=0&d=false&e=&f=no&g=none&h=yes&n=12&bad=x1&t=1700000000.5&u=2024-01-02T03:04:05Z&w=1700000000.1234567890")
	q := query{v}
	for name, want := range map[string]bool{"a": true, "b": true, "c": false, "d": false, "e": false, "f": false, "g": false, "h": true, "missing": false} {
		if q.yes(name) != want {
			t.Errorf("%s=%s is %v", name, q.Get(name), !want)
		}
	}
	if !q.yesUnless("missing") || q.yesUnless("c") || !q.yesUnless("a") {
		t.Error("yesUnless")
	}
	if n, err := q.number("n", 0); n != 12 || err != nil {
		t.Errorf("number: %d %v", n, err)
	}
	if n, err := q.number("missing", 7); n != 7 || err != nil {
		t.Errorf("missing number: %d %v", n, err)
	}
	if _, err := q.number("bad", 0); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad number: %v", err)
	}
	if at, err := q.moment("t"); err != nil || !at.Equal(time.Unix(1700000000, 5e8)) {
		t.Errorf("moment: %v %v", at, err)
	}
	if at, err := q.moment("u"); err != nil || at.Unix() != 1704164645 {
		t.Errorf("moment: %v %v", at, err)
	}
	for _, name := range []string{"bad", "w"} {
		if _, err := q.moment(name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("moment of %s: %v", q.Get(name), err)
		}
	}
}

func TestFilters(t *testing.T) {
	want := map[string]map[string]bool{"label": {"a=b": true, "c": true}}
	for _, s := range []string{`{"label":["a=b","c"]}`, `{"label":{"a=b":true,"c":true,"d":false}}`} {
		if got, err := parseFilters(s); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	if got, err := parseFilters(""); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no filters: %v %v", got, err)
	}
	for _, s := range []string{`{`, `[]`, `{"label":"a"}`, `{"label":{"a":"b"}}`, `{"label":[1]}`, `1`} {
		if got, err := parseFilters(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
}

func TestPlatform(t *testing.T) {
	for s, want := range map[string]string{
		"linux/amd64": "linux/amd64/", "linux/arm64/v8": "linux/arm64/", "linux/arm/v7": "linux/arm/v7",
		`{"os":"linux","architecture":"arm64","variant":"v8"}`: "linux/arm64/", `{"os":"linux","architecture":"amd64"}`: "linux/amd64/",
	} {
		p, err := parsePlatform(s)
		if err != nil || strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "v8") != want {
			t.Errorf("%s: %+v %v", s, p, err)
		}
	}
	if p, err := parsePlatform(""); p != nil || err != nil {
		t.Errorf("no platform: %v %v", p, err)
	}
	for _, s := range []string{"linux/a/b/c/d", "{", `{"os":"linux"}`, "Lin ux/amd64", `{"os":1}`} {
		if p, err := parsePlatform(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v %v", s, p, err)
		}
	}
}

func TestRegistryAuth(t *testing.T) {
	for _, anything := range []string{"{}", "x", "bm90IEpTT04", "%%%", ""} { // what scripts send because something had to be sent
		if got, err := registryAuth(&http.Request{Header: http.Header{"X-Registry-Auth": {anything}}}); err != nil || got != nil {
			t.Errorf("%q: %v %v", anything, got, err)
		}
	}
	plain := `{"username":"u","password":"p/+=","serveraddress":"r:5000"}`
	want := registry.AuthConfig{Username: "u", Password: "p/+=", ServerAddress: "r:5000"}
	joined := base64.StdEncoding.EncodeToString([]byte("u:p/+="))
	for _, header := range []string{
		base64.URLEncoding.EncodeToString([]byte(plain)),
		base64.RawURLEncoding.EncodeToString([]byte(plain)),
		base64.StdEncoding.EncodeToString([]byte(plain)),
		base64.URLEncoding.EncodeToString([]byte(`{"auth":"` + joined + `","serveraddress":"r:5000"}`)),
	} {
		if got, err := parseAuth(header); err != nil || got == nil || *got != want {
			t.Errorf("%s: %+v %v", header, got, err)
		}
	}
	for _, header := range []string{"", base64.URLEncoding.EncodeToString([]byte("{}")), base64.URLEncoding.EncodeToString([]byte("null")),
		base64.URLEncoding.EncodeToString([]byte(`{"serveraddress":"r"}`))} {
		if got, err := parseAuth(header); err != nil || got != nil {
			t.Errorf("%q is anonymous: %+v %v", header, got, err)
		}
	}
	for _, header := range []string{"!!", base64.URLEncoding.EncodeToString([]byte("{")), base64.URLEncoding.EncodeToString([]byte(`{"auth":"%%"}`)),
		base64.URLEncoding.EncodeToString([]byte(`{"auth":"` + base64.StdEncoding.EncodeToString([]byte("nocolon")) + `"}`))} {
		if _, err := parseAuth(header); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", header, err)
		}
	}
	many, err := parseAuths(base64.URLEncoding.EncodeToString([]byte(`{"r:5000":` + plain + `}`)))
	if err != nil || many["r:5000"] != want {
		t.Errorf("many: %+v %v", many, err)
	}
}

func TestReferences(t *testing.T) {
	for _, row := range []struct{ name, tag, want string }{
		{"busybox", "1", "busybox:1"}, {"busybox", "", "busybox"}, {"r:5000/a/b", "x", "r:5000/a/b:x"},
		{"busybox", "sha256:abc", "busybox@sha256:abc"}, {"r:5000/a:x", "x", "r:5000/a:x"}, {"r:5000/a:x", "y", "r:5000/a:y"},
		{"a@sha256:abc", "sha256:def", "a@sha256:def"},
	} {
		if got := joinReference(row.name, row.tag); got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
	for ref, want := range map[string]bool{"busybox": false, "r:5000/busybox": false, "r:5000/busybox:1": true, "a@sha256:1": true} {
		if named(ref) != want {
			t.Errorf("named(%s) = %v", ref, !want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"": true, "web": true, "a1": true, "Web_1.x-y": true, "a": false, "-web": false, ".web": false, "we b": false, "we/b": false,
		"wéb": false, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false, "../x": false, "web\n": false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestLongErrorsAreClipped: names of images and containers are in errors, and may have any length. Beginning and end say what is wrong.
func TestLongErrorsAreClipped(t *testing.T) {
	got := message(fmt.Errorf("find user %sé: no such user: %w", strings.Repeat("é", 1<<20), errdefs.ErrNotFound))
	if len(got) > longestMessage+10 || !strings.HasPrefix(got, "find user é") || !strings.HasSuffix(got, "é: no such user") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, %.30q … %q", len(got), got, got[max(0, len(got)-30):])
	}
}
