package metrics

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/monitor"
	"wherry.dev/wherry/internal/version"
)

// writeEngine writes what is about the engine as a whole.
func (c *Collector) writeEngine(ctx context.Context, p *page) error {
	p.family("wherry_engine_info", gauge, "The engine's version.")
	p.sample("wherry_engine_info", 1, "version", version.Version, "goversion", runtime.Version())
	for _, row := range []struct {
		name, help string
		count      func(context.Context) (int, error)
	}{
		{"wherry_images", "Images in the store.", c.counts.Images}, {"wherry_volumes", "Volumes.", c.counts.Volumes}, {"wherry_networks", "Networks.", c.counts.Networks},
	} {
		if row.count == nil {
			continue
		}
		n, err := row.count(ctx)
		if err != nil {
			return err
		}
		p.one(row.name, gauge, row.help, float64(n))
	}
	if c.counts.LostEvents != nil {
		p.one("wherry_engine_events_lost_total", counter, "Events that readers have missed, because they were too slow.", float64(c.counts.LostEvents()))
	}
	if c.counts.Audit != nil {
		records, lost := c.counts.Audit()
		p.one("wherry_engine_audit_records_total", counter, "Records that the audit log has had.", float64(records))
		p.one("wherry_engine_audit_lost_records_total", counter, "Records that could not be written since the engine started.", float64(lost))
	}
	c.writeProcess(p)
	return nil
}

// writeProcess has the names that all exporters have for their own process.
func (c *Collector) writeProcess(p *page) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		p.one("process_cpu_seconds_total", counter, "Processor time of the engine.", (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds())
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			pages, _ := strconv.ParseFloat(f[1], 64)
			p.one("process_resident_memory_bytes", gauge, "Memory of the engine.", pages*float64(os.Getpagesize()))
		}
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.one("process_open_fds", gauge, "Open descriptors of the engine.", float64(len(entries)))
	}
	p.one("process_start_time_seconds", gauge, "When the engine started, in seconds since 1970.", seconds(c.counts.Started))
	p.one("go_goroutines", gauge, "Goroutines of the engine.", float64(runtime.NumGoroutine()))
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// row is a container with its labels.
type row struct {
	labels   []string
	state    string
	health   string
	restarts int
	started  time.Time
	sample   *monitor.Sample // nil: it does not run
}

func (c *Collector) writeContainers(ctx context.Context, p *page) error {
	list, err := c.containers.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return err
	}
	states := map[string]int{"created": 0, "running": 0, "paused": 0, "restarting": 0, "removing": 0, "exited": 0, "dead": 0}
	rows := make([]row, 0, len(list))
	for i := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := c.row(ctx, &list[i])
		states[r.state]++
		rows = append(rows, r)
	}
	p.family("wherry_containers", gauge, "Containers, by state.")
	for _, s := range sortedKeys(states) {
		p.sample("wherry_containers", float64(states[s]), "state", s)
	}
	for _, f := range families() {
		p.family(f.name, f.kind, f.help)
		for i := range rows {
			f.each(&rows[i], func(v float64, more ...string) {
				p.sample(f.name, v, append(rows[i].labels[:len(rows[i].labels):len(rows[i].labels)], more...)...)
			})
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (c *Collector) row(ctx context.Context, s *container.Summary) row {
	name := ""
	if len(s.Names) > 0 {
		name = strings.TrimPrefix(s.Names[0], "/")
	}
	r := row{labels: []string{"id", s.ID, "name", name, "image", s.Image}, state: string(s.State)}
	if s.Health != nil && s.Health.Status != container.NoHealthcheck {
		r.health = string(s.Health.Status)
	}
	if c.counts.Life != nil {
		r.restarts, r.started = c.counts.Life(s.ID)
	}
	if s.State == container.StateRunning || s.State == container.StatePaused {
		if sample, err := c.sampler.Sample(ctx, s.ID); err == nil { // it may have ended meanwhile
			r.sample = &sample
		}
	}
	return r
}
