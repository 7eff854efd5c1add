package build

import (
	"context"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/session/auth"
	registrytypes "github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"wherry.dev/wherry/internal/api/docker"
)

var errConflict, errInvalid = errdefs.ErrConflict, errdefs.ErrInvalidArgument

// frontendAttrs is a request in the words of BuildKit's Dockerfile frontend.
func (b *Builder) frontendAttrs(ctx context.Context, q docker.BuildRequest) (map[string]string, error) {
	attrs := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	set("filename", q.Dockerfile)
	set("target", q.Target)
	set("platform", q.Platform)
	set("cgroup-parent", q.CgroupParent)
	for k, v := range q.Args {
		if v != nil {
			attrs["build-arg:"+k] = *v
		}
	}
	for k, v := range q.Labels {
		attrs["label:"+k] = v
	}
	if q.NoCache {
		attrs["no-cache"] = ""
	}
	attrs["image-resolve-mode"] = "local"
	if q.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if q.Remote != "" && q.Remote != docker.ClientSession {
		attrs["context"] = q.Remote
	}
	if err := b.network(ctx, q.Network, attrs); err != nil {
		return nil, err
	}
	hosts := make([]string, 0, len(q.ExtraHosts))
	for _, h := range q.ExtraHosts {
		if name, address, ok := strings.Cut(h, ":"); ok && !strings.Contains(name, "=") {
			h = name + "=" + address // as the frontend has it
		}
		hosts = append(hosts, h)
	}
	set("add-hosts", strings.Join(hosts, ","))
	for key, n := range map[string]int64{"shm-size": q.ShmSize, "memory": q.Memory, "memswap": q.MemorySwap, "cpushares": q.CPUShares, "cpuperiod": q.CPUPeriod, "cpuquota": q.CPUQuota} {
		if n != 0 {
			attrs[key] = strconv.FormatInt(n, 10)
		}
	}
	set("cpusetcpus", q.CPUSetCPUs)
	set("cpusetmems", q.CPUSetMems)
	var limits []string
	for _, u := range q.Ulimits {
		limits = append(limits, u.String())
	}
	set("ulimit", strings.Join(limits, ","))
	return attrs, nil
}

// logins answers BuildKit's questions for logins out of what came with a request.
type logins struct {
	auth.UnimplementedAuthServer
	byRegistry map[string]registrytypes.AuthConfig
}

// Register is session.Attachable's.
func (l *logins) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

// Credentials finds a registry's login: each for the registry that it was given for.
func (l *logins) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	names := []string{r.Host, "https://" + r.Host, "http://" + r.Host}
	if r.Host == "registry-1.docker.io" || r.Host == "docker.io" {
		names = []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"}
	}
	for _, name := range names {
		a, ok := l.byRegistry[name]
		switch {
		case !ok:
		case a.IdentityToken != "":
			return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
		default:
			return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
		}
	}
	return &auth.CredentialsResponse{}, nil
}

// FetchToken and what follows are another way to log in, which is not gone.
func (l *logins) FetchToken(context.Context, *auth.FetchTokenRequest) (*auth.FetchTokenResponse, error) {
	return nil, status.Error(codes.Unimplemented, "logins are handed out, not used")
}
