package build

import (
	"strings"
	"testing"
)

func TestOwnFrontends(t *testing.T) {
	for source, own := range map[string]bool{
		"docker/dockerfile:1":                                   true,
		"docker/dockerfile:1.7-labs":                            true,
		"docker.io/docker/dockerfile":                           true,
		"docker/dockerfile-upstream:master":                     true,
		"docker/dockerfile@sha256:" + strings.Repeat("a", 64):   true,
		"docker/dockerfile:1@sha256:" + strings.Repeat("0", 64): true,
		"":                                     false,
		"docker/dockerfiles:1":                 false,
		"dockerfile:1":                         false,
		"registry.example/docker/dockerfile:1": false,
		"docker.io.example/docker/dockerfile":  false,
		"docker/dockerfile/more":               false,
		"DOCKER/dockerfile":                    false,
		"-x":                                   false,
	} {
		if got := isOwnFrontend(source); got != own {
			t.Errorf("%q: %v", source, got)
		}
	}
}
