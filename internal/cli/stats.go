package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// statsRow is a line of stats.
type statsRow struct {
	BlockIO   string `head:"BLOCK I/O"`
	CPUPerc   string `head:"CPU %"`
	Container string
	ID        string `head:"CONTAINER ID"`
	MemAnon   string `head:"ANON" json:",omitempty"` // this one, MemFile and MemShmem are ours: only where they are asked for
	MemFile   string `head:"FILE" json:",omitempty"`
	MemPerc   string `head:"MEM %"`
	MemShmem  string `head:"SHMEM" json:",omitempty"`
	MemUsage  string `head:"MEM USAGE / LIMIT"`
	Name      string
	NetIO     string `head:"NET I/O"`
	PIDs      string `head:"PIDS"`
}

// statsLayout has, where memory is set, what the memory is for.
func statsLayout(memory bool) layout {
	split := ""
	if memory {
		split = `{{.MemAnon}}\t{{.MemFile}}\t{{.MemShmem}}\t`
	}
	return layout{table: `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t` + split + `{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`}
}

func statsCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "stats [OPTIONS] [CONTAINER...]", Args: atLeast(0)}
	var all, once, noTrunc, memory bool
	var format string
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Those that do not run too")
	cmd.Flags().BoolVar(&once, "no-stream", false, "Print once and end")
	cmd.Flags().BoolVar(&memory, "memory", false, "What the memory is for too: of processes, cached files, shared")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not shorten anything")
	formatFlag(cmd, &format, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format == "" {
			format = configText(app, "statsFormat")
		}
		rows, err := statsLayout(memory).parseRows(format, false)
		if err != nil {
			return err
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		memory = memory || strings.Contains(format, ".MemAnon") || strings.Contains(format, ".MemFile") || strings.Contains(format, ".MemShmem")
		w := &statsWatch{client: c, names: args, all: all, short: !noTrunc, memory: memory, last: map[string]container.StatsResponse{}}
		if err := w.look(cmd.Context(), io.Discard, rows); err != nil {
			return err
		}
		return w.show(cmd.Context(), app.Out, rows, once)
	}
	return cmd
}

// statsWatch asks for single counts and works the rates out from one to the next.
type statsWatch struct {
	client *client.Client
	names  []string
	all    bool
	short  bool
	memory bool
	last   map[string]container.StatsResponse
}

func (w *statsWatch) show(ctx context.Context, out io.Writer, rows rowFormat, once bool) error {
	_, live := terminal(out)
	live = live && !once
	for {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
		var screen bytes.Buffer
		if err := w.look(ctx, &screen, rows); err != nil {
			return err
		}
		text := screen.String()
		if live {
			// Home, each line erased to its end, then what is left below: nothing flickers.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		}
		if _, err := io.WriteString(out, text); err != nil || once {
			return err
		}
	}
}

// look counts once and prints.
func (w *statsWatch) look(ctx context.Context, out io.Writer, rows rowFormat) error {
	names := w.names
	if len(names) == 0 {
		var err error
		if names, err = w.list(ctx); err != nil {
			return err
		}
	}
	counts := make([]container.StatsResponse, len(names))
	failed := make(chan error, len(names))
	places := make(chan struct{}, 8)
	for i, name := range names {
		go func() {
			places <- struct{}{}
			defer func() { <-places }()
			failed <- w.client.Get(ctx, containerPath(name, "/stats"), url.Values{"stream": {"0"}, "one-shot": {"1"}}, &counts[i])
		}()
	}
	for range names {
		err := <-failed
		if err != nil && (len(w.names) > 0 || !client.IsNotFound(err)) {
			return err
		}
	}
	lines := []statsRow{}
	for i, s := range counts {
		if s.ID == "" {
			continue // it went away meanwhile
		}
		line := newStatsRow(names[i], s, w.last[s.ID], w.short)
		if w.memory {
			split := s.MemoryStats.Stats
			line.MemAnon, line.MemFile, line.MemShmem = humanMemory(split["wherry_anonymous"]), humanMemory(split["wherry_file"]), humanMemory(split["wherry_shmem"])
		}
		lines = append(lines, line)
		w.last[s.ID] = s
	}
	return writeRows(out, rows, lines)
}

func (w *statsWatch) list(ctx context.Context) ([]string, error) {
	q := url.Values{}
	if w.all {
		q.Set("all", "1")
	}
	var list []container.Summary
	if err := w.client.Get(ctx, "/containers/json", q, &list); err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.ID
	}
	return names, nil
}

func newStatsRow(asked string, now, before container.StatsResponse, short bool) statsRow {
	id := now.ID
	if short {
		id = shortID(id)
	}
	if asked == now.ID {
		asked = id
	}
	row := statsRow{Container: asked, ID: id, Name: strings.TrimPrefix(now.Name, "/")}
	used := memoryInUse(now.MemoryStats)
	var share float64
	if now.MemoryStats.Limit > 0 {
		share = 100 * float64(used) / float64(now.MemoryStats.Limit)
	}
	var in, out, read, written uint64
	for _, n := range now.Networks {
		in += n.RxBytes
		out += n.TxBytes
	}
	for _, e := range now.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			read += e.Value
		case "write":
			written += e.Value
		}
	}
	row.CPUPerc, row.MemPerc = fmt.Sprintf("%.2f%%", cpuShare(now.CPUStats, before.CPUStats)), fmt.Sprintf("%.2f%%", share)
	row.MemUsage = humanMemory(used) + " / " + humanMemory(now.MemoryStats.Limit)
	row.NetIO, row.BlockIO = bothSizes(in, out), bothSizes(read, written)
	row.PIDs = fmt.Sprint(now.PidsStats.Current)
	return row
}

func bothSizes(a, b uint64) string {
	return units.HumanSizeWithPrecision(float64(a), 3) + " / " + units.HumanSizeWithPrecision(float64(b), 3)
}

// memoryInUse leaves out what the kernel would give back when asked (files not used for a while).
func memoryInUse(m container.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[name]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}

// cpuShare is in percent of one processor.
func cpuShare(now, before container.CPUStats) float64 {
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	all := float64(now.SystemUsage) - float64(before.SystemUsage)
	if used <= 0 || all <= 0 || before.SystemUsage == 0 {
		return 0
	}
	cpus := max(float64(now.OnlineCPUs), 1)
	return used / all * cpus * 100
}
