package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// lifeCommands change what containers do.
func lifeCommands() []command {
	return []command{
		{name: "stop", also: []string{"container stop"}, group: groupCommon, short: "Ask containers to end, and end them after a while", build: stopCommand},
		{name: "rm", also: []string{"container rm", "container remove"}, group: groupCommon, short: "Remove containers", build: removeCommand},
		{name: "kill", also: []string{"container kill"}, group: groupOther, short: "Send a signal to containers", build: killCommand},
		{name: "restart", also: []string{"container restart"}, group: groupOther, short: "Stop containers and start them again", build: restartCommand},
		{name: "pause", also: []string{"container pause"}, group: groupOther, short: "Freeze all processes of containers", build: pauseCommand},
		{name: "unpause", also: []string{"container unpause"}, group: groupOther, short: "Let frozen containers go on", build: unpauseCommand},
		{name: "wait", also: []string{"container wait"}, group: groupOther, short: "Wait until containers have ended and print their exit status", build: waitCommand},
		{name: "rename", also: []string{"container rename"}, group: groupOther, short: "Give a container another name", build: renameCommand},
		{name: "update", also: []string{"container update"}, group: groupOther, short: "Change limits of containers while they run", build: updateCommand},
	}
}

func containerPath(name, verb string) string { return "/containers/" + url.PathEscape(name) + verb }

// postNames posts a verb to each container and prints its name as it was given.
func postNames(ctx context.Context, app *App, names []string, verb string, query url.Values) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	return each(ctx, app, names, func(name string) error {
		if err := c.Post(ctx, containerPath(name, "/"+verb), query, nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(app.Out, name)
		return err
	})
}

func pauseCommand(app *App) *cobra.Command {
	return freezeCommand(app, "pause", container.StateRunning)
}

func unpauseCommand(app *App) *cobra.Command {
	return freezeCommand(app, "unpause", container.StatePaused)
}

func freezeCommand(app *App, verb string, state container.ContainerState) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " CONTAINER..."}
	p := pickFlags(cmd, "al", state)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		return postNames(cmd.Context(), app, names, verb, nil)
	}
	return cmd
}

// stopFlags are those of stop and restart.
func stopFlags(cmd *cobra.Command) func() url.Values {
	var seconds int
	var signal string
	cmd.Flags().IntVarP(&seconds, "timeout", "t", 0, "Seconds until it is killed (-1 for never; default the container's, 10)")
	cmd.Flags().IntVar(&seconds, "time", 0, "")
	_ = cmd.Flags().MarkHidden("time")
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send (default the container's)")
	return func() url.Values {
		q := url.Values{}
		if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
			q.Set("t", strconv.Itoa(seconds))
		}
		if signal != "" {
			q.Set("signal", signal)
		}
		return q
	}
}

func stopCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "stop [OPTIONS] CONTAINER..."}
	query, p := stopFlags(cmd), pickFlags(cmd, "al", container.StateRunning, container.StatePaused, container.StateRestarting)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		return atOnce(cmd.Context(), app, names, "stop", query())
	}
	return cmd
}

func restartCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "restart [OPTIONS] CONTAINER..."}
	query, p := stopFlags(cmd), pickFlags(cmd, "al")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		return atOnce(cmd.Context(), app, names, "restart", query())
	}
	return cmd
}

// atOnce is postNames for verbs that take long: all containers are asked, some at the same time, and the answers printed in order.
func atOnce(ctx context.Context, app *App, names []string, verb string, query url.Values) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	answer := together(names, func(name string) error { return c.Post(ctx, containerPath(name, "/"+verb), query, nil, nil) })
	return each(ctx, app, names, func(name string) error {
		err := answer()
		if err == nil {
			_, err = fmt.Fprintln(app.Out, name)
		}
		return err
	})
}

// together does something for all names, for some at the same time, and gives the results one by one in their order. All of them are to be taken.
func together(names []string, do func(name string) error) (next func() error) {
	results := make([]chan error, len(names))
	places := make(chan struct{}, 16)
	for i, name := range names {
		result := make(chan error, 1)
		results[i] = result
		go func() {
			places <- struct{}{}
			defer func() { <-places }()
			result <- do(name)
		}()
	}
	return func() error {
		first := results[0]
		results = results[1:]
		return <-first
	}
}

func killCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "kill [OPTIONS] CONTAINER..."}
	signal := cmd.Flags().StringP("signal", "s", "", "Signal to send (default KILL)")
	p := pickFlags(cmd, "al", container.StateRunning, container.StatePaused)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if *signal != "" {
			q.Set("signal", *signal)
		}
		names, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		return postNames(cmd.Context(), app, names, "kill", q)
	}
	return cmd
}

func removeCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "rm [OPTIONS] CONTAINER..."}
	force := cmd.Flags().BoolP("force", "f", false, "Kill it first when it runs; no error when there is none")
	vols := cmd.Flags().BoolP("volumes", "v", false, "Remove its volumes without a name too")
	link := cmd.Flags().BoolP("link", "l", false, "Remove a link, not a container")
	p := pickFlags(cmd, "a")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for name, on := range map[string]bool{"force": *force, "v": *vols, "link": *link} {
			if on {
				q.Set(name, "1")
			}
		}
		names, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		return removeEach(cmd.Context(), app, names, q)
	}
	return cmd
}

func removeEach(ctx context.Context, app *App, names []string, q url.Values) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	answer := together(names, func(name string) error {
		if name = strings.Trim(name, "/"); name == "" {
			return fmt.Errorf("remove: a container's name cannot be empty")
		}
		return c.Delete(ctx, containerPath(name, ""), q, nil)
	})
	return each(ctx, app, names, func(name string) error {
		err := answer()
		if q.Has("force") && client.IsNotFound(err) {
			printError(app.Err, err) // what is to be gone is gone
			return nil
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Out, strings.Trim(name, "/"))
		return err
	})
}

func renameCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "rename CONTAINER NAME", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		if strings.TrimSpace(args[0]) == "" || strings.TrimSpace(args[1]) == "" {
			return fmt.Errorf("rename: neither name can be empty")
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		return c.Post(cmd.Context(), containerPath(args[0], "/rename"), url.Values{"name": {args[1]}}, nil, nil)
	}}
}

func updateCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "update [OPTIONS] CONTAINER...", Args: atLeast(1)}
	var f limitFlags
	var restart string
	var publish, unpublish []string
	var unhealthy string
	f.swap.unlimited = true
	fs := cmd.Flags()
	fs.VarP(&f.memory, "memory", "m", "Most memory, such as 512m")
	fs.Var(&f.swap, "memory-swap", "Most memory and swap together, -1 for any amount of swap")
	fs.Var(&f.reservation, "memory-reservation", "Memory to leave it when memory is short")
	fs.Var(&f.kernelMemory, "kernel-memory", "Taken and ignored: kernels have no such limit any more")
	fs.Int64Var(&f.pids, "pids-limit", 0, "Most processes and threads, -1 for any number")
	fs.Var(&f.cpus, "cpus", "Most processor time, in processors: 0.5 is half of one")
	fs.Int64VarP(&f.shares, "cpu-shares", "c", 0, "Weight against other containers when processors are short")
	fs.Int64Var(&f.period, "cpu-period", 0, "Period of the scheduler's quota in microseconds")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "Processor time in each period in microseconds")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Period of real-time scheduling in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Real-time run time in each period in microseconds")
	fs.StringVar(&f.cpuset, "cpuset-cpus", "", "Processors to run on, such as 0-3 or 0,2")
	fs.StringVar(&f.mems, "cpuset-mems", "", "Memory nodes to use, such as 0")
	fs.Uint16Var(&f.weight, "blkio-weight", 0, "Weight of its disk input and output, 10 to 1000")
	fs.StringVar(&restart, "restart", "", "When to start it again: no, always, unless-stopped or on-failure[:MOST]")
	fs.StringArrayVarP(&publish, "publish", "p", nil, "Port to publish, as with run, at once where it runs")
	fs.StringArrayVar(&unpublish, "unpublish", nil, "Published port to take back: [ADDRESS:]HOST:CONTAINER, or CONTAINER for all of that one's")
	fs.StringVar(&unhealthy, "on-unhealthy", "", "What to do when it is unhealthy: none, restart, stop or kill")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkUnhealthy(unhealthy); err != nil {
			return err
		}
		if fs.NFlag() == 0 {
			return fmt.Errorf("update: say what to change, such as --memory 1g; see wherry update --help")
		}
		u, err := f.update(restart)
		if err != nil {
			return err
		}
		if fs.Changed("pids-limit") {
			u.PidsLimit = &f.pids
		}
		change, err := parsePortChange(publish, unpublish)
		if err != nil {
			return err
		}
		change.only = fs.NFlag() == len(changedOf(fs, "publish", "unpublish", "on-unhealthy"))
		return updateEach(cmd.Context(), app, args, u, ownChanges{change, unhealthy})
	}
	return cmd
}

func (f *limitFlags) update(restart string) (u container.UpdateConfig, err error) {
	u.Resources = container.Resources{
		Memory: f.memory.bytes, MemorySwap: f.swap.bytes, MemoryReservation: f.reservation.bytes, NanoCPUs: f.cpus.nano, CPUShares: f.shares,
		CPUPeriod: f.period, CPUQuota: f.quota, CPURealtimePeriod: f.rtPeriod, CPURealtimeRuntime: f.rtRuntime, CpusetCpus: f.cpuset,
		CpusetMems: f.mems, BlkioWeight: f.weight,
	}
	if restart != "" {
		u.RestartPolicy, err = parseRestart(restart)
	}
	return u, err
}

func updateEach(ctx context.Context, app *App, names []string, u container.UpdateConfig, own ownChanges) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	return each(ctx, app, names, func(name string) error {
		if err := own.post(ctx, c, name); err != nil {
			return err
		}
		var answer container.UpdateResponse
		if !own.only {
			if err := c.Post(ctx, containerPath(name, "/update"), nil, u, &answer); err != nil {
				return err
			}
		}
		printWarnings(app, answer.Warnings)
		_, err := fmt.Fprintln(app.Out, name)
		return err
	})
}
