package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/containerd/platforms"
)

// maxBody bounds JSON bodies; a create request with thousands of variables stays far below it.
const maxBody = 8 << 20

// decodeBody reads one JSON document. Unknown fields are tolerated as in Docker's engine (newer clients send them), anything after the
// document is not. An empty body is an error unless optional.
func decodeBody(w http.ResponseWriter, r *http.Request, into any) error {
	if err := checkJSON(r); err != nil {
		return err
	}
	empty, err := readJSON(w, r, into)
	if err == nil && empty {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return err
}

// decodeOptional is decodeBody for bodies that may be missing.
func decodeOptional(w http.ResponseWriter, r *http.Request, into any) error {
	if r.ContentLength == 0 {
		return nil
	}
	_, err := readJSON(w, r, into)
	return err
}

func checkJSON(r *http.Request) error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && r.ContentLength == 0 {
		return nil
	}
	if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// readJSON reads no more than maxBody, and for no longer than the server has patience: a client that sends a byte now and then holds
// nothing for long.
func readJSON(w http.ResponseWriter, r *http.Request, into any) (empty bool, err error) {
	if rw, ok := w.(*response); ok && rw.patience > 0 {
		c := http.NewResponseController(rw.ResponseWriter)
		_ = c.SetReadDeadline(time.Now().Add(rw.patience))
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	}
	return decodeJSON(http.MaxBytesReader(w, r.Body, maxBody), into)
}

// badValue says of an error of the decoder what is wrong; an address that is none is a person's mistake, not one of JSON.
func badValue(text string) string {
	for call, what := range map[string]string{"ParseAddr(": "invalid IP address ", "netip.ParsePrefix(": "invalid subnet "} {
		if rest, ok := strings.CutPrefix(text, call); ok {
			return what + strings.Replace(rest, "):", ":", 1)
		}
	}
	return "invalid JSON: " + text
}

func decodeJSON(body io.Reader, into any) (empty bool, err error) {
	d := json.NewDecoder(body)
	if err := d.Decode(into); err != nil {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, invalid("the body of the request has not come whole in all the time that it had")
		case errors.Is(err, io.EOF):
			return true, nil
		case errors.As(err, &tooLarge):
			return false, err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return false, invalid("invalid JSON: the document ends early")
		}
		return false, invalid("%s", badValue(err.Error()))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return false, invalid("unexpected content after JSON")
	}
	return false, nil
}

// query is a request's parameters, read as Docker's engine reads them.
type query struct{ url.Values }

func queryOf(r *http.Request) query { return query{r.URL.Query()} }

func (q query) yes(name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// yesUnless is yes with true where the parameter is missing.
func (q query) yesUnless(name string) bool { return !q.Has(name) || q.yes(name) }

func (q query) number(name string, missing int) (int, error) {
	s := q.Get(name)
	if s == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, invalid("query parameter %s=%q is not a number", name, s)
	}
	return n, nil
}

// moment reads seconds since 1970 with an optional fraction, or RFC 3339; zero where missing.
func (q query) moment(name string) (time.Time, error) {
	s := q.Get(name)
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || len(frac) > 9 {
		return time.Time{}, invalid("query parameter %s=%q is no time: give seconds since 1970", name, s)
	}
	nanos, err := strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if err != nil {
		return time.Time{}, invalid("query parameter %s=%q is no time: give seconds since 1970", name, s)
	}
	return time.Unix(n, int64(nanos)), nil
}

// filters reads both forms: {"label":["a"]} and the older {"label":{"a":true}}.
func (q query) filters() (map[string]map[string]bool, error) { return parseFilters(q.Get("filters")) }

func parseFilters(s string) (map[string]map[string]bool, error) {
	out := map[string]map[string]bool{}
	if s == "" {
		return out, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(s), &lists); err == nil {
		for name, values := range lists {
			set := make(map[string]bool, len(values))
			for _, v := range values {
				set[v] = true
			}
			out[name] = set
		}
		return out, nil
	}
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		return nil, invalid("invalid filter: %v", err)
	}
	for name, set := range out {
		for v, on := range set {
			if !on {
				delete(set, v)
			}
		}
		if set == nil {
			out[name] = map[string]bool{}
		}
	}
	return out, nil
}

// platform reads "linux/arm64/v8" (create, pull) or {"os":"linux",…} (inspect, save, …); nil where missing.
func (q query) platform() (*ocispec.Platform, error) {
	return parsePlatform(q.Get("platform"))
}

func (q query) platforms() ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range append(q.Values["platform"], q.Values["platforms"]...) {
		p, err := parsePlatform(s)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	if strings.HasPrefix(s, "{") {
		var p ocispec.Platform
		d := json.NewDecoder(bytes.NewReader([]byte(s)))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return nil, invalid("platform %s: %v", s, err)
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, invalid("platform %s: os and architecture are needed", s)
		}
		p = platforms.Normalize(p)
		return &p, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, invalid("platform %q: write it as linux/amd64 or linux/arm/v7: %v", s, err)
	}
	return &p, nil
}
