package login

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestProxies(t *testing.T) {
	dir := t.TempDir()
	text := `{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"lan"},"unix:///own":{"allProxy":"socks5://q:2"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]map[string]string{
		"unix:///other": {"http_proxy": "http://p:1", "HTTP_PROXY": "http://p:1", "no_proxy": "lan", "NO_PROXY": "lan"},
		"unix:///own":   {"all_proxy": "socks5://q:2", "ALL_PROXY": "socks5://q:2"},
	} {
		if got := c.Proxies(host); !maps.Equal(got, want) {
			t.Errorf("of %s: %v, not %v", host, got, want)
		}
	}
}
