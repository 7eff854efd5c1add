package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// frame gives a command the manners that all have: its name, its help, and errors of one line.
func frame(c *cobra.Command, name string, cmd *command) {
	_, usage, _ := strings.Cut(c.Use, " ")
	c.Use = strings.TrimRight(name[strings.LastIndexByte(name, ' ')+1:]+" "+usage, " ")
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[cobra.CommandDisplayNameAnnotation] = name
	c.DisableFlagsInUseLine = true
	c.SilenceErrors, c.SilenceUsage = true, true
	if c.Short == "" {
		c.Short = cmd.short
	}
	addHelp(c)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) {
		c.Example = exampleText(cmd.name)
		_, _ = io.WriteString(c.OutOrStdout(), help(c, helpWidth(c.OutOrStdout())))
	})
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &exitError{125, flagError(c, err, name)} })
	if c.Args == nil {
		c.Args = exactly(0)
	}
}

// help is what a command says of itself, in lines of so many columns.
func help(c *cobra.Command, width int) string {
	text := "Usage: " + c.UseLine() + "\n"
	if about := cmp.Or(c.Long, c.Short); about != "" {
		text += "\n" + paragraphs(about) + "\n"
	}
	if c.HasAvailableLocalFlags() {
		text += "\nOptions:\n" + c.LocalFlags().FlagUsages()
	}
	if c.Example != "" {
		text += "\nExamples:\n" + c.Example
	}
	return fold(text, width)
}

// paragraphs joins the lines of a text up to those that are empty or stand further in.
func paragraphs(text string) string {
	var b strings.Builder
	before := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		flows := before != "" && line != "" && !strings.HasPrefix(before, " ") && !strings.HasPrefix(line, " ")
		switch {
		case flows:
			b.WriteString(" ")
		case b.Len() > 0:
			b.WriteString("\n")
		}
		b.WriteString(line)
		before = line
	}
	return b.String()
}

// helpWidth is a terminal's width, but not more than is well to read.
func helpWidth(w io.Writer) int {
	const most, least = 100, 60
	if fd, ok := terminal(w); ok {
		if width, _, err := term.GetSize(fd); err == nil && width > 0 {
			return max(least, min(width, most))
		}
	}
	return most
}

// fold breaks lines that are longer than width between words. What follows stands below what a name in the line, and two spaces or more, lead to.
func fold(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if name, rest, ok := strings.Cut(line[indent:], "  "); ok && len(name) < width/2 {
			indent = len(line) - len(strings.TrimLeft(rest, " "))
		}
		runes, end := []rune(line), len(line)-len(strings.TrimSuffix(line, "\n"))
		for len(runes) > width+end {
			at := width
			for at > indent && runes[at] != ' ' {
				at--
			}
			if at == indent { // one word that does not fit
				for at = width; at > indent && !strings.ContainsRune(",|", runes[at-1]); {
					at--
				}
			}
			if at == indent {
				break
			}
			b.WriteString(strings.TrimRight(string(runes[:at]), " ") + "\n")
			rest := strings.TrimPrefix(string(runes[at:]), " ")
			runes = append([]rune(strings.Repeat(" ", indent)), []rune(rest)...)
		}
		b.WriteString(string(runes))
	}
	return b.String()
}

// addHelp leaves -h to --hostname where there is one.
func addHelp(c *cobra.Command) {
	if c.Flags().ShorthandLookup("h") != nil {
		c.Flags().Bool("help", false, "Print this")
	} else {
		c.Flags().BoolP("help", "h", false, "Print this")
	}
}

// flagError is a flag package's error as one line that says what to do.
func flagError(c *cobra.Command, err error, name string) error {
	var unknown *pflag.NotExistError
	var novalue *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		word := "-" + unknown.GetSpecifiedName()
		if all := "-" + unknown.GetSpecifiedShortnames(); all != word {
			word += " (in " + all + ")"
		}
		return fmt.Errorf("unknown flag %s%s", word, numberWay(c, unknown.GetSpecifiedShortnames(), "; see "+name+" --help"))
	case errors.As(err, &unknown):
		for _, way := range [][3]string{{"json", "format", "--format json"}, {"format", "json", "--json"}} {
			if unknown.GetSpecifiedName() == way[0] && c.Flags().Lookup(way[1]) != nil {
				return fmt.Errorf("unknown flag --%s: write %s", way[0], way[2])
			}
		}
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		return unknownFlag("--"+unknown.GetSpecifiedName(), known, name+" --help")
	case errors.As(err, &novalue):
		return fmt.Errorf("flag %s needs a value; see %s --help", flagNames(novalue.GetFlag()), name)
	case errors.As(err, &invalid):
		return fmt.Errorf("invalid value %q of %s: %s", invalid.GetValue(), flagNames(invalid.GetFlag()), plainCause(invalid.GetFlag(), invalid.Unwrap()))
	}
	return fmt.Errorf("%w; see %s --help", err, name)
}

// numberWay tells who writes kill -9 or logs -100, as kill(1) and tail(1) take it, how that is said here.
func numberWay(c *cobra.Command, word, otherwise string) string {
	if _, err := strconv.ParseUint(word, 10, 16); err != nil {
		return otherwise
	}
	for _, flag := range []string{"signal", "tail"} {
		if f := c.Flags().Lookup(flag); f != nil {
			return ": write -" + f.Shorthand + " " + word
		}
	}
	return otherwise
}

// plainCause says what strconv says in words that fit the flag.
func plainCause(f *pflag.Flag, err error) string {
	var number *strconv.NumError
	switch {
	case !errors.As(err, &number):
		return err.Error()
	case errors.Is(err, strconv.ErrRange):
		return "that is out of range"
	case f.Value.Type() == "bool":
		return "give true or false"
	case strings.HasPrefix(f.Value.Type(), "uint"):
		return "give a whole number from 0 on"
	}
	return "give a whole number"
}

func flagNames(f *pflag.Flag) string {
	if f == nil {
		return "?"
	}
	if f.Shorthand != "" {
		return "-" + f.Shorthand + ", --" + f.Name
	}
	return "--" + f.Name
}

func unknownFlag(flag string, known []string, see string) error {
	if way := otherWays()[flag]; way != "" {
		return fmt.Errorf("unknown flag %s: %s", flag, way)
	}
	return fmt.Errorf("unknown flag %s%s", flag, didYouMean(flag, known, "; see "+see))
}

// didYouMean is ": did you mean X?" where a candidate is near, otherwise what is given for that case.
func didYouMean(word string, candidates []string, otherwise string) string {
	if best := nearest(word, candidates); best != "" {
		return ": did you mean " + best + "?"
	}
	return otherwise
}

// nearest is the candidate that is fewest keystrokes away, if that is few for its length.
func nearest(word string, candidates []string) string {
	best, least := "", 0
	for _, c := range candidates {
		d := distance(strings.TrimLeft(word, "-"), strings.TrimLeft(c, "-"))
		if d <= max(1, min(len(word), len(c))/3) && (best == "" || d < least) {
			best, least = c, d
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+btoi(a[i] != b[j]))
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// exactly, atLeast and between check how many words stand behind the flags.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }
func atLeast(n int) cobra.PositionalArgs { return between(n, 1<<30) }

func between(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) >= least && len(args) <= most:
			return nil
		case most == 0:
			return fmt.Errorf("what is %q? usage: %s", args[0], c.UseLine())
		case len(args) > most:
			return fmt.Errorf("too many arguments (%d), the first one too many is %q; usage: %s", len(args), args[most], c.UseLine())
		}
		return fmt.Errorf("%s missing; usage: %s", plural(least-len(args), "argument is", "arguments are"), c.UseLine())
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// each calls do for every name, says what went wrong with each one, and in the end that something did.
func each(ctx context.Context, app *App, names []string, do func(name string) error) error {
	failed := false
	for _, name := range names {
		if err := do(name); err != nil {
			printError(app.Err, suggest(ctx, app, err))
			failed = true
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

func sorted[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
