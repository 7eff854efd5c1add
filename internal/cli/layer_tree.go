package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// treeLayer is a layer of the engine's answer to GET /wherry/layers.
type treeLayer struct {
	ID, Parent, DiffID, Blob, CreatedBy string
	Size, BlobSize                      int64
	SharedWith                          int
	Images                              []treeImage
}

type treeImage struct {
	ID, Platform      string
	Names, Containers []string
}

func layerTreeCommand(app *App) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "tree [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var list []treeLayer
		if err := cl.Get(cmd.Context(), "/wherry/layers", nil, &list); err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(app.Out)
			e.SetIndent("", "  ")
			return e.Encode(list)
		}
		return printLayerTree(app.Out, list)
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "Print the layers as JSON, parents first")
	return c
}

// treeWidth is what fits everywhere.
const treeWidth = 79

// layerPrinter draws layers from the bottom up. A layer with one layer on it goes on in the same column; where several rest on one, each but
// the last has a branch.
type layerPrinter struct {
	b  strings.Builder
	on map[string][]*treeLayer // by parent
}

func printLayerTree(w io.Writer, list []treeLayer) error {
	p := layerPrinter{on: map[string][]*treeLayer{}}
	for i := range list {
		p.on[list[i].Parent] = append(p.on[list[i].Parent], &list[i])
	}
	p.line("", fmt.Sprintf("%-12s  %8s %8s  %s", "LAYER", "UNPACKED", "AS BLOB", "CREATED BY"))
	for _, l := range p.on[""] {
		p.draw(l, "", "")
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

// draw prints a layer and what rests on it; first is what stands before its own line, rest before all that follow.
func (p *layerPrinter) draw(l *treeLayer, first, rest string) {
	for {
		size, blob := "-", "-"
		if l.Size > 0 {
			size = humanSize(l.Size)
		}
		if l.BlobSize > 0 {
			blob = humanSize(l.BlobSize)
		}
		p.line(first, fmt.Sprintf("%s  %8s %8s  %s", shortID(l.ID), size, blob, l.CreatedBy))
		first = rest
		above := p.on[l.ID]
		bar := "   "
		if len(above) > 0 {
			bar = "│  "
		}
		for _, i := range l.Images {
			p.line(rest+bar, i.text())
		}
		if len(above) == 0 {
			return
		}
		for _, branch := range above[:len(above)-1] {
			p.draw(branch, rest+"├─ ", rest+"│  ")
		}
		if len(above) > 1 {
			first = rest + "└─ "
			rest += "   "
		}
		l = above[len(above)-1]
	}
}

func (i *treeImage) text() string {
	names := make([]string, 0, len(i.Names))
	for _, n := range i.Names {
		names = append(names, familiarName(n))
	}
	s := "▪ " + cmp.Or(strings.Join(names, ", "), "<none> "+shortID(i.ID))
	if i.Platform != "" {
		s += " (" + i.Platform + ")"
	}
	if len(i.Containers) > 0 {
		s += " ← " + strings.Join(i.Containers, ", ")
	}
	return s
}

// line prints at most as much as fits; images choose some of the words.
func (p *layerPrinter) line(before, s string) {
	all := []rune(before + printable(strings.ReplaceAll(s, "\n", " ")))
	if len(all) > treeWidth {
		all = append(all[:treeWidth-1], '…')
	}
	p.b.WriteString(strings.TrimRight(string(all), " ") + "\n")
}
