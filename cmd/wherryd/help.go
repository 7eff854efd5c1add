package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"wherry.dev/wherry/internal/settings"
)

// printHelp says what wherryd is, and lists its flags in lines that fit every terminal.
func printHelp(w io.Writer, fs *flag.FlagSet) {
	const width, indent = 80, 31
	fmt.Fprintf(w, "Usage: wherryd [OPTIONS]\n\nThe engine; wherry starts it where nobody listens. Flags win over the settings\nin %s.\n\nOptions:\n", settings.Path)
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if d := f.DefValue; d != "" && d != "false" && d != "true" && !strings.Contains(text, "(default") {
			text += " (default " + d + ")"
		}
		line := fmt.Sprintf("  %-*s", indent-2, "--"+strings.TrimSpace(f.Name+" "+value))
		column := max(len(line), indent)
		for i, word := range strings.Fields(text) {
			if i > 0 && column+1+len(word) > width || i == 0 && len(line) > indent {
				line += "\n" + strings.Repeat(" ", indent)
				column = indent
			} else if i > 0 {
				line += " "
				column++
			}
			line += word
			column += len(word)
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	})
}
