package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
)

// The tests' network leads nowhere, and RUN steps that call apt need Debian. So apt gets there as the machine's own does: the outer process
// is an HTTP proxy for the hosts that this machine's apt fetches from, at a socket that the inner one listens for on its network.

const aptProxyAddress = "192.0.2.2:3142" // the uplink's

func aptSocket() string { return "/var/tmp/" + run() + ".apt" }

// serveApt serves the proxy until it is closed.
func serveApt() (io.Closer, error) {
	hosts, err := aptHosts()
	if err != nil {
		return nil, err
	}
	upstream := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if b, err := exec.Command("apt-config", "shell", "p", "Acquire::http::Proxy").Output(); err == nil && len(b) > 0 {
		through, err := url.Parse(strings.Trim(strings.TrimPrefix(strings.TrimSpace(string(b)), "p="), "'"))
		if err != nil {
			return nil, fmt.Errorf("apt's proxy: %w", err)
		}
		upstream.Proxy = http.ProxyURL(through)
	}
	proxy := &httputil.ReverseProxy{Transport: upstream, Rewrite: func(r *httputil.ProxyRequest) {}}
	listener, err := net.Listen("unix", aptSocket())
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !hosts[r.URL.Hostname()]:
			http.Error(w, "apt fetches nothing from there", http.StatusForbidden)
		case r.Method == http.MethodConnect:
			tunnel(w, r.URL.Host)
		default:
			proxy.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// aptHosts are those that the machine's sources name.
func aptHosts() (map[string]bool, error) {
	b, err := exec.Command("apt-get", "indextargets", "--format", "$(SITE)").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	hosts := map[string]bool{}
	for _, site := range strings.Fields(string(b)) {
		u, err := url.Parse(site)
		if err != nil {
			return nil, err
		}
		hosts[u.Hostname()] = true
	}
	return hosts, nil
}

// tunnel is for sources by https.
func tunnel(w http.ResponseWriter, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	join(from, to)
}

// listenForApt brings what comes to aptProxyAddress to the outer process's socket.
func listenForApt() (io.Closer, error) {
	listener, err := net.Listen("tcp", aptProxyAddress)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				to, err := net.Dial("unix", aptSocket())
				if err != nil {
					return
				}
				defer to.Close()
				join(from, to)
			}()
		}
	}()
	return listener, nil
}

// join copies both ways until one side ends.
func join(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}

// aptArguments are what a build needs whose steps call apt: the machine's sources and its way to them.
func aptArguments() []string {
	return []string{"--build-context", "apt=/etc/apt", "--build-arg", "http_proxy=http://" + aptProxyAddress, "--build-arg", "https_proxy=http://" + aptProxyAddress}
}
