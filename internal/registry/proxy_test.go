package registry

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
)

// tunnel is a proxy for TLS: it joins connections, and sees nothing of what goes through them.
type tunnel struct {
	to   string // whatever is asked for
	says int    // instead, if not 0

	mu    sync.Mutex // guards what follows
	asked []string
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	login := strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host+" "+login+r.Header.Get("Authorization"))
	p.mu.Unlock()
	if p.says != 0 {
		w.WriteHeader(p.says)
		return
	}
	there, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	w.WriteHeader(http.StatusOK)
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(there, buffered)
		there.Close()
	}()
	_, _ = io.Copy(here, there)
	here.Close()
	<-done
}

func (p *tunnel) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.asked
	p.asked = nil
	return list
}

// TestPullThroughAnHTTPSProxy: the proxy of the environment is asked for a tunnel, with its own login, and sees neither requests nor
// registry's login; NO_PROXY leaves it out; one that refuses is named.
func TestPullThroughAnHTTPSProxy(t *testing.T) {
	k := newKeys(t)
	front, host := k.front(t)
	front.Config.Handler = version3(t, k, configuration.Auth{})
	proxy := &tunnel{to: front.Listener.Addr().String()}
	at := served(t, proxy)
	t.Setenv("HTTP_PROXY", "")
	t.Setenv("HTTPS_PROXY", "http://me:proxy-secret@"+at)
	t.Setenv("NO_PROXY", "")
	img := imageOf(sample(3 << 20))
	dirs := []string{k.certs(t, host, true)}
	try := func() error {
		c := quick(Options{HostDirs: dirs}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
		if _, err := img.push(t.Context(), c); err != nil {
			return err
		}
		return img.pull(t.Context(), c)
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	list := proxy.take()
	for _, s := range list {
		if s != "CONNECT "+host+" bWU6cHJveHktc2VjcmV0" {
			t.Errorf("the proxy was asked %q", s)
		}
	}
	if len(list) == 0 {
		t.Error("the proxy was not asked")
	}
	t.Setenv("NO_PROXY", "other.example,0.0.0.0")
	if err := try(); err != nil || len(proxy.take()) != 0 {
		t.Errorf("%v, or the proxy was asked", err)
	}
	t.Setenv("NO_PROXY", "")
	proxy.says = http.StatusProxyAuthRequired
	err := Explain("pull a/b:1", host, try())
	if err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "proxy-secret") {
		t.Errorf("%v", err)
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if err := Explain("pull a/b:1", host, try()); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") {
		t.Errorf("%v", err)
	}
}
