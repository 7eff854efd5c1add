package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/provider/docker"
	"github.com/traefik/traefik/v3/pkg/safe"
)

// run serves what the provider finds, until ctx ends.
func run(ctx context.Context) error {
	var provider docker.Provider
	provider.SetDefaults()
	provider.ExposedByDefault = false
	if err := provider.Init(); err != nil {
		return err
	}
	pool := safe.NewPool(ctx)
	defer pool.Stop()
	configurations := make(chan dynamic.Message)
	if err := provider.Provide(configurations, pool); err != nil {
		return err
	}
	var current atomic.Pointer[http.Handler]
	go func() {
		for m := range configurations {
			handler, err := route(m.Configuration.HTTP)
			if err != nil {
				fmt.Fprintln(os.Stderr, "traefik: a configuration is not used:", err)
				continue
			}
			current.Store(&handler)
		}
	}()
	server := http.Server{Addr: ":8000", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := current.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		http.Error(w, "no configuration yet", http.StatusServiceUnavailable)
	})}
	go func() { <-ctx.Done(); server.Close() }()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
