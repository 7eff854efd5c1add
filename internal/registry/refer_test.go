package registry

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// answerOf is a registry's answer to GET /v2/a/referrers/…?n=1.
func answerOf(body []byte, link string) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}, "Link": {link}},
		Body: &readCloser{bytes.NewReader(body)}, Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "r.example", Path: "/v2/a/referrers/x", RawQuery: "n=1"}}}
}

type readCloser struct{ *bytes.Reader }

func (r *readCloser) Close() error { return nil }

// TestReferrerPagesStayAtTheRegistry: the next page is of the same list, and entries that are no manifests are left out.
func TestReferrerPagesStayAtTheRegistry(t *testing.T) {
	d := digest.FromString("x").String()
	body := []byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":5,"urls":["https://elsewhere.example"]},
		{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../x","size":5},{"mediaType":"text/plain","digest":"` + d + `","size":5},
		{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":-1},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":99999999999}]}`)
	for link, want := range map[string]string{
		`<?n=2>; rel="next"`: "2", `<https://r.example/v2/a/referrers/x?n=2>; rel="next"`: "2", `</v2/b/referrers/x?n=2>; rel="next"`: "refused", "": "",
		`<https://evil.example/v2/a/referrers/x?n=2>; rel="next"`: "refused", `<?n=1>; rel="next"`: "refused", `<?n=2>; rel="prev"`: "",
	} {
		list, next, err := readReferrers(answerOf(body, link))
		switch {
		case want == "refused":
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s: %v", link, err)
			}
		case err != nil || len(list) != 1 || len(list[0].URLs) != 0 || next.Get("n") != want:
			t.Errorf("%s: %+v %v %v", link, list, next, err)
		}
	}
	if _, _, err := readReferrers(answerOf(bytes.Repeat([]byte(" "), maxReferrersPage+1), "")); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("an endless page: %v", err)
	}
}

// FuzzReferrers: whatever a page holds, what is taken from it is manifests by digest.
func FuzzReferrers(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+digest.FromString("x").String()+`","size":5}]}`), `<?n=2>; rel="next"`)
	f.Add([]byte(`{"manifests":null}`), `<:>; rel="next"`)
	f.Fuzz(func(t *testing.T, body []byte, link string) {
		list, next, err := readReferrers(answerOf(body, link))
		if err != nil && (list != nil || next != nil) {
			t.Error("an error, and something to go on with")
		}
		for _, d := range list {
			if d.Digest.Validate() != nil || d.Size <= 0 || d.Size > maxReferrersPage || d.URLs != nil {
				t.Errorf("%+v", d)
			}
		}
	})
}
