package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// policyCommands are about which images may be pulled and run.
func policyCommands() []command {
	return []command{
		{name: "policy check", group: groupOther, short: "Say which images the policy lets be pulled and run", build: policyCheckCommand},
		{name: "policy show", group: groupOther, short: "Print the rules that hold", build: policyShowCommand},
	}
}

// judgement is a line of `policy check`, and what the engine answers.
type judgement struct {
	Action    string
	Container string // "" for an image
	Digest    string
	Image     string
	Rule      string
	SignedBy  []string
	Verdict   string
	Where     string
	Why       string
	accepted  bool
}

// policyCheckOptions of policy check.
type policyCheckOptions struct {
	all, registry, quiet   bool
	file, platform, format string
}

const policyCheckHelp = `Say which images the policy lets be pulled and run, and why the others are refused

Nothing is pulled but manifests and signatures. An image that is here is judged as it is here,
others at their registry. With --policy a file is tried out before it is put in place, and with
--all on all images and containers of this machine. Ends with 1 where something would be refused.`

func policyCheckCommand(app *App) *cobra.Command {
	var o policyCheckOptions
	c := &cobra.Command{Use: "check [OPTIONS] [IMAGE...]", Args: atLeast(0), Long: policyCheckHelp, RunE: func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) != o.all {
			return &exitError{125, errors.New("name images, or say --all for all images and containers that are here")}
		}
		return runPolicyCheck(cmd.Context(), app, o, args)
	}}
	fs := c.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "All images that are here, and all containers by the images they were made of")
	fs.BoolVar(&o.registry, "registry", false, "Judge what names mean at their registries now, not here")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Print only what would be refused")
	fs.StringVar(&o.file, "policy", "", "Try out this policy `file`, which need not be in place")
	fs.StringVar(&o.platform, "platform", "", "Of this platform, such as linux/arm64")
	formatFlag(c, &o.format, "")
	return c
}

func runPolicyCheck(ctx context.Context, app *App, o policyCheckOptions, names []string) error {
	rows, err := layout{table: `{{.Image}}\t{{.Container}}\t{{.Verdict}}\t{{.Rule}}\t{{.Where}}`}.parseRows(o.format, false)
	if err != nil {
		return err
	}
	query, err := policyQuery(o)
	if err != nil {
		return err
	}
	cl, err := app.Client()
	if err != nil {
		return err
	}
	subjects := make([]policySubject, 0, len(names))
	for _, n := range names {
		subjects = append(subjects, policySubject{image: n})
	}
	if o.all {
		if subjects, err = policySubjects(ctx, cl); err != nil {
			return err
		}
	}
	var list []judgement
	var refused []string
	for _, s := range subjects {
		j, err := judgeOne(ctx, app, query, s)
		if err != nil {
			return err
		}
		j.Container = s.container
		if s.as != "" {
			j.Image = s.as
		}
		if rows.table {
			j.Container = cmp.Or(j.Container, "-")
		}
		if !j.accepted {
			refused = append(refused, j.Why)
		}
		if !o.quiet || !j.accepted {
			list = append(list, j)
		}
	}
	if err := writeRows(app.Out, rows, list); err != nil {
		return err
	}
	if len(refused) == 0 {
		return nil
	}
	return &exitError{1, errors.New(strings.Join(unique(refused), "\n"))}
}

func unique(list []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func policyQuery(o policyCheckOptions) (url.Values, error) {
	q := url.Values{}
	if o.file != "" {
		path, err := filepath.Abs(o.file)
		if err != nil {
			return nil, err
		}
		q.Set("policy", path)
	}
	if o.registry {
		q.Set("registry", "1")
	}
	if o.platform != "" {
		p, err := platformJSON(o.platform)
		if err != nil {
			return nil, err
		}
		q.Set("platform", p)
	}
	return q, nil
}

// policySubject is an image, or a container's.
type policySubject struct{ image, container, as string }

// policySubjects are all images by all of their names, and all containers.
func policySubjects(ctx context.Context, cl *client.Client) (out []policySubject, err error) {
	var list []image.Summary
	if err := cl.Get(ctx, "/images/json", nil, &list); err != nil {
		return nil, err
	}
	for _, img := range list {
		for _, tag := range img.RepoTags {
			out = append(out, policySubject{image: tag})
		}
		if len(img.RepoTags) == 0 {
			out = append(out, policySubject{image: img.ID})
		}
	}
	var containers []container.Summary
	if err := cl.Get(ctx, "/containers/json", url.Values{"all": {"1"}}, &containers); err != nil {
		return nil, err
	}
	for _, c := range containers {
		out = append(out, policySubject{c.ImageID, strings.TrimPrefix(cmp.Or(strings.Join(c.Names, ","), c.ID), "/"), c.Image})
	}
	return out, nil
}

func judgeOne(ctx context.Context, app *App, query url.Values, s policySubject) (j judgement, err error) {
	cl, err := app.Client()
	if err != nil {
		return j, err
	}
	r := client.Request{Path: "/wherry/policy/check", Query: url.Values{"image": {s.image}}, Header: authHeader(app, splitName(cmp.Or(s.as, s.image)).registry)}
	if s.as != "" {
		r.Query.Set("as", s.as)
	}
	for key, values := range query {
		r.Query[key] = values
	}
	res, err := cl.Stream(ctx, r)
	if err != nil {
		return j, err
	}
	defer res.Body.Close()
	var answer struct {
		judgement
		Accepted bool
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return j, fmt.Errorf("read what is said of %s: %w", s.image, err)
	}
	j = answer.judgement
	j.accepted, j.Verdict = answer.Accepted, "refused"
	if j.accepted {
		j.Verdict = "accepted"
	}
	if len(j.SignedBy) > 0 {
		j.Verdict = "signed by " + strings.Join(j.SignedBy, ", ")
	}
	return j, nil
}

// policyRow is a line of `policy show`.
type policyRow struct {
	Action  string
	Line    int
	Scope   string
	Signers string
}

const policyShowHelp = `Print the rules that hold

The rule with the longest scope that an image's name begins with counts. (default) is for images
that no rule matches, (local) for those that were built, loaded or imported on this machine.`

func policyShowCommand(app *App) *cobra.Command {
	var file, format string
	c := &cobra.Command{Use: "show [OPTIONS]", Args: between(0, 0), Long: policyShowHelp, RunE: func(cmd *cobra.Command, _ []string) error {
		rows, err := layout{table: `{{.Scope}}\t{{.Action}}\t{{.Signers}}\t{{if .Line}}{{.Line}}{{else}}-{{end}}`}.parseRows(format, false)
		if err != nil {
			return err
		}
		query, err := policyQuery(policyCheckOptions{file: file})
		if err != nil {
			return err
		}
		return showPolicy(cmd.Context(), app, rows, query)
	}}
	c.Flags().StringVar(&file, "policy", "", "Of this `file`, which need not be in place")
	formatFlag(c, &format, "")
	return c
}

func showPolicy(ctx context.Context, app *App, rows rowFormat, query url.Values) error {
	cl, err := app.Client()
	if err != nil {
		return err
	}
	var p struct {
		File  string
		Rules []struct {
			Scope, Action, Why string
			Line, Need         int
			Signers            []string
		}
	}
	if err := cl.Get(ctx, "/wherry/policy", query, &p); err != nil {
		return err
	}
	var list []policyRow
	for i, r := range p.Rules {
		row := policyRow{Action: r.Action, Line: r.Line, Scope: r.Scope, Signers: strings.Join(r.Signers, "; ") + r.Why}
		if i < 2 {
			row.Scope = [...]string{"(default)", "(local)"}[i]
		}
		if len(r.Signers) > 1 {
			row.Signers = fmt.Sprintf("%d of: %s", r.Need, row.Signers)
		}
		if row.Signers == "" && rows.table {
			row.Signers = "-"
		}
		list = append(list, row)
	}
	if rows.table {
		fmt.Fprintln(app.Out, p.File)
	}
	return writeRows(app.Out, rows, list)
}
