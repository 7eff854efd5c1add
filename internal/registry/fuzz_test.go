package registry

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// FuzzHosts: any hosts.toml is read or refused; what is read names mirrors before the registry.
func FuzzHosts(f *testing.F) {
	for _, seed := range []string{
		"", "server = 'https://a'", "[host.'https://m'.header]\nx = ['y', 'z']", "[host.'m:5000']\nca = '/nowhere'\nskip_verify = true",
		"[host]\n'https://m' = {capabilities = ['pull', 'resolve'], rewrite = {'a' = 'b'}}", "server = 'unix:///x'\n[host.'../..']\noverride_path = true\ndial_timeout = '1h'",
		"[host.'x']\nclient = [['a', 'b'], ['c']]", "host = 3", "[host.'http://[::1']\n", "[[host]]", "[host.'']",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseHosts([]byte(text), dir)
		if err != nil {
			return
		}
		if len(list) == 0 || list[len(list)-1].mirror {
			t.Fatalf("%q: %d hosts, and none is the registry", text, len(list))
		}
		for _, s := range list[:len(list)-1] {
			if !s.mirror || s.host == "" {
				t.Fatalf("%q: a host is no mirror, or has no address", text)
			}
		}
	})
}

// FuzzHeaders: what a registry puts into headers is taken for what it can be, or for nothing.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{
		"bytes 0-9/10", "bytes */10", "bytes 5-1/3", "bytes 0-9223372036854775807/9223372036854775808", "0-99", "bytes=0-99", "-1--1",
		`</v2/a/tags/list?n=1&last=b>; rel="next"`, `<>; rel=next`, `<http://elsewhere/>; rel="next"`, `Bearer realm="https://a/b",service="c",scope="d"`, `Basic realm="\"`, `Bearer realm=,,,`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if from, total, ok := parseContentRange(text); ok && (from < 0 || total < -1 || total >= 0 && from >= total) {
			t.Errorf("%q: from %d of %d", text, from, total)
		}
		if end, ok := parseUploadRange(text); ok && end < 0 {
			t.Errorf("%q: up to %d", text, end)
		}
		if link := nextLink(text); link != "" && !strings.Contains(text, link) {
			t.Errorf("%q: the next page is %q", text, link)
		}
		for _, c := range auth.ParseAuthHeader(map[string][]string{"Www-Authenticate": {text}}) {
			_ = c.Parameters["realm"]
		}
	})
}
