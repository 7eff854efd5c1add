package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/contexts"
)

// inspectedContext is what `context inspect` prints.
type inspectedContext struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]contextEndpoint
	TLSMaterial map[string][]string
	Storage     contextStorage
}

type contextEndpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

type contextStorage struct{ MetadataPath, TLSPath string }

func inspectContext(app *App, name string) (inspectedContext, error) {
	out := inspectedContext{Name: name, Metadata: map[string]any{}, TLSMaterial: map[string][]string{}, Storage: contextStorage{"<IN MEMORY>", "<IN MEMORY>"}}
	if name == contexts.Default {
		cl, err := client.NewTLS(app.Choice.Host, app.Choice.TLS)
		if err != nil {
			return out, err
		}
		out.Endpoints = map[string]contextEndpoint{"docker": {Host: cl.Host()}}
		return out, nil
	}
	s := contexts.Store{Dir: app.Config}
	c, err := s.Get(name)
	if err != nil {
		return out, err
	}
	if c.Description != "" {
		out.Metadata["Description"] = c.Description
	}
	out.Endpoints = map[string]contextEndpoint{"docker": {Host: c.Host, SkipTLSVerify: c.SkipVerify}}
	if len(c.TLS) > 0 {
		out.TLSMaterial["docker"] = sorted(c.TLS)
	}
	out.Storage = contextStorage{filepath.Clean(s.MetaDir(name)), filepath.Clean(s.TLSDir(name))}
	return out, nil
}

func contextInspectCommand(app *App) *cobra.Command {
	var format string
	c := &cobra.Command{Use: "inspect [OPTIONS] [CONTEXT...]", Args: atLeast(0), RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{client.CurrentContext(app.Choice)}
		}
		found := []inspectedContext{}
		err := each(cmd.Context(), app, args, func(name string) error {
			one, err := inspectContext(app, name)
			if err == nil {
				found = append(found, one)
			}
			return err
		})
		if format != "" {
			for _, one := range found {
				if err := printObject(app.Out, format, one, nil); err != nil {
					return err
				}
			}
			return err
		}
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		e.SetIndent("", "    ")
		if err := e.Encode(found); err != nil {
			return err
		}
		if _, err := fmt.Fprint(app.Out, text.String()); err != nil {
			return err
		}
		return err
	}}
	formatFlag(c, &format, "f")
	return c
}
