package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/image"
)

// printImageTree prints each image with what it holds for each platform below it.
func printImageTree(w io.Writer, list []image.Summary, whole bool) error {
	id := shortID
	if whole {
		id = func(s string) string { return s }
	}
	var b strings.Builder
	b.WriteString("IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tIN USE\n")
	for _, i := range list {
		names := make([]string, 0, len(i.RepoTags))
		for _, name := range i.RepoTags {
			names = append(names, familiarName(name))
		}
		var children []image.ManifestSummary
		var content int64
		for _, m := range i.Manifests {
			content += m.Size.Content
			if m.Kind == image.ManifestKindImage {
				children = append(children, m)
			}
		}
		size := "N/A"
		if len(i.Manifests) > 0 {
			size = humanSize(content)
		}
		used := ""
		if i.Containers > 0 || slices.ContainsFunc(children, inUse) {
			used = "yes"
		}
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", cmp.Or(strings.Join(names, ", "), "<none>"), id(i.ID), humanSize(i.Size), size, used)
		for n, m := range children {
			branch, platform := "├─ ", "unknown"
			if n == len(children)-1 {
				branch = "└─ "
			}
			if m.ImageData != nil {
				platform = platformText{m.ImageData.Platform}.String()
			}
			if !m.Available {
				platform += " (not here)"
			}
			used := ""
			if inUse(m) {
				used = "yes"
			}
			fmt.Fprintf(&b, "%s%s\t%s\t%s\t%s\t%s\n", branch, platform, id(m.ID), humanSize(m.Size.Total), humanSize(m.Size.Content), used)
		}
	}
	_, err := w.Write(alignColumns([]byte(b.String())))
	return err
}

func inUse(m image.ManifestSummary) bool {
	return m.ImageData != nil && len(m.ImageData.Containers) > 0
}
