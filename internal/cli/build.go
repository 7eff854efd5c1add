package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"wherry.dev/wherry/internal/buildopt"
)

// buildHelper does the work of these commands: it links BuildKit's client, which this program is too small for.
const buildHelper = "wherry-build"

// buildCommands make images and look after what builds leave for the next one.
func buildCommands() []command {
	return []command{
		{name: "build", also: []string{"image build", "builder build", "buildx build"}, group: groupCommon, short: "Build an image from a Dockerfile", build: buildCommand},
		{name: "builder du", also: []string{"buildx du"}, group: groupOther, short: "List what builds have left for the next ones", build: builderUsageCommand},
		{name: "builder prune", also: []string{"buildx prune"}, group: groupOther, short: "Remove what builds have left", build: builderPruneCommand},
		{name: "builder cache", group: groupOther, short: "List cache mounts, take them out and in", build: builderCacheCommand},
	}
}

const buildHelp = `Build an image from a Dockerfile

PATH is the context: the directory whose files the Dockerfile may copy. It can also be the address of
a git repository or of a tar file, or - for a tar file or a Dockerfile from the input.`

func buildCommand(app *App) *cobra.Command {
	var o buildopt.Options
	c := &cobra.Command{Use: "build [OPTIONS] PATH|URL|-", Args: exactly(1), Long: buildHelp, RunE: func(cmd *cobra.Command, args []string) error {
		o.Context = args[0]
		if err := o.Validate(); err != nil {
			return err
		}
		return handOver(app, "build", cmd.Flags(), args)
	}}
	o.Register(c.Flags())
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return c
}

func builderUsageCommand(app *App) *cobra.Command {
	var u buildopt.Usage
	c := &cobra.Command{Use: "du [OPTIONS]", RunE: func(cmd *cobra.Command, args []string) error {
		if err := u.Validate(); err != nil {
			return err
		}
		return handOver(app, "du", cmd.Flags(), args)
	}}
	u.Register(c.Flags())
	return c
}

func builderPruneCommand(app *App) *cobra.Command {
	var p buildopt.Prune
	c := &cobra.Command{Use: "prune [OPTIONS]", RunE: func(cmd *cobra.Command, args []string) error {
		if _, err := p.Limits(); err != nil {
			return err
		}
		if !p.Force {
			what := "all of the build cache that nothing uses"
			if p.All {
				what = "all of the build cache"
			}
			if err := confirm(app, "WARNING! This will remove "+what+".\nAre you sure you want to continue?"); err != nil {
				return err
			}
		}
		return handOver(app, "prune", cmd.Flags(), args)
	}}
	p.Register(c.Flags())
	return c
}

const builderCacheHelp = `List cache mounts, take them out and in

The directories of RUN --mount=type=cache, by the ID that the Dockerfile gives them (id=, else target=).
A tar of one can be kept between runs of CI, and taken into another engine.`

func builderCacheCommand(app *App) *cobra.Command {
	var m buildopt.Mounts
	use := "cache ls | export ID -o FILE | import ID -i FILE"
	c := &cobra.Command{Use: use, Args: atLeast(0), Long: builderCacheHelp, RunE: func(cmd *cobra.Command, args []string) error {
		if err := m.Take(args); err != nil {
			return err
		}
		return handOver(app, "cache", cmd.Flags(), args)
	}}
	m.Register(c.Flags())
	c.ValidArgs = []string{"ls", "export", "import"}
	return c
}

// handOver becomes the helper, with the flags as they were understood here. It comes back with an error only.
func handOver(app *App, command string, flags *pflag.FlagSet, args []string) error {
	helper, err := findBuildHelper()
	if err != nil {
		return err
	}
	cl, err := app.Client()
	if err != nil {
		return err
	}
	words := []string{buildHelper, "--host=" + cl.Host(), "--config=" + app.Config, command}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				words = append(words, "--"+f.Name+"="+v)
			}
			return
		}
		words = append(words, "--"+f.Name+"="+f.Value.String())
	})
	words = append(append(words, "--"), args...)
	return fmt.Errorf("start %s: %w", helper, syscall.Exec(helper, words, os.Environ()))
}

// findBuildHelper looks beside this program, then in PATH.
func findBuildHelper() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), buildHelper)
		if st, err := os.Stat(beside); err == nil && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(buildHelper)
	if err != nil {
		return "", errors.New(buildHelper + " is neither beside wherry nor in PATH, and it is what builds: install it there")
	}
	return filepath.Abs(path)
}
