package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/client"
)

// fileChange is one path that differs between two images, as the engine tells it.
type fileChange struct {
	Kind, Path    string
	Before, After int64
	Error         string `json:",omitempty"`
}

// moved is a pair of images that are to be compared.
type moved struct {
	before, after string // digests
	name          string // what means after, in full
	registry      bool   // there
	platform      string
}

// files prints which files differ, once for each pair of images.
func (d *drift) files(ctx context.Context) error {
	seen := map[moved]bool{}
	for _, row := range d.rows {
		if row.State != driftMoved {
			continue
		}
		m := moved{before: row.Here, after: row.Now, name: taggedName(row.Image), registry: true, platform: cmp.Or(d.o.platform, row.platform)}
		if row.Container != "" {
			m.before = row.Runs
		}
		if m.after == "" || m.after == m.before {
			m.after, m.registry = row.Here, false
			m.name = row.Here
		}
		if seen[m] {
			continue
		}
		seen[m] = true
		if err := d.compare(ctx, m, row.Image); err != nil {
			return err
		}
	}
	return nil
}

// compare prints how one image differs from another, as the engine finds it out.
func (d *drift) compare(ctx context.Context, m moved, title string) error {
	c, err := d.app.Client()
	if err != nil {
		return err
	}
	r := client.Request{Path: "/wherry/images/files", Query: url.Values{"before": {m.before}, "after": {m.name}}}
	if m.registry {
		r.Query.Set("registry", "1")
		r.Query.Set("after", repository(m.name)+"@"+m.after) // what was asked for just now, not what it means by now
		r.Header = authHeader(d.app, splitName(m.name).registry)
	}
	if m.platform != "" {
		if m.platform, err = platformJSON(m.platform); err != nil {
			return err
		}
		r.Query.Set("platform", m.platform)
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return fmt.Errorf("compare the files of %s: %w", title, err)
	}
	defer res.Body.Close()
	p := &changePrinter{out: d.app.Out, json: d.o.format == "json", image: title}
	if !p.json {
		fmt.Fprintf(d.app.Out, "\n%s: %s to %s\n", printable(title), shortDigest(digest.Digest(m.before)), shortDigest(digest.Digest(m.after)))
	}
	if err := p.copy(res.Body); err != nil {
		return fmt.Errorf("compare the files of %s: %w", title, err)
	}
	return nil
}

// changePrinter writes changes down for people, or as JSON lines.
type changePrinter struct {
	out   io.Writer
	json  bool
	image string
	count map[string]int
	grown int64
}

func (p *changePrinter) copy(r io.Reader) error {
	p.count = map[string]int{}
	decoder := json.NewDecoder(r)
	for {
		var ch fileChange
		err := decoder.Decode(&ch)
		if errors.Is(err, io.EOF) {
			return p.end()
		}
		if err != nil {
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		if ch.Error != "" {
			return errors.New(ch.Error)
		}
		if err := p.show(ch); err != nil {
			return err
		}
	}
}

func (p *changePrinter) show(ch fileChange) error {
	p.count[ch.Kind]++
	p.grown += ch.After - ch.Before
	if p.json {
		text, err := json.Marshal(struct {
			Image string
			fileChange
		}{p.image, ch})
		if err == nil {
			_, err = fmt.Fprintf(p.out, "%s\n", text)
		}
		return err
	}
	_, err := fmt.Fprintf(p.out, "%s %9s  %s\n", ch.Kind, growth(ch.After-ch.Before), quotePath(ch.Path))
	return err
}

func (p *changePrinter) end() error {
	if p.json {
		return nil
	}
	n := p.count
	if n["A"]+n["C"]+n["D"] == 0 {
		_, err := fmt.Fprintln(p.out, "no file differs: the images have other settings, or times")
		return err
	}
	_, err := fmt.Fprintf(p.out, "%d added, %d changed, %d removed; %s\n", n["A"], n["C"], n["D"], growth(p.grown))
	return err
}

// growth is a difference of sizes with its sign.
func growth(n int64) string {
	switch {
	case n > 0:
		return "+" + humanSize(n)
	case n < 0:
		return "-" + humanSize(-n)
	}
	return "0B"
}

// quotePath keeps a path on its line.
func quotePath(path string) string {
	for _, r := range path {
		if r < ' ' || r == 0x7f {
			return fmt.Sprintf("%q", path)
		}
	}
	return printable(path)
}
