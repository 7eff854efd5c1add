package main

import (
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// inheriting gives hooks that name no environment the caller's, as runc and crun do: programs that are looked for in PATH, a user's folders.
// Those that run inside, from the image's files, have none but their own.
func inheriting(hooks []specs.Hook) []specs.Hook {
	out := slices.Clone(hooks)
	for i := range out {
		if out[i].Env == nil {
			out[i].Env = os.Environ()
		}
	}
	return out
}

// withHooks is a configuration to create from: the stored one keeps what its author wrote.
func withHooks(spec *specs.Spec) *specs.Spec {
	if spec.Hooks == nil {
		return spec
	}
	s, h := *spec, *spec.Hooks
	h.Prestart = inheriting(h.Prestart) //nolint:staticcheck // deprecated, not gone
	h.CreateRuntime, h.CreateContainer = inheriting(h.CreateRuntime), inheriting(h.CreateContainer)
	s.Hooks = &h
	return &s
}
