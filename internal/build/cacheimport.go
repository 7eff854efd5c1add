package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache/remotecache"
	cachetypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/session"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/moby/buildkit/util/resolver/limited"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/registry"
)

// What --cache-from names is read in the engine's own process, and whoever has written it may be a stranger. BuildKit makes room for as many bytes as
// a descriptor says, and takes lists for as long as each other that should be: either ends the process. So all that it reads itself is read here before,
// held against bounds and digests, and given to it from memory.

const (
	maxCachePart  = 8 << 20   // of a manifest or configuration
	maxCacheParts = 1000      // that are read of one cache
	maxCacheSteps = 500 << 10 // layers of all results together, each with those below it
)

// cacheImporter reads a cache of results.
type cacheImporter struct{ content.Provider }

// Resolve is remotecache.Importer's.
func (i cacheImporter) Resolve(ctx context.Context, top ocispec.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	s := &cacheSource{Provider: i.Provider, parts: map[digest.Digest][]byte{}}
	if err := s.look(ctx, top); err != nil {
		return nil, fmt.Errorf("this cache is not used: %w", err)
	}
	m, err := remotecache.NewImporter(s.forImport()).Resolve(ctx, top, id, w)
	s.parts = nil
	return m, err
}

// cacheSource is where a cache is read. Its layers are read later, when a result is used, and go to the store, which checks them.
type cacheSource struct {
	content.Provider
	parts map[digest.Digest][]byte // what has been looked at; nil: the import is over
	reads int
}

// labelled is a cacheSource that says where its blobs come from.
type labelled struct {
	*cacheSource
	remotecache.DistributionSourceLabelSetter
}

func (s *cacheSource) forImport() content.Provider {
	if l, ok := s.Provider.(remotecache.DistributionSourceLabelSetter); ok {
		return labelled{s, l}
	}
	return s
}

// ReaderAt gives what has been looked at from memory, and nothing else while the import goes on.
func (s *cacheSource) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if s.parts == nil {
		return s.Provider.ReaderAt(ctx, d)
	}
	b, ok := s.parts[d.Digest]
	if !ok {
		return nil, fmt.Errorf("part %s of the cache: %w", d.Digest, errdefs.ErrNotFound)
	}
	return heldPart{bytes.NewReader(b)}, nil
}

// ProviderForSession reads layers with the logins of the build that uses them.
func (s *cacheSource) ProviderForSession(g session.Group) content.Provider {
	return contentutil.ProviderForSession(s.Provider, g)
}

// UnlazySession is whose client has the layers of a local cache; nil: none has to.
func (s *cacheSource) UnlazySession(d ocispec.Descriptor) session.Group {
	if p, ok := s.Provider.(interface {
		UnlazySession(d ocispec.Descriptor) session.Group
	}); ok {
		return p.UnlazySession(d)
	}
	return nil
}

type heldPart struct{ *bytes.Reader }

func (heldPart) Close() error { return nil }

// cacheDocument is a manifest or an index of a cache.
type cacheDocument struct {
	Config    ocispec.Descriptor   `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// look reads all that BuildKit will read of a cache.
func (s *cacheSource) look(ctx context.Context, top ocispec.Descriptor) error {
	var doc cacheDocument
	if err := s.read(ctx, top, &doc); err != nil {
		return err
	}
	config := ocispec.Descriptor{}
	for _, d := range append([]ocispec.Descriptor{doc.Config}, doc.Manifests...) {
		if d.MediaType == cachetypes.CacheConfigMediaTypeV0 {
			config = d
		}
	}
	if config.Digest == "" {
		return s.images(ctx, doc)
	}
	var results cachetypes.CacheConfig
	if err := s.read(ctx, config, &results); err != nil {
		return err
	}
	return boundedResults(results)
}

// images looks at the caches that lie in configurations of images.
func (s *cacheSource) images(ctx context.Context, doc cacheDocument) error {
	for _, d := range doc.Manifests {
		var below cacheDocument
		if err := s.read(ctx, d, &below); err != nil {
			return err
		}
		if err := s.images(ctx, below); err != nil {
			return err
		}
	}
	if doc.Config.Digest == "" || len(doc.Layers) == 0 {
		return nil
	}
	var config struct {
		History []struct {
			EmptyLayer bool `json:"empty_layer"`
		} `json:"history"`
		Cache []byte `json:"moby.buildkit.cache.v0"`
	}
	if err := s.read(ctx, doc.Config, &config); err != nil || config.Cache == nil {
		return err
	}
	told := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			told++
		}
	}
	if told < len(doc.Layers) {
		return fmt.Errorf("image configuration %s: its history has %d layers, its manifest %d: %w", doc.Config.Digest, told, len(doc.Layers), errdefs.ErrInvalidArgument)
	}
	results := cachetypes.CacheConfig{}
	if err := decodeBounded(config.Cache, &results.Records); err != nil {
		return fmt.Errorf("image configuration %s: its cache: %w", doc.Config.Digest, err)
	}
	for i, l := range doc.Layers {
		results.Layers = append(results.Layers, cachetypes.CacheLayer{Blob: l.Digest, ParentIndex: i - 1})
	}
	return boundedResults(results)
}

// read reads a part and keeps it.
func (s *cacheSource) read(ctx context.Context, d ocispec.Descriptor, into any) error {
	s.reads++
	switch err := d.Digest.Validate(); {
	case err != nil:
		return fmt.Errorf("part %.100q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	case d.Size < 0 || d.Size > maxCachePart:
		return fmt.Errorf("part %s has %d bytes, %d MiB are the most: %w", d.Digest, d.Size, maxCachePart>>20, errdefs.ErrInvalidArgument)
	case s.reads > maxCacheParts:
		return fmt.Errorf("it has more than %d manifests and configurations: %w", maxCacheParts, errdefs.ErrInvalidArgument)
	}
	b, ok := s.parts[d.Digest]
	if !ok {
		var err error
		if b, err = content.ReadBlob(ctx, s.Provider, d); err != nil {
			return fmt.Errorf("read part %s: %w", d.Digest, err)
		}
		if d.Digest.Algorithm().FromBytes(b) != d.Digest {
			return fmt.Errorf("part %s has other content: %w", d.Digest, errdefs.ErrDataLoss)
		}
		s.parts[d.Digest] = b
	}
	if err := decodeBounded(b, into); err != nil {
		return fmt.Errorf("part %s: %w", d.Digest, err)
	}
	return nil
}

func decodeBounded(b []byte, into any) error {
	if err := registry.Bounded(b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// boundedResults counts what BuildKit makes of a cache: for each result a chain of all layers below it.
func boundedResults(c cachetypes.CacheConfig) error {
	depth := make([]int, len(c.Layers)) // 0: not known
	var below func(i int) int
	below = func(i int) int {
		if i < 0 || i >= len(depth) {
			return 0
		}
		if depth[i] == 0 {
			depth[i] = len(depth) + 1 // of one that goes round: BuildKit refuses it
			depth[i] = below(c.Layers[i].ParentIndex) + 1
		}
		return depth[i]
	}
	steps := 0
	for _, r := range c.Records {
		for _, one := range r.Results {
			steps += below(one.LayerIndex)
		}
		for _, one := range r.ChainedResults {
			steps += len(one.LayerIndexes)
		}
		if steps > maxCacheSteps {
			return fmt.Errorf("its results have more than %d layers together: %w", maxCacheSteps, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// registryCache is a cache at a registry.
type registryCache struct {
	remote    *resolver.Resolver
	ref, xref string
	content   content.Manager
}

// importFromRegistry is --cache-from type=registry.
func importFromRegistry(sm *session.Manager, store content.Store, hosts docker.RegistryHosts) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispec.Descriptor, error) {
		named, err := reference.ParseNormalizedNamed(attrs["ref"])
		if err != nil {
			return nil, ocispec.Descriptor{}, fmt.Errorf("--cache-from type=registry,ref=%s: %w", attrs["ref"], err)
		}
		named = reference.TagNameOnly(named)
		scope, hosts := resolver.ScopeType{}, hosts
		if text, ok := attrs["registry.insecure"]; ok {
			if scope.Insecure, err = strconv.ParseBool(text); err != nil {
				return nil, ocispec.Descriptor{}, fmt.Errorf("--cache-from type=registry,registry.insecure=%s: %w", text, err)
			}
		}
		if yes := true; scope.Insecure {
			hosts = resolver.NewRegistryConfig(map[string]resolverconfig.RegistryConfig{reference.Domain(named): {Insecure: &yes, PlainHTTP: &yes}})
		}
		p := &registryCache{ref: named.String(), content: store, remote: resolver.DefaultPool.GetResolver(hosts, named.String(), scope, sm, g)}
		var top ocispec.Descriptor
		if p.xref, top, err = p.remote.Resolve(ctx, p.ref); err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		return cacheImporter{p}, top, nil
	}
}

// ReaderAt reads from the registry.
func (p *registryCache) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	fetcher, err := p.remote.Fetcher(ctx, p.xref)
	if err != nil {
		return nil, err
	}
	return contentutil.FromFetcher(limited.Default.WrapFetcher(fetcher, p.ref)).ReaderAt(ctx, d)
}

// ProviderForSession reads with the logins of another build.
func (p *registryCache) ProviderForSession(g session.Group) content.Provider {
	other := *p
	other.remote = p.remote.WithSession(g)
	return &other
}

// SetDistributionSourceLabel notes of a blob that is here where it can be had from.
func (p *registryCache) SetDistributionSourceLabel(ctx context.Context, d digest.Digest) error {
	set, err := docker.AppendDistributionSourceLabel(p.content, p.ref)
	if err == nil {
		_, err = set(ctx, ocispec.Descriptor{Digest: d})
	}
	return err
}

// SetDistributionSourceAnnotation says so of one that is not.
func (p *registryCache) SetDistributionSourceAnnotation(d ocispec.Descriptor) ocispec.Descriptor {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations["containerd.io/distribution.source.ref"] = p.ref
	return d
}

// localCache is a cache in a directory of the client's.
type localCache struct {
	content.Store
	g session.Group
}

// UnlazySession is the client's that has it.
func (p *localCache) UnlazySession(ocispec.Descriptor) session.Group { return p.g }

// importFromClient is --cache-from type=local.
func importFromClient(sm *session.Manager) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispec.Descriptor, error) {
		if attrs["digest"] == "" || attrs["src"] == "" {
			return nil, ocispec.Descriptor{}, errors.New("--cache-from type=local needs src=DIRECTORY, and a digest that the client finds there")
		}
		id := g.SessionIterator().NextSession()
		if id == "" {
			return nil, ocispec.Descriptor{}, errors.New("--cache-from type=local needs the client's session")
		}
		limited, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("the client's session has not come"))
		defer cancel()
		client, err := sm.Get(limited, id, false)
		if err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		p := &localCache{sessioncontent.NewCallerStore(client, "local:"+attrs["src"]), g}
		at, err := p.Info(ctx, digest.Digest(attrs["digest"]))
		if err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		return cacheImporter{p}, ocispec.Descriptor{Digest: at.Digest, Size: at.Size}, nil
	}
}
