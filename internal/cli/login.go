package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/login"
)

// loginFlags of `login`.
type loginFlags struct {
	user, password string
	fromInput      bool
}

func loginCommand(app *App) *cobra.Command {
	var f loginFlags
	c := &cobra.Command{Use: "login [OPTIONS] [SERVER]", Args: between(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		key := login.HubAddress
		if len(args) == 1 {
			key = login.ServerKey(args[0])
		}
		if key == "" {
			return fmt.Errorf("log in at %q: that names no server", args[0])
		}
		return logIn(cmd.Context(), app, key, f)
	}}
	c.Flags().StringVarP(&f.user, "username", "u", "", "Name of the user")
	c.Flags().StringVarP(&f.password, "password", "p", "", "Password or token (others see it in the list of processes: better --password-stdin)")
	c.Flags().BoolVar(&f.fromInput, "password-stdin", false, "Read the password or token from the input")
	return c
}

func logIn(ctx context.Context, app *App, key string, f loginFlags) error {
	c, err := login.Read(app.Config)
	if err != nil {
		return err
	}
	cl, err := app.Client()
	if err != nil {
		return err
	}
	if f == (loginFlags{}) {
		if a, err := c.Credentials(key); err == nil && a != nil && (a.Password != "" || a.IdentityToken != "") {
			fmt.Fprintf(app.Out, "Trying the login that is there already (%s)...\n", cmp.Or(a.Username, "a token"))
			err := tryLogin(ctx, app, cl, c, *a)
			if err == nil || client.Status(err) == 0 {
				return err
			}
			fmt.Fprintf(app.Err, "It is not accepted any more: %v\n", err)
			f.user = a.Username
		}
	}
	a := registry.AuthConfig{ServerAddress: key}
	if a.Username, a.Password, err = f.credentials(app, key); err != nil {
		return err
	}
	return tryLogin(ctx, app, cl, c, a)
}

// credentials come from flags, the input or the person at the terminal.
func (f loginFlags) credentials(app *App, key string) (user, password string, err error) {
	user, password = f.user, f.password
	if password != "" && !f.fromInput {
		fmt.Fprintln(app.Err, "warning: other users of this machine see what --password is given, and shells remember it: --password-stdin reads it from the input")
	}
	switch {
	case f.fromInput && password != "":
		return "", "", errors.New("--password and --password-stdin exclude each other")
	case f.fromInput && user == "":
		return "", "", errors.New("--password-stdin wants --username too")
	case f.fromInput:
		data, err := io.ReadAll(io.LimitReader(app.In, 1<<20))
		if err != nil {
			return "", "", fmt.Errorf("read the password from the input: %w", err)
		}
		password = strings.TrimRight(string(data), "\r\n")
		if password == "" {
			return "", "", errors.New("the input holds no password")
		}
	}
	if _, ok := terminal(app.In); !ok && (user == "" || password == "") {
		return "", "", fmt.Errorf("log in at %s: give --username NAME and --password-stdin (the input is no terminal to ask at)", login.HostOf(key))
	}
	if user == "" {
		if user, err = ask(app, "Username: "); err != nil {
			return "", "", err
		}
		if user = strings.TrimSpace(user); user == "" {
			return "", "", errors.New("a user name is needed")
		}
	}
	if password == "" {
		if password, err = askSecret(app, "Password: "); err != nil {
			return "", "", err
		}
		if password == "" {
			return "", "", errors.New("a password is needed")
		}
	}
	return user, password, nil
}

// tryLogin has the engine try a login and keeps it if the registry accepts it.
func tryLogin(ctx context.Context, app *App, cl *client.Client, c *login.Config, a registry.AuthConfig) error {
	var answer registry.AuthResponse
	if err := cl.Post(ctx, "/auth", nil, a, &answer); err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		a.Password, a.IdentityToken = "", answer.IdentityToken
	}
	plain, err := c.Keep(a)
	if err != nil {
		return fmt.Errorf("the registry accepts the login, but it cannot be kept: %w", err)
	}
	if plain {
		fmt.Fprintf(app.Err, "note: the password stands in %s, readable for you and root; set credsStore there to keep it elsewhere\n", c.Path)
	}
	status := answer.Status
	if status == "" {
		status = "Login Succeeded"
	}
	return say(app.Out, status)
}

func logoutCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "logout [SERVER]", Args: between(0, 1), RunE: func(_ *cobra.Command, args []string) error {
		key := login.HubAddress
		if len(args) == 1 {
			key = login.ServerKey(args[0])
		}
		c, err := login.Read(app.Config)
		if err != nil {
			return err
		}
		known, err := c.Forget(key)
		if err != nil {
			return fmt.Errorf("log out from %s: %w", login.HostOf(key), err)
		}
		text := "Removing login credentials for %s\n"
		if !known {
			text = "Not logged in to %s\n"
		}
		_, err = fmt.Fprintf(app.Out, text, login.HostOf(key))
		return err
	}}
}
