package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"

	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/middlewares/requestdecorator"
	muxer "github.com/traefik/traefik/v3/pkg/muxer/http"
)

// route makes what the provider has found into a handler: Traefik's own rules lead to a service, whose servers take turns.
func route(found *dynamic.HTTPConfiguration) (http.Handler, error) {
	parser, err := muxer.NewSyntaxParser()
	if err != nil {
		return nil, err
	}
	mux := muxer.NewMuxer(parser, nil)
	for name, r := range found.Routers {
		service := found.Services[r.Service]
		if service == nil || service.LoadBalancer == nil {
			return nil, fmt.Errorf("router %s leads to %q, which is no service", name, r.Service)
		}
		servers, err := balance(service.LoadBalancer.Servers)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", r.Service, err)
		}
		priority := r.Priority
		if priority == 0 {
			priority = muxer.GetRulePriority(r.Rule)
		}
		if err := mux.AddRoute(r.Rule, r.RuleSyntax, priority, "docker", servers); err != nil {
			return nil, err
		}
	}
	names := requestdecorator.New(nil) // the rules about hosts read what it notes
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { names.ServeHTTP(w, r, mux.ServeHTTP) }), nil
}

func balance(servers []dynamic.Server) (http.Handler, error) {
	var proxies []*httputil.ReverseProxy
	for _, s := range servers {
		to, err := url.Parse(s.URL)
		if err != nil {
			return nil, err
		}
		proxies = append(proxies, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }})
	}
	if len(proxies) == 0 {
		return http.NotFoundHandler(), nil
	}
	var turn atomic.Uint64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxies[turn.Add(1)%uint64(len(proxies))].ServeHTTP(w, r)
	}), nil
}
