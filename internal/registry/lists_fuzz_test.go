package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzTags: whatever a list of tags holds, what is taken from it is short, and goes on in the same list.
func FuzzTags(f *testing.F) {
	f.Add([]byte(`{"name":"a/b","tags":["1","latest"]}`), `</v2/a/b/tags/list?last=latest&n=2>; rel="next"`)
	f.Add([]byte(`{"tags":null}`), `<?last=>; rel=next`)
	f.Add([]byte(`{"tags":[]}`), `</v2/a/b/tags/list?n=1>; rel="next"`)
	f.Add([]byte(`{"tags":["`+strings.Repeat("x", 200)+`"]}`), "")
	f.Add([]byte(`{"tags":[1]}`), `<//evil.example/v2/a/b/tags/list?n=2>; rel="next"`)
	f.Add([]byte(`[]`), `<`)
	f.Fuzz(func(t *testing.T, body []byte, link string) {
		here := &url.URL{Scheme: "https", Host: "r.example", Path: "/v2/a/b/tags/list", RawQuery: "n=1"}
		tags, next, err := readTags(&http.Response{Header: http.Header{"Link": {link}}, Body: io.NopCloser(bytes.NewReader(body)), Request: &http.Request{URL: here}})
		if err != nil && (tags != nil || next != nil) {
			t.Error("an error, and something to go on with")
		}
		if next != nil && next.Encode() == here.RawQuery {
			t.Errorf("%q goes on where it is", link)
		}
		for _, tag := range tags {
			if len(tag) > maxTag {
				t.Errorf("a tag of %d bytes", len(tag))
			}
		}
	})
}

// FuzzExtend: an index of a stranger's that is added to keeps its entries, in their order, and a second time adds nothing.
func FuzzExtend(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"x","manifests":[{"digest":"sha256:00","x":1}],"annotations":{"a":"b"}}`))
	f.Add([]byte(`{"manifests":null,"manifests":[{}],"Manifests":[{"digest":"y"}]}`))
	f.Add([]byte(`{"manifests":[1]}`))
	f.Add([]byte(`{"manifests":{}}`))
	f.Add([]byte(`{"manifests":[{}]} {"manifests":[]}`))
	f.Add([]byte(`[{}]`))
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("new"), Size: 3}
	entries := func(t *testing.T, b []byte) (out []string) {
		if _, err := readIndex(bytes.NewReader(b), func(entry json.RawMessage) error {
			var compact bytes.Buffer
			if err := json.Compact(&compact, entry); err != nil {
				return err
			}
			out = append(out, compact.String())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	f.Fuzz(func(t *testing.T, old []byte) {
		index, changed, err := extend(bytes.NewReader(old), []ocispec.Descriptor{d, d})
		if err != nil || !changed {
			return
		}
		before, after := entries(t, old), entries(t, index)
		if len(after) != len(before)+1 || !strings.Contains(after[len(before)], d.Digest.String()) {
			t.Fatalf("%d entries became %d", len(before), len(after))
		}
		if !json.Valid(index) {
			t.Fatalf("no JSON: %s", index)
		}
		if _, again, err := extend(bytes.NewReader(index), []ocispec.Descriptor{d}); err != nil || again {
			t.Errorf("a second time: %v %v", again, err)
		}
	})
}

// FuzzTokens: whatever a token service answers is a token, or an error.
func FuzzTokens(f *testing.F) {
	for _, s := range []string{`{"token":"t","expires_in":300}`, `{"access_token":"t"}`, `{"token":"","expires_in":-9223372036854775808}`, `{"token":"t","expires_in":9223372036854775807}`, `{}`, `[`, `{"token":"a\r\nX: y"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a := newAuthorizer("registry.example.com", false, nil, answers(body))
		r := tokenRequest{realm: &url.URL{Scheme: "https", Host: "registry.example.com", Path: "/token"}, key: tokenKey{"registry.example.com", "x"}}
		token, err := a.fetch(t.Context(), r)
		if (err == nil) != (token != "") {
			t.Errorf("%q %v", token, err)
		}
		if kept, ok := a.tokens[r.key]; ok != (err == nil) || ok && kept.expires.IsZero() {
			t.Errorf("kept: %v %v", ok, err)
		}
	})
}

// answers is a network where everything is answered alike.
type answers []byte

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a)), Request: r}, nil
}
