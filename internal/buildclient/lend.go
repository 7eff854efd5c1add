package buildclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"wherry.dev/wherry/internal/buildopt"
	"wherry.dev/wherry/internal/login"
)

// lend is what the engine may ask this side for besides files: logins, secrets, agents.
func (c *Client) lend(o *buildopt.Options) ([]session.Attachable, error) {
	list := []session.Attachable{&lender{config: c.Login}}
	secrets, err := o.SecretSources()
	if err != nil {
		return nil, err
	}
	if len(secrets) > 0 {
		sources := make([]secretsprovider.Source, len(secrets))
		for i, s := range secrets {
			sources[i] = secretsprovider.Source{ID: s.ID, FilePath: s.File, Env: s.Env}
		}
		store, err := secretsprovider.NewStore(sources)
		if err != nil {
			return nil, fmt.Errorf("--secret: %w", err)
		}
		list = append(list, secretsprovider.NewSecretProvider(store))
	}
	agents, err := o.SSHSources()
	if err != nil {
		return nil, err
	}
	if len(agents) > 0 {
		configs := make([]sshprovider.AgentConfig, len(agents))
		for i, a := range agents {
			configs[i] = sshprovider.AgentConfig{ID: a.ID, Paths: a.Paths, Raw: a.Raw}
		}
		p, err := sshprovider.NewSSHAgentProvider(configs)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// lender hands out logins: for a registry only the one that is kept for it. Tokens are fetched by the engine, which speaks to the registry.
type lender struct {
	auth.UnimplementedAuthServer
	config *login.Config
}

// Register offers it to the engine.
func (l *lender) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

// Credentials answers for the registry at a host; one without a login gets an empty answer.
func (l *lender) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	a, err := l.config.Credentials(login.ServerKey(req.Host))
	switch {
	case err != nil:
		return nil, status.Errorf(codes.FailedPrecondition, "the login for %s: %v", req.Host, err)
	case a == nil:
		return &auth.CredentialsResponse{}, nil
	case a.IdentityToken != "":
		return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
}

// GetTokenAuthority says that this side fetches no tokens.
func (l *lender) GetTokenAuthority(context.Context, *auth.GetTokenAuthorityRequest) (*auth.GetTokenAuthorityResponse, error) {
	return nil, status.Error(codes.Unavailable, "tokens are fetched by the engine")
}

// hostGateway puts the machine's address in the place of the word that stands for it.
func (c *Client) hostGateway(ctx context.Context, attrs map[string]string) error {
	const hosts, label = "add-hosts", "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
	if !strings.Contains(attrs[hosts], "="+buildopt.HostGateway) {
		return nil
	}
	workers, err := c.kit.ListWorkers(ctx)
	if err != nil {
		return plain(err)
	}
	for _, w := range workers {
		if addr := w.Labels[label]; addr != "" {
			attrs[hosts] = strings.ReplaceAll(attrs[hosts], "="+buildopt.HostGateway, "="+addr)
			return nil
		}
	}
	return errors.New("--add-host: this engine says no address for host-gateway; give the address itself")
}
