package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/login"
)

// storeCommands are about what the engine keeps of images.
func storeCommands() []command {
	return []command{
		{name: "store check", group: groupOther, short: "Read all blobs and layers, and name what is damaged", build: func(a *App) *cobra.Command { return storeCommand(a, false) }},
		{name: "store repair", group: groupOther, short: "Do so, and fetch or unpack again what is damaged", build: func(a *App) *cobra.Command { return storeCommand(a, true) }},
		{name: "store compact", group: groupOther, short: "Keep layers unpacked only, where they can be had again", build: compactCommand},
	}
}

func compactCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "compact", RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var done struct{ Layers, Freed, Kept int64 }
		if err := cl.Post(cmd.Context(), "/wherry/store/compact", nil, nil, &done); err != nil {
			return err
		}
		_, err = fmt.Fprintf(app.Out, "%s kept unpacked only from now on; %s freed\n", plural(int(done.Layers), "layer is", "layers are"), humanTotal(done.Freed))
		if err == nil && done.Kept > 0 {
			_, err = fmt.Fprintf(app.Out, "%s as they came, too: no registry is known to have them and they cannot be made again, they are not unpacked, or something under way needs them\n", plural(int(done.Kept), "layer stays", "layers stay"))
		}
		return err
	}}
}

// storeLine is a line of the engine's answer.
type storeLine struct {
	Progress *struct {
		What        string
		Done, Total int64
	}
	Damage *storeDamage
	Report *struct {
		Blobs, Layers, Images, Bytes, Unverified, Damaged, Mended int64
	}
	Error string
}

type storeDamage struct {
	Kind, ID, What, Why string
	Paths, Users        []string
	Mended              bool
}

func storeCommand(app *App, repair bool) *cobra.Command {
	use := "check [OPTIONS]"
	if repair {
		use = "repair [OPTIONS]"
	}
	var quick, asJSON bool
	c := &cobra.Command{Use: use, RunE: func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		if repair {
			q.Set("repair", "1")
		}
		if quick {
			q.Set("quick", "1")
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var header http.Header
		if repair {
			if header, err = allLogins(cmd.Context(), app, cl); err != nil {
				return err
			}
		}
		res, err := cl.Stream(cmd.Context(), client.Request{Method: http.MethodPost, Path: "/wherry/store/check", Query: q, Header: header})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if asJSON {
			return copyStoreLines(app.Out, res.Body)
		}
		return printStoreLines(app, res.Body)
	}}
	c.Flags().BoolVar(&quick, "quick", false, "Leave out the files of unpacked layers")
	c.Flags().BoolVar(&asJSON, "json", false, "Print what the engine says as lines of JSON")
	return c
}

// allLogins are those for the registries that the engine's images are named after; each goes on to its own registry only.
func allLogins(ctx context.Context, app *App, cl *client.Client) (http.Header, error) {
	var list []image.Summary
	if err := cl.Get(ctx, "/images/json", nil, &list); err != nil {
		return nil, err
	}
	c, err := login.Read(app.Config)
	if err != nil {
		return nil, err
	}
	logins := map[string]*registry.AuthConfig{}
	for _, i := range list {
		for _, name := range append(i.RepoTags, i.RepoDigests...) {
			host := splitName(name).registry
			if _, known := logins[host]; known {
				continue
			}
			if a, err := c.Credentials(login.ServerKey(host)); err == nil && a != nil {
				logins[host] = a
			}
		}
	}
	b, err := json.Marshal(logins)
	return http.Header{"X-Registry-Config": {base64.URLEncoding.EncodeToString(b)}}, err
}

// printStoreLines prints damage as it is found, and how far it is on a terminal.
func printStoreLines(app *App, body io.Reader) error {
	_, shows := terminal(app.Err)
	clear := func() {
		if shows {
			fmt.Fprint(app.Err, "\r\x1b[K")
		}
	}
	for d := json.NewDecoder(body); ; {
		var l storeLine
		if err := d.Decode(&l); err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		clear()
		switch {
		case l.Error != "":
			return errors.New(l.Error)
		case l.Damage != nil:
			if _, err := fmt.Fprint(app.Out, printable(l.Damage.text())); err != nil {
				return err
			}
		case l.Report != nil:
			return l.end(app.Out)
		case l.Progress != nil && shows && l.Progress.What == "blobs":
			fmt.Fprintf(app.Err, "reading blobs: %s of %s", humanSize(l.Progress.Done), humanSize(l.Progress.Total))
		case l.Progress != nil && shows:
			fmt.Fprintf(app.Err, "reading %s: %d", l.Progress.What, l.Progress.Done)
		}
	}
}

func (d *storeDamage) text() string {
	var b strings.Builder
	what := strings.TrimPrefix(d.What, "is damaged: "+d.ID+" ")
	if what != d.What {
		what = "is damaged: " + what
	}
	fmt.Fprintf(&b, "%s %s %s\n", d.Kind, d.ID, what)
	for _, p := range d.Paths {
		fmt.Fprintf(&b, "  /%s\n", strings.TrimPrefix(p, "./"))
	}
	if len(d.Users) > 0 {
		fmt.Fprintf(&b, "  used by: %s\n", strings.Join(d.Users, ", "))
	}
	switch {
	case d.Mended:
		b.WriteString("  mended\n")
	case d.Why != "":
		fmt.Fprintf(&b, "  not mended: %s\n", d.Why)
	}
	return b.String()
}

func (l *storeLine) end(w io.Writer) error {
	r := l.Report
	fmt.Fprintf(w, "%s (%s), %s and %s looked at", plural(int(r.Blobs), "blob", "blobs"), humanSize(r.Bytes), plural(int(r.Layers), "unpacked layer", "unpacked layers"), plural(int(r.Images), "image", "images"))
	if r.Unverified > 0 {
		fmt.Fprintf(w, "; files of %d layers could not be held against a blob", r.Unverified)
	}
	if _, err := fmt.Fprintf(w, ": %d damaged, %d mended\n", r.Damaged, r.Mended); err != nil {
		return err
	}
	return l.left()
}

// left is an error where damage stays.
func (l *storeLine) left() error {
	if n := l.Report.Damaged - l.Report.Mended; n > 0 {
		return fmt.Errorf("damaged parts of the store: %d; see wherry store repair --help", n)
	}
	return nil
}

func copyStoreLines(w io.Writer, body io.Reader) error {
	for d := json.NewDecoder(body); ; {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		var l storeLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n", raw); err != nil {
			return err
		}
		switch {
		case l.Error != "":
			return errors.New(l.Error)
		case l.Report != nil:
			return l.left()
		}
	}
}
