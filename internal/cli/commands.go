package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// command is a line of the table. Nothing of it is built before it is chosen.
type command struct {
	name  string   // as people call it: "run", "network create"
	also  []string // other names of it: "container run", "network ls"
	group string   // its heading in the help: groupCommon, groupObjects, groupOther
	short string
	build func(*App) *cobra.Command
}

const (
	groupCommon = "Everyday commands"
	groupOther  = "Commands"
)

// nouns are the words that commands stand under, with what they are about.
func nouns() [][2]string {
	return [][2]string{
		{"container", "Manage containers"}, {"image", "Manage images"}, {"network", "Manage networks"},
		{"volume", "Manage volumes"}, {"secret", "Manage secrets: values that only containers see"}, {"config", "Manage configs: files that containers are given"}, {"builder", "Look after what builds leave for the next ones"}, {"artifact", "Manage artifacts: files that registries keep"},
		{"policy", "See which images may be pulled and run"},
		{"manifest", "Manage lists of manifests: images for several platforms"}, {"context", "Give engines names, and choose the one that commands speak to"}, {"system", "Look at the engine and tidy up"},
		{"healthcheck", "Run the health checks of containers"},
		{"checkpoint", "Write running containers to disk, to go on later"},
		{"audit", "See who did what through the engine"},
		{"store", "Look for damage in what is kept of images"},
	}
}

func commands() []command {
	return slices.Concat(runCommands(), buildCommands(), lifeCommands(), replaceCommands(), checkpointCommands(), portsCommands(), lookCommands(), existsCommands(), healthCommands(), fileCommands(),
		imageCommands(), manifestCommands(), artifactCommands(), policyCommands(), networkCommands(), volumeCommands(), systemCommands(),
		storeCommands(), auditCommands(), contextCommands(), secretCommands())
}

func (c *command) names() []string { return append([]string{c.name}, c.also...) }

// choose finds the command that words begin with. A noun alone gives no command and no error.
func choose(words []string) (name string, cmd *command, rest []string, err error) {
	all := commands()
	for n := min(2, len(words)); n > 0; n-- {
		name := strings.Join(words[:n], " ")
		for i := range all {
			if slices.Contains(all[i].names(), name) {
				return name, &all[i], words[n:], nil
			}
		}
	}
	if isNoun(words[0]) && (len(words) == 1 || words[1] == "--help" || words[1] == "-h") {
		return words[0], nil, nil, nil
	}
	return "", nil, nil, unknownCommand(words, isNoun(words[0]), all)
}

func isNoun(word string) bool {
	return slices.ContainsFunc(nouns(), func(n [2]string) bool { return n[0] == word })
}

func unknownCommand(words []string, isNoun bool, all []command) error {
	var names, below []string // below: under which nouns the word is a command
	for i := range all {
		for _, n := range all[i].names() {
			noun, verb, two := strings.Cut(n, " ")
			switch {
			case isNoun && two && noun == words[0]:
				names = append(names, verb)
			case !isNoun && !two:
				names = append(names, n)
			case !isNoun && verb == words[0]:
				below = append(below, "wherry "+n)
			}
		}
	}
	if isNoun {
		if strings.HasPrefix(words[1], "-") {
			return &exitError{125, fmt.Errorf("unknown flag %s: wherry %s takes a command; see wherry %[2]s --help", words[1], words[0])}
		}
		if way := ways()[words[0]+" "+words[1]]; way != "" {
			return fmt.Errorf("unknown command %q of wherry %s: %s", words[1], words[0], way)
		}
		return fmt.Errorf("unknown command %q of wherry %s%s", words[1], words[0], didYouMean(words[1], names, "; see wherry "+words[0]+" --help"))
	}
	if way := ways()[words[0]]; way != "" {
		return fmt.Errorf("unknown command %q: %s", words[0], way)
	}
	if len(below) > 0 && len(below) <= 3 {
		return fmt.Errorf("unknown command %q: did you mean %s?", words[0], strings.Join(below, " or "))
	}
	for _, n := range nouns() {
		names = append(names, n[0])
	}
	return fmt.Errorf("unknown command %q%s", words[0], didYouMean(words[0], names, "; see wherry --help"))
}

// wholeTree builds every command, for the completion of shells.
func wholeTree(app *App) *cobra.Command {
	root := &cobra.Command{Use: "wherry", SilenceUsage: true, SilenceErrors: true}
	parents := map[string]*cobra.Command{}
	for _, n := range nouns() {
		parents[n[0]] = &cobra.Command{Use: n[0], Short: n[1]}
		root.AddCommand(parents[n[0]])
	}
	all := commands()
	for i := range all {
		for _, name := range all[i].names() {
			c := all[i].build(app)
			c.Short = all[i].short
			completeNames(app, c)
			completeFlags(app, c)
			addHelp(c)
			parent := root
			noun, verb, two := strings.Cut(name, " ")
			if two {
				parent = parents[noun]
			} else {
				verb = noun
			}
			_, usage, _ := strings.Cut(c.Use, " ")
			c.Use = verb + " " + usage
			if parent != nil {
				parent.AddCommand(c)
			}
		}
	}
	return root
}

func printHelp(w io.Writer, all []command) error {
	var b strings.Builder
	b.WriteString("Usage: wherry [OPTIONS] COMMAND\n\nRuns containers: images in, isolated processes out.\n")
	for _, group := range []string{groupCommon, groupOther} {
		fmt.Fprintf(&b, "\n%s:\n", group)
		for _, c := range all {
			if c.group == group && !strings.Contains(c.name, " ") && !isNoun(c.name) {
				fmt.Fprintf(&b, "  %-11s %s\n", c.name, c.short)
			}
		}
	}
	b.WriteString("  completion  Print a script that lets bash, zsh or fish complete words\n")
	b.WriteString("\nCommands by what they are about:\n")
	for _, n := range nouns() {
		fmt.Fprintf(&b, "  %-11s %s\n", n[0], n[1])
	}
	b.WriteString(`
Options:
  -H, --host unix:///path   Engine to speak to (default: WHERRY_HOST, DOCKER_HOST, /run/wherry/wherry.sock); or tcp://host:port, with the certificates of --tlscacert, --tlscert, --tlskey or DOCKER_CERT_PATH; or ssh://user@host
  -c, --context NAME        One of docker's contexts to speak to (default: DOCKER_CONTEXT, the current one, where no engine is named)
      --config DIRECTORY    Where config.json with logins is (default: DOCKER_CONFIG, ~/.docker)
  -D, --debug               Say more
  -v, --version             Print the version
      --help                Print this, or a command's help: wherry COMMAND --help
`)
	_, err := io.WriteString(w, fold(b.String(), helpWidth(w)))
	return err
}

func printGroup(w io.Writer, noun string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: wherry %s COMMAND\n\n", noun)
	for _, n := range nouns() {
		if n[0] == noun {
			b.WriteString(n[1] + "\n")
		}
	}
	b.WriteString("\nCommands:\n")
	type line struct{ verb, short string }
	var lines []line
	for _, c := range commands() {
		for _, n := range c.names() {
			if verb, ok := strings.CutPrefix(n, noun+" "); ok {
				lines = append(lines, line{verb, c.short})
				break
			}
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.verb, b.verb) })
	for _, l := range lines {
		fmt.Fprintf(&b, "  %-11s %s\n", l.verb, l.short)
	}
	fmt.Fprintf(&b, "\nSee wherry %s COMMAND --help.\n", noun)
	_, err := io.WriteString(w, fold(b.String(), helpWidth(w)))
	return err
}
