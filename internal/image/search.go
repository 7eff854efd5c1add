package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Search asks a registry for repositories: that of a term such as registry.example/word, else Docker Hub.
func Search(ctx context.Context, s *Service, term string, limit int, auth *registrytypes.AuthConfig) ([]registrytypes.SearchResult, error) {
	host, word := "docker.io", term
	if first, rest, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		host, word = first, rest
	}
	if word == "" {
		return nil, fmt.Errorf("search for %q: there is no word to look for: %w", term, errdefs.ErrInvalidArgument)
	}
	r, err := ref.Parse(host + "/any")
	if err != nil {
		return nil, fmt.Errorf("search for %q: %w", term, err)
	}
	found, err := s.registries.Client(ctx, r, auth).Search(ctx, word, limit)
	if err != nil {
		return nil, registry.Explain("search for "+word, r.Domain, err)
	}
	return found, nil
}
